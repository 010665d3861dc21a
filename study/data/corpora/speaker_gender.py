"""Derive the gender of a character from its name, since MELD-ST has no gender column.

A dubbed voice counts with the gender of its character. Sources, in this order: the user's ``genders.csv``, our table of
characters, rules on the words of the name. If none applies, the gender is unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from study.common.errors import refuse
from study.common.groups import Gender
from study.data.corpora.label_maps import translate_column
from study.data.corpora.meld_characters import CHARACTERS
from study.data.corpora.table_io import read_table

GENDER_FILE = "genders.csv"

# Words that determine the gender by themselves, as in "Mr. Geller", "Woman on Train", "Ross's Mother".
_WORDS = {
    Gender.FEMALE: {
        "mrs", "ms", "miss", "female", "woman", "women", "girl", "girls", "lady", "ladies", "mother", "mom",
        "grandmother", "aunt", "sister", "daughter", "wife", "girlfriend", "waitress", "actress", "stewardess", "bride",
        "nun",
    },
    Gender.MALE: {
        "mr", "sir", "male", "man", "men", "guy", "guys", "boy", "boys", "gentleman", "father", "dad", "grandfather",
        "uncle", "brother", "son", "husband", "boyfriend", "waiter", "actor", "groom", "fireman", "policeman", "priest",
    },
}  # fmt: skip


class ResolvedGender(NamedTuple):
    """A gender, and its source: ``genders.csv``, ``table``, ``rule`` or ``none``."""

    gender: str
    source: str


_UNKNOWN = ResolvedGender(Gender.UNKNOWN.value, "none")


def resolve_gender(speaker: str, own_genders: Mapping[str, str] | None = None) -> ResolvedGender:
    """Return the gender of a speaker.

    If one voice has two roles (``Phoebe/Waitress``), the known genders must agree. If there are several voices (``Ross
    and Joey``), all must be known and agree.

    Args:
        own_genders: as ``read_genders`` returns them; they win over the other sources.

    >>> [resolve_gender(name).gender for name in ("Phoebe/Waitress", "Ross and Rachel", "Mr. Treeger", "Director")]
    ['female', 'unknown', 'male', 'unknown']
    >>> resolve_gender("Gunther")
    ResolvedGender(gender='male', source='table')
    >>> resolve_gender("Phoebe Sr.")
    ResolvedGender(gender='female', source='rule')
    """
    own_genders = own_genders or {}
    name = normalised_name(speaker)
    if name in own_genders:
        return ResolvedGender(own_genders[name], GENDER_FILE)
    voices = []
    for voice in split_voices(speaker):
        roles = [_resolve_role(normalised_name(role), own_genders) for role in voice.split("/")]
        known = [role for role in roles if role != _UNKNOWN]
        voices.append(known[0] if len({role.gender for role in known}) == 1 else _UNKNOWN)
    return voices[0] if len({voice.gender for voice in voices}) == 1 else _UNKNOWN


def split_voices(speaker: str) -> list[str]:
    """Return the names of all voices of a speaker cell.

    >>> split_voices("Monica & Phoebe"), split_voices("Phoebe/Waitress")
    (['Monica', 'Phoebe'], ['Phoebe/Waitress'])
    """
    return [part.strip() for part in re.split(r",|&|\band\b", speaker) if part.strip()]


def normalised_name(name: str) -> str:
    """Return a name as the tables spell it: ``Phoebe Sr.`` is ``phoebe sr``, and ``The Director`` is ``director``."""
    words = name.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace(".", "").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a") else words)


def read_genders(root: str) -> dict[str, str]:
    """Return normalised name -> gender from the optional ``genders.csv`` (speaker, gender) of a corpus folder.

    Raises:
        CorpusError: a column is missing, a gender is not one of female, male, unknown, or a speaker has two.
    """
    path = os.path.join(root, GENDER_FILE)
    if not os.path.exists(path):
        return {}
    table = read_table(path, ("speaker", "gender"), "It needs the columns speaker and gender, or remove the file.")
    names, errors = translate_column(table, "gender")
    genders: dict[str, str] = {}
    for location, speaker, gender in zip(table.index, table["speaker"], names, strict=True):
        if gender and genders.setdefault(normalised_name(speaker), gender) != gender:
            errors.append(f"{location}: speaker {speaker!r} has two genders. Keep one of the rows.")
    refuse(errors)
    return genders


def _resolve_role(name: str, own_genders: Mapping[str, str]) -> ResolvedGender:
    """Return the gender of one role of one voice, by its normalised name."""
    if name in own_genders:
        return ResolvedGender(own_genders[name], GENDER_FILE)
    if name in CHARACTERS:
        return ResolvedGender(CHARACTERS[name], "table")
    words = set(re.findall(r"[a-z]+", name))
    genders = [gender.value for gender, gendered_words in _WORDS.items() if words & gendered_words]
    first = name.partition(" ")[0]
    if not genders and first in CHARACTERS:  # "Frank Sr", "Emily Waltham"
        genders = [CHARACTERS[first]]
    return ResolvedGender(genders[0], "rule") if len(genders) == 1 else _UNKNOWN
