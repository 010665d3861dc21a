"""The one exception of the corpus readers, and how many faults it spells out."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 20  # faults that a message spells out; the rest is a number


class CorpusError(ValueError):
    """A corpus that cannot be used as it is; the message names the file, the row and the remedy."""


def refuse(errors: Sequence[str]) -> None:
    """Every fault in one error, a line each.

    Raises:
        CorpusError: there is at least one.
    """
    if len(errors) == 1:
        raise CorpusError(errors[0])
    if errors:
        raise CorpusError("\n".join([f"{len(errors)} faults:", *capped(errors)]))


def capped(errors: Sequence[str]) -> list[str]:
    """The first faults, and how many more there are."""
    rest = len(errors) - NAMED
    return [*errors[:NAMED], *([f"and {rest} more"] if rest > 0 else [])]


class RecordError(RuntimeError):
    """A study folder that cannot be read or written; the message names the file and the remedy."""


class SettingsError(ValueError):
    """Every fault of a plan, one a line, each with the knob and the remedy."""

    def __init__(self, errors: Sequence[str]):
        self.errors = tuple(errors)
        super().__init__("\n".join(errors))
