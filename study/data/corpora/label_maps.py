"""Map the labels that corpora use for emotions, languages, genders and splits to those of the study."""

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


def _label_map(names: Iterable[str], synonyms: Mapping[str, str]) -> dict[str, str]:
    """Return label -> name, for the names themselves and their synonyms (separated by blanks)."""
    own = {name: name for name in names}
    return own | {label: name for name, labels in synonyms.items() for label in labels.split()}


EMOTION_WORDS = _label_map(
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
"""Words for the seven emotions in English, German and Japanese; they occur in tables and in free answers."""
EMOTION_CODES = {"neu": "neutral", "hap": "joy", "sur": "surprise", "ang": "anger", "dis": "disgust", "fea": "fear"}
LANGUAGE_WORDS = _label_map(LANGUAGES, {"en": "english eng", "ja": "japanese jpn jp", "de": "german deutsch deu ger"})
# An empty cell means unknown. Any other label, such as x, is an error, since it may be a typing error.
GENDER_WORDS = {"": Gender.UNKNOWN.value} | _label_map(tuple(Gender), {"female": "f woman", "male": "m man"})
SPLIT_WORDS = _label_map(SPLITS, {"train": "training", "dev": "valid validation development", "test": "testing"})

# column -> (its label map, the names of the study, what to do about an unknown label)
_COLUMNS: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "emotion": (EMOTION_WORDS | EMOTION_CODES, EMOTIONS, "Correct the row or remove it."),
    "language": (LANGUAGE_WORDS, LANGUAGES, "Correct the row or remove it."),
    "gender": (GENDER_WORDS, tuple(Gender), "Correct the row; utterances of unknown gender count in no gap."),
    "split": (SPLIT_WORDS, SPLITS, "Correct the row, or remove the column."),
}


def normalised(text: str) -> str:
    """Return text in lower case, with one code for characters that look alike (full width, accents)."""
    return unicodedata.normalize("NFKC", text).casefold()


LABELS_FILE = "labels.csv"
"""A manifest's own labels, in the same folder. Columns: ``column`` (emotion, language, gender or split), ``label`` (as
in the manifest) and ``name`` (of the study)."""


def read_labels_file(folder: str) -> dict[str, dict[str, str]]:
    """Return column -> label -> name from the optional ``LABELS_FILE`` of a folder.

    Raises:
        CorpusError: a column is missing, or rows have an unknown column or name, or two names for one label; all rows
            are named.
    """
    path = os.path.join(folder, LABELS_FILE)
    if not os.path.exists(path):
        return {}
    remedy = "It needs the columns column, label and name, or remove the file."
    table = read_table(path, ("column", "label", "name"), remedy)
    labels: dict[str, dict[str, str]] = {}
    errors = []
    for location, row in table.iterrows():
        column, name, label = row["column"].casefold(), row["name"].casefold(), normalised(row["label"])
        if column not in _COLUMNS:
            errors.append(f"{location}: unknown column {row['column']!r}; use one of {', '.join(_COLUMNS)}.")
        elif name not in _COLUMNS[column][1]:
            names = ", ".join(_COLUMNS[column][1])
            errors.append(f"{location}: unknown {column} {row['name']!r}; use one of {names}.")
        elif labels.setdefault(column, {}).setdefault(label, name) != name:
            errors.append(f"{location}: the label {row['label']!r} has two names. Keep one of the rows.")
    refuse(errors)
    return labels


def translate_column(
    table: pd.DataFrame, column: str, own_labels: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], list[str]]:
    """Translate the labels of a column to the names of the study.

    Labels are case-insensitive, and a language may have a country (``en-US``).

    Args:
        table: as ``table_io.read_table`` returns it; its index locates each row.
        column: emotion, language, gender or split.
        own_labels: further labels, which win over ours (``read_labels_file``).

    Returns:
        The names, empty for an unknown label, and an error for each unknown label.

    >>> table = pd.DataFrame({"emotion": ["Happy", "bored"]}, index=["a.csv, row 2", "a.csv, row 3"])
    >>> translate_column(table, "emotion")[0]
    ['joy', '']
    """
    label_map, known, remedy = _COLUMNS[column]
    label_map = label_map | dict(own_labels)
    names, errors = [], []
    for location, value in table[column].items():
        label = normalised(value)
        if column == "language" and label not in own_labels:
            label = label.replace("_", "-").partition("-")[0]
        if label not in label_map:
            errors.append(f"{location}: unknown {column} {value!r}; use one of {', '.join(known)}. {remedy}")
        names.append(label_map.get(label, ""))
    return names, errors
