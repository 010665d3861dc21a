"""Emotions, languages, modalities and genders, and the cells and groups that they form.

A *cell* is a (language, modality) pair; a gap is the difference between the two genders of a cell.
A *group* is a (cell, gender) pair, encoded as one integer so that it fits in a tensor:
``group = 2 * cell_index + (0 for female, 1 for male)``, and ``-1`` where the gender is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

UNKNOWN_GROUP = -1


class Emotion(StrEnum):
    """MELD's seven classes, in the column order of label scores."""

    NEUTRAL = "neutral"
    JOY = "joy"
    SURPRISE = "surprise"
    ANGER = "anger"
    SADNESS = "sadness"
    DISGUST = "disgust"
    FEAR = "fear"


class Language(StrEnum):
    """The languages of MELD-ST."""

    ENGLISH = "en"
    JAPANESE = "ja"
    GERMAN = "de"


class Modality(StrEnum):
    """The model's input: the clip alone, or the clip and its gold transcript."""

    SPEECH = "speech"
    SPEECH_TEXT = "speech+text"


class Gender(StrEnum):
    """The sensitive feature. Utterances of unknown gender are trained on but count in no gap."""

    FEMALE = "female"
    MALE = "male"
    UNKNOWN = "unknown"


EMOTIONS: tuple[str, ...] = tuple(e.value for e in Emotion)
LANGUAGES: tuple[str, ...] = tuple(e.value for e in Language)
MODALITIES: tuple[str, ...] = tuple(e.value for e in Modality)
GENDERS: tuple[str, str] = (Gender.FEMALE.value, Gender.MALE.value)


class Cell(NamedTuple):
    """One (language, modality) pair, printed as ``en/speech+text``."""

    language: str
    modality: str

    def __str__(self) -> str:
        return f"{self.language}/{self.modality}"


def cells(languages: Iterable[str], modalities: Iterable[str]) -> tuple[Cell, ...]:
    """Return every cell of the given languages and modalities, in the order of the enumerations.

    >>> [str(c) for c in cells(["de", "en"], ["speech"])]
    ['en/speech', 'de/speech']
    """
    languages, modalities = set(languages), set(modalities)
    return tuple(
        Cell(language, modality)
        for modality in MODALITIES
        if modality in modalities
        for language in LANGUAGES
        if language in languages
    )


def group_id(cells_in_use: Sequence[Cell], cell: Cell, gender: str) -> int:
    """Return the integer of a group, or -1 if the gender is unknown.

    >>> group_id(cells(["en", "de"], ["speech"]), Cell("de", "speech"), "male")
    3
    """
    if gender not in GENDERS:
        return UNKNOWN_GROUP
    return 2 * cells_in_use.index(cell) + GENDERS.index(gender)


SCORE_COLUMNS = tuple(f"score_{emotion}" for emotion in EMOTIONS)
