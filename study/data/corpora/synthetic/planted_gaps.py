"""The planted gaps of the synthetic corpus: the whole truth about it, in one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from study.common.errors import CorpusError
from study.common.groups import EMOTIONS

_ALL = (1.0,) * len(EMOTIONS)


@dataclass(frozen=True)
class PlantedGap:
    """One planted gap.

    Attributes:
        name: how it is switched on.
        language, gender: the group at a disadvantage.
        what: what was done, for reports.
        closable: whether a fair training can close it without making the other gender worse.
        kept: share of the group's training utterances that is kept, for each emotion in the order of ``EMOTIONS``.
        cue: factor on the group's emotional prosody, in all splits.
    """

    name: str
    language: str
    gender: str
    what: str
    closable: bool
    kept: tuple[float, ...] = _ALL
    cue: float = 1.0


PLANTED_GAPS: tuple[PlantedGap, ...] = (
    PlantedGap(
        name="scarcity",
        language="de",
        gender="male",
        what="German men have a tenth of their training utterances",
        closable=True,
        kept=(0.1,) * len(EMOTIONS),
    ),
    PlantedGap(
        name="prior",
        language="ja",
        gender="female",
        what="Japanese women have next to no surprised, angry, disgusted and fearful training utterances",
        closable=True,
        kept=(1.0, 1.0, 0.03, 0.03, 1.0, 0.03, 0.03),
    ),
    PlantedGap(
        name="cue",
        language="en",
        gender="female",
        what="English women have weaker emotional prosody in all splits",
        closable=False,
        cue=0.7,
    ),
)

PLANTED_GAP_NAMES: tuple[str, ...] = tuple(planted_gap.name for planted_gap in PLANTED_GAPS)


def chosen(names: Iterable[str]) -> tuple[PlantedGap, ...]:
    """The rows of the table with these names, in the order of the table.

    Raises:
        CorpusError: a name is not in the table.
    """
    names = set(names)
    unknown = sorted(names - set(PLANTED_GAP_NAMES))
    if unknown:
        raise CorpusError(f"planted gap {unknown[0]!r} is not known: use {', '.join(PLANTED_GAP_NAMES)}, or none.")
    return tuple(planted_gap for planted_gap in PLANTED_GAPS if planted_gap.name in names)
