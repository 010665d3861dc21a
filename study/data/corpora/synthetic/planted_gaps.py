"""The planted gaps of the synthetic corpus: the ground truth about it, in one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from study.common.errors import CorpusError
from study.common.groups import EMOTIONS


@dataclass(frozen=True)
class PlantedGap:
    """A disadvantage of one gender in one language.

    Attributes:
        name: as in ``--set corpus.planted_gaps``.
        language, gender: the group at a disadvantage.
        description: what was done, for reports.
        closable: whether fair training can close the gap without making the other gender worse.
        train_shares: share of the group's training utterances that is kept, per emotion in the order of ``EMOTIONS``.
        prosody_factor: factor on the group's emotional prosody, in all splits.
    """

    name: str
    language: str
    gender: str
    description: str
    closable: bool
    train_shares: tuple[float, ...] = (1.0,) * len(EMOTIONS)
    prosody_factor: float = 1.0


PLANTED_GAPS: tuple[PlantedGap, ...] = (
    PlantedGap(
        name="scarcity",
        language="de",
        gender="male",
        description="German men have a tenth of their training utterances",
        closable=True,
        train_shares=(0.1,) * len(EMOTIONS),
    ),
    PlantedGap(
        name="prior",
        language="ja",
        gender="female",
        description="Japanese women have almost no surprised, angry, disgusted and fearful training utterances",
        closable=True,
        train_shares=(1.0, 1.0, 0.03, 0.03, 1.0, 0.03, 0.03),
    ),
    PlantedGap(
        name="cue",
        language="en",
        gender="female",
        description="English women have weaker emotional prosody in all splits",
        closable=False,
        prosody_factor=0.7,
    ),
)

PLANTED_GAP_NAMES: tuple[str, ...] = tuple(gap.name for gap in PLANTED_GAPS)


def select_gaps(names: Iterable[str]) -> tuple[PlantedGap, ...]:
    """Return the planted gaps with these names, in the order of the table.

    Raises:
        CorpusError: a name is not in the table.
    """
    names = set(names)
    unknown = sorted(names - set(PLANTED_GAP_NAMES))
    if unknown:
        raise CorpusError(f"unknown planted gap {unknown[0]!r}: use {', '.join(PLANTED_GAP_NAMES)}, or none.")
    return tuple(gap for gap in PLANTED_GAPS if gap.name in names)
