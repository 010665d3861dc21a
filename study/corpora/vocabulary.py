"""The words that corpora use for emotions, languages, genders and splits, and what the study calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from study.groups import EMOTIONS, LANGUAGES, Gender

SPLITS = ("train", "dev", "test")


def _own_and(own: Iterable[str], others: Mapping[str, str]) -> dict[str, str]:
    return {word: word for word in own} | {word: name for name, words in others.items() for word in words.split()}


EMOTION_WORDS = _own_and(
    EMOTIONS,
    {
        "neutral": "neu",
        "joy": "joyful happy happiness hap",
        "surprise": "surprised sur",
        "anger": "angry ang",
        "sadness": "sad",
        "disgust": "disgusted dis",
        "fear": "fearful fea afraid scared",
    },
)
LANGUAGE_WORDS = _own_and(LANGUAGES, {"en": "english eng", "ja": "japanese jpn jp", "de": "german deutsch deu ger"})
# an empty cell is honest; any other word, such as x, may be a slip
GENDER_WORDS = {"": Gender.UNKNOWN.value} | _own_and(tuple(Gender), {"female": "f woman", "male": "m man"})
SPLIT_WORDS = _own_and(SPLITS, {"train": "training", "dev": "valid validation development", "test": "testing"})

# what -> (its words, the names of the study, what to do about a word that is none of them)
_KINDS: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "emotion": (EMOTION_WORDS, EMOTIONS, "Correct the row or remove it."),
    "language": (LANGUAGE_WORDS, LANGUAGES, "Correct the row or remove it."),
    "gender": (GENDER_WORDS, tuple(Gender), "Correct the row; unknown enters no gap and is counted."),
    "split": (SPLIT_WORDS, SPLITS, "Correct the row, or remove the column."),
}


def translated(table: pd.DataFrame, what: str) -> tuple[list[str], list[str]]:
    """The column ``what`` of a table in the study's words, and a fault for each word that is none.

    Case does not matter, and a language may carry its country (``en-US``). A faulty cell comes back empty.

    Args:
        table: as ``tables.read_table`` returns it; its index says where each row stands.
        what: emotion, language, gender or split.

    >>> translated(pd.DataFrame({"emotion": ["Happy", "bored"]}, index=["a.csv, row 2", "a.csv, row 3"]), "emotion")[0]
    ['joy', '']
    """
    words, names, remedy = _KINDS[what]
    found, faults = [], []
    for where, value in table[what].items():
        word = value.lower()
        if what == "language":
            word = word.replace("_", "-").partition("-")[0]
        if word not in words:
            faults.append(f"{where}: {what} {value!r} is none of {', '.join(names)}. {remedy}")
        found.append(words.get(word, ""))
    return found, faults
