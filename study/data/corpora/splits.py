"""Which side of a split an utterance is on, and what a split lets through from training to evaluation."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pandas as pd

from study.common.errors import capped, refuse
from study.common.groups import GENDERS, Gender
from study.data.corpora.label_maps import SPLITS

HELD_OUT = 0.2  # share of the utterances in dev, and again in test
SPEAKERS_NEEDED = 3  # one a split


def most_evaluated(sides: pd.Series, units: pd.Series) -> pd.Series:
    """Each unit as a whole on its most evaluated side: test, then dev, then train."""
    num_workers = sides.map(SPLITS.index).groupby(units).transform("max")
    return num_workers.map(dict(enumerate(SPLITS)))


def by_speaker(rows: pd.DataFrame, where: str, seed: int = 0) -> dict[str, str]:
    """The side of every speaker, about 60/20/20 of the utterances of each gender.

    The voices with the fewest clips are held out first: dev and test then hold as many voices as 20 % of the utterances
    allow, and the leads of a series are trained on. Speakers of the same languages are divided together.

    Args:
        rows: language, gender, speaker and where (``file, row n``) of each utterance.
        where: the corpus, for messages.
        seed: decides between voices with equally many clips.

    Raises:
        CorpusError: a speaker has two genders, or a gender of a language has no voice on some side.
    """
    refuse(gender_errors(rows, tuple(Gender)))
    speakers = rows.groupby("speaker").agg(
        gender=("gender", "first"),
        clips=("gender", "size"),
        languages=("language", lambda spoken: "+".join(sorted(set(spoken)))),
    )
    sides: dict[str, str] = {}
    for (languages, gender), group in speakers.groupby(["languages", "gender"]):
        if len(group) < SPEAKERS_NEEDED:
            sides.update(dict.fromkeys(group.index, "train"))
            continue
        names = sorted(group.index)
        random.Random(f"{seed}/{languages}/{gender}").shuffle(names)
        names.sort(key=group["clips"].get)
        filled, room = {"dev": 0, "test": 0}, HELD_OUT * group["clips"].sum()
        for name in names:
            side = min(filled, key=filled.get)
            clips = group["clips"][name]
            sides[name] = side if not filled[side] or filled[side] + clips <= room else "train"
            if sides[name] != "train":
                filled[side] += clips
    present = rows.assign(side=rows["speaker"].map(sides)).groupby(["language", "gender"])
    refuse(
        [
            f"{where}: {group['speaker'].nunique()} {gender} speaker(s) of {language} leave no voice for each of "
            f"train, dev and test. Add a split column to a manifest, or choose another --split."
            for (language, gender), group in present
            if gender in GENDERS and group["side"].nunique() < len(SPLITS)
        ]
    )
    return sides


def gender_errors(rows: pd.DataFrame, genders: Sequence[str]) -> list[str]:
    """Every speaker with rows of several of these genders: the file, and the rows of each, the rarer gender first.

    Args:
        rows: speaker, gender and where (``file, row n``) of each utterance. An empty speaker names nobody.
    """
    known = rows[rows["gender"].isin(genders) & (rows["speaker"] != "")]
    torn = known[known.groupby("speaker")["gender"].transform("nunique") > 1]
    return [_several_genders(str(speaker), voice) for speaker, voice in torn.groupby("speaker", sort=False)]


def _several_genders(speaker: str, rows: pd.DataFrame) -> str:
    places = rows["where"].str.rpartition(", ")
    by_gender = sorted(places[2].groupby(rows["gender"]), key=lambda group: len(group[1]))
    found = "; ".join(f"{gender}: {', '.join(capped(numbers.tolist()))}" for gender, numbers in by_gender)
    if set(rows["gender"]) >= set(GENDERS):
        remedy = "Correct the rows that are wrong; if they are two voices, give each a name of its own."
    else:
        remedy = "Fill the gender of every row of this voice."
    return f"{places[0].iloc[0]}: speaker {speaker!r} has rows of several genders ({found}). {remedy}"


def leaks(rows: pd.DataFrame) -> list[str]:
    """Everything of one side that stands on another one too, a line each.

    Args:
        rows: columns split, path, language; ``clip`` (rows of one value are the same clip), ``unit`` (rows of one value
            are parallel, or belong to one dialogue that should stay whole) and ``digest`` (of the sound). An empty cell
            means that nothing is known.
    """
    found = [
        f"the same {rows.loc[group.index[0], 'language']} clip on several sides: {_sides(group, group['path'])}"
        for group in _torn(rows, "clip")
    ]
    told = rows.index.isin([row for group in _torn(rows, "clip") for row in group.index])
    found += [
        f"the same sound on several sides: {_sides(group, group['path'])}" for group in _torn(rows[~told], "digest")
    ]
    found += [
        f"parallel utterances {unit} on different sides: {_sides(group, group['language'])}"
        for unit, group in ((group["unit"].iloc[0], group) for group in _torn(rows, "unit"))
    ]
    return found


def _torn(rows: pd.DataFrame, column: str) -> list[pd.DataFrame]:
    """The groups of one value of a column that stand on several sides."""
    known = rows[rows[column] != ""]
    torn = known[known.groupby(column)["split"].transform("nunique") > 1]
    return [group for _, group in torn.groupby(column, sort=False)]


def _sides(group: pd.DataFrame, what: pd.Series) -> str:
    """``train: a, b; test: c``."""
    return "; ".join(
        f"{side}: {', '.join(sorted(set(what[group['split'] == side])))}"
        for side in SPLITS
        if (group["split"] == side).any()
    )
