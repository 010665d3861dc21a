"""The gender of a character from its name, since MELD-ST has no gender column.

A dubbed voice counts with the gender of its character. Asked in this order: the user's ``genders.csv``, our table of
characters, rules on the words of the name. A name that says nothing stays unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from study.common.errors import refuse
from study.common.groups import Gender
from study.data.corpora.label_maps import translated
from study.data.corpora.meld_characters import CHARACTERS
from study.data.corpora.table_io import read_table

GENDER_FILE = "genders.csv"

# Words that carry the gender by themselves, as in "Mr. Geller", "Woman on Train", "Ross's Mother".
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


class Resolved(NamedTuple):
    """A gender, and by what it is known: ``genders.csv``, ``table``, ``rule``, or ``nothing``."""

    gender: str
    by: str


_NOTHING = Resolved(Gender.UNKNOWN.value, "nothing")


def resolve(speaker: str, own: Mapping[str, str] | None = None) -> Resolved:
    """The gender of a speaker.

    Of one voice in two roles (``Phoebe/Waitress``) the parts that are known must agree; of several voices (``Ross and
    Joey``) all must be known and agree.

    Args:
        own: ``read_genders``, which wins over everything.

    >>> [resolve(name).gender for name in ("Phoebe/Waitress", "Ross and Rachel", "Mr. Treeger", "Director")]
    ['female', 'unknown', 'male', 'unknown']
    >>> resolve("Gunther"), resolve("Phoebe Sr.")
    (Resolved(gender='male', by='table'), Resolved(gender='female', by='rule'))
    """
    own = own or {}
    if key(speaker) in own:
        return Resolved(own[key(speaker)], GENDER_FILE)
    together = []
    for voice in voices(speaker):
        roles = [resolved for part in voice.split("/") if (resolved := _of_one(key(part), own)) != _NOTHING]
        together.append(roles[0] if len({role.gender for role in roles}) == 1 else _NOTHING)
    return together[0] if len({resolved.gender for resolved in together}) == 1 else _NOTHING


def voices(speaker: str) -> list[str]:
    """The voices that a name names.

    >>> voices("Monica & Phoebe"), voices("Phoebe/Waitress")
    (['Monica', 'Phoebe'], ['Phoebe/Waitress'])
    """
    return [part.strip() for part in re.split(r",|&|\band\b", speaker) if part.strip()]


def key(name: str) -> str:
    """A name as the tables hold it; ``Phoebe Sr.`` is ``phoebe sr`` and ``The Director`` is ``director``."""
    words = name.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace(".", "").split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("the", "a") else words)


def read_genders(root: str) -> dict[str, str]:
    """The optional ``genders.csv`` (speaker, gender) of a corpus folder, by ``key`` of the speaker.

    Raises:
        CorpusError: a column is missing, a gender is none of female, male, unknown, or a speaker has two.
    """
    path = os.path.join(root, GENDER_FILE)
    if not os.path.exists(path):
        return {}
    table = read_table(path, ("speaker", "gender"), "It needs the columns speaker and gender, or remove the file.")
    found, errors = translated(table, "gender")
    genders: dict[str, str] = {}
    for where, speaker, gender in zip(table.index, table["speaker"], found, strict=True):
        if gender and genders.setdefault(key(speaker), gender) != gender:
            errors.append(f"{where}: speaker {speaker!r} has two genders. Keep one of the rows.")
    refuse(errors)
    return genders


def _of_one(name: str, own: Mapping[str, str]) -> Resolved:
    """Of one voice in one role, by its ``key``."""
    if name in own:
        return Resolved(own[name], GENDER_FILE)
    if name in CHARACTERS:
        return Resolved(CHARACTERS[name], "table")
    words = set(re.findall(r"[a-z]+", name))
    found = [gender.value for gender, carriers in _WORDS.items() if words & carriers]
    first = name.partition(" ")[0]
    if not found and first in CHARACTERS:  # "Frank Sr", "Emily Waltham"
        found = [CHARACTERS[first]]
    return Resolved(found[0], "rule") if len(found) == 1 else _NOTHING
