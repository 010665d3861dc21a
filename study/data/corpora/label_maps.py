"""The words that corpora use for emotions, languages, genders and splits, and what the study calls them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pandas as pd

from study.common.errors import refuse
from study.common.groups import EMOTIONS, LANGUAGES, Gender
from study.data.corpora.table_io import read_table

SPLITS = ("train", "dev", "test")


def _own_and(own: Iterable[str], others: Mapping[str, str]) -> dict[str, str]:
    return {word: word for word in own} | {word: name for name, words in others.items() for word in words.split()}


EMOTION_WORDS = _own_and(
    EMOTIONS,
    {
        "neutral": "中立",
        "joy": "joyful joyous happy happiness freude fröhlich glücklich 喜び 喜んで 嬉しい 幸せ",
        "surprise": "surprised surprising überraschung überrascht 驚き 驚いて",
        "anger": "angry furious ärger wut wütend verärgert zornig 怒り 怒って",
        "sadness": "sad trauer traurig 悲しみ 悲しい 悲しんで",
        "disgust": "disgusted ekel angeekelt 嫌悪",
        "fear": "fearful afraid scared frightened angst ängstlich 恐れ 恐怖 怖い",
    },
)
"""What people call the seven in the study's languages, in tables and in free answers."""
EMOTION_CODES = {"neu": "neutral", "hap": "joy", "sur": "surprise", "ang": "anger", "dis": "disgust", "fea": "fear"}
LANGUAGE_WORDS = _own_and(LANGUAGES, {"en": "english eng", "ja": "japanese jpn jp", "de": "german deutsch deu ger"})
# an empty cell is honest; any other word, such as x, may be a slip
GENDER_WORDS = {"": Gender.UNKNOWN.value} | _own_and(tuple(Gender), {"female": "f woman", "male": "m man"})
SPLIT_WORDS = _own_and(SPLITS, {"train": "training", "dev": "valid validation development", "test": "testing"})

# what -> (its words, the names of the study, what to do about a word that is none of them)
_KINDS: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "emotion": (EMOTION_WORDS | EMOTION_CODES, EMOTIONS, "Correct the row or remove it."),
    "language": (LANGUAGE_WORDS, LANGUAGES, "Correct the row or remove it."),
    "gender": (GENDER_WORDS, tuple(Gender), "Correct the row; unknown enters no gap and is counted."),
    "split": (SPLIT_WORDS, SPLITS, "Correct the row, or remove the column."),
}


def comparable(text: str) -> str:
    """Without case, and with one code for what looks the same (full width, accents)."""
    return unicodedata.normalize("NFKC", text).casefold()


WORDS_FILE = "words.csv"
"""A corpus's own words, beside its manifest: columns what (emotion, language, gender or split), word and name."""


def read_words(folder: str) -> dict[str, dict[str, str]]:
    """The optional ``WORDS_FILE`` of a folder: by what, the name that each word stands for.

    Raises:
        CorpusError: a column is missing, or a row names nothing that the study knows; all rows are named.
    """
    path = os.path.join(folder, WORDS_FILE)
    if not os.path.exists(path):
        return {}
    table = read_table(path, ("what", "word", "name"), "It needs the columns what, word and name, or remove the file.")
    words: dict[str, dict[str, str]] = {}
    errors = []
    for where, row in table.iterrows():
        what, name = row["what"].casefold(), row["name"].casefold()
        if what not in _KINDS:
            errors.append(f"{where}: what is {row['what']!r}; use one of {', '.join(_KINDS)}.")
        elif name not in _KINDS[what][1]:
            errors.append(f"{where}: there is no {what} {row['name']!r}; use one of {', '.join(_KINDS[what][1])}.")
        else:
            word = comparable(row["word"])
            if words.setdefault(what, {}).setdefault(word, name) != name:
                errors.append(f"{where}: {row['word']!r} stands for two names. Keep one of the rows.")
    refuse(errors)
    return words


def translated(
    table: pd.DataFrame, what: str, own: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], list[str]]:
    """The column ``what`` of a table in the study's words, and a fault for each word that is none.

    Case does not matter, and a language may carry its country (``en-US``). A faulty cell comes back empty.

    Args:
        table: as ``tables.read_table`` returns it; its index says where each row stands.
        what: emotion, language, gender or split.
        own: further words, which go before ours (``read_words``).

    >>> translated(pd.DataFrame({"emotion": ["Happy", "bored"]}, index=["a.csv, row 2", "a.csv, row 3"]), "emotion")[0]
    ['joy', '']
    """
    words, names, remedy = _KINDS[what]
    found, errors = [], []
    words = words | dict(own)
    for where, value in table[what].items():
        word = comparable(value)
        if what == "language" and word not in own:
            word = word.replace("_", "-").partition("-")[0]
        if word not in words:
            errors.append(f"{where}: {what} {value!r} is none of {', '.join(names)}. {remedy}")
        found.append(words.get(word, ""))
    return found, errors
