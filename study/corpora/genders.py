"""The gender of a character from its name, since MELD-ST has no gender column.

A dubbed voice counts with the gender of its character. A name that says nothing stays unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from study.corpora.corpus import check_gender, line, read_table
from study.corpora.errors import CorpusError
from study.groups import GENDERS, Gender

GENDER_FILE = "genders.csv"

# The six leads of the series speak about five of six rows.
_NAMES = {
    "monica": Gender.FEMALE,
    "phoebe": Gender.FEMALE,
    "rachel": Gender.FEMALE,
    "chandler": Gender.MALE,
    "joey": Gender.MALE,
    "ross": Gender.MALE,
}

# Words that carry the gender by themselves, as in "Mr. Geller", "Woman on Train", "Ross's Mother".
_WORDS = {
    Gender.FEMALE: {
        "mrs", "ms", "miss", "woman", "women", "girl", "girls", "lady", "ladies", "mother", "mom", "grandmother",
        "aunt", "sister", "daughter", "wife", "girlfriend", "waitress", "actress", "stewardess", "bride", "nun",
    },
    Gender.MALE: {
        "mr", "sir", "man", "men", "guy", "guys", "boy", "boys", "gentleman", "father", "dad", "grandfather",
        "uncle", "brother", "son", "husband", "boyfriend", "waiter", "actor", "groom", "fireman", "policeman", "priest",
    },
}  # fmt: skip


def gender_of(speaker: str, overrides: Mapping[str, str] | None = None) -> str:
    """female, male or unknown.

    A pair (``Phoebe/Waitress``, ``Ross and Joey``) resolves where the parts that are known agree.

    >>> gender_of("Phoebe/Waitress"), gender_of("Ross and Rachel"), gender_of("Mr. Treeger"), gender_of("Director")
    ('female', 'unknown', 'male', 'unknown')
    """
    overrides = overrides or {}
    if speaker in overrides:
        return overrides[speaker]
    parts = [part for part in re.split(r"/|,|&|\band\b", speaker) if part.strip()]
    found = {_gender_of_one(part.strip(), overrides) for part in parts} - {Gender.UNKNOWN.value}
    return found.pop() if len(found) == 1 else Gender.UNKNOWN.value


def read_genders(root: str) -> dict[str, str]:
    """The optional ``genders.csv`` (speaker, gender) of a corpus folder, which wins over every rule.

    Raises:
        CorpusError: a column is missing, a gender is none of female, male, unknown, or a speaker has two.
    """
    path = os.path.join(root, GENDER_FILE)
    if not os.path.exists(path):
        return {}
    table = read_table(path, ("speaker", "gender"), "It needs the columns speaker and gender, or remove the file.")
    genders: dict[str, str] = {}
    for row, (speaker, value) in enumerate(zip(table["speaker"], table["gender"], strict=True)):
        gender = check_gender(value, line(path, row))
        if genders.setdefault(speaker, gender) != gender:
            raise CorpusError(f"{line(path, row)}: speaker {speaker!r} has two genders. Keep one of the rows.")
    return genders


def _gender_of_one(name: str, overrides: Mapping[str, str]) -> str:
    if name in overrides:
        return overrides[name]
    if name.lower() in _NAMES:
        return _NAMES[name.lower()].value
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = {gender.value for gender, carriers in _WORDS.items() if words & carriers}
    return found.pop() if len(found) == 1 and found <= set(GENDERS) else Gender.UNKNOWN.value
