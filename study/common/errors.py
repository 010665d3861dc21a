"""Exceptions that users can fix, and the formatting of lists of errors."""

from __future__ import annotations

from collections.abc import Sequence

LISTED = 20  # errors that a message lists; of the rest it gives the number


class CorpusError(ValueError):
    """A corpus that cannot be used; the message names the file, the row and the remedy."""


class RecordError(RuntimeError):
    """A study folder that cannot be read or written; the message names the file and the remedy."""


class SettingsError(ValueError):
    """The errors of a plan, one per line; each names the setting and the remedy."""

    def __init__(self, errors: Sequence[str]):
        self.errors = tuple(errors)
        super().__init__("\n".join(errors))


def refuse(errors: Sequence[str]) -> None:
    """Raise the errors of a corpus together.

    Raises:
        CorpusError: there is at least one error; several are listed one per line.
    """
    if len(errors) == 1:
        raise CorpusError(errors[0])
    if errors:
        raise CorpusError("\n".join([f"{len(errors)} errors:", *capped(errors)]))


def capped(errors: Sequence[str]) -> list[str]:
    """Return the first ``LISTED`` errors, and a line with the number of the others.

    >>> capped(["a"] * 22)[-2:]
    ['a', 'and 2 more']
    """
    rest = len(errors) - LISTED
    return [*errors[:LISTED], *([f"and {rest} more"] if rest > 0 else [])]


def plural(number: int, noun: str) -> str:
    """Return the number with its noun.

    >>> plural(1, "trial"), plural(3, "trial")
    ('1 trial', '3 trials')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
