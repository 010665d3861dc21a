"""Assign utterances to train, dev and test, and find what leaks between these splits."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pandas as pd

from study.common.errors import capped, refuse
from study.common.groups import GENDERS, Gender
from study.data.corpora.label_maps import SPLITS

HELD_OUT_SHARE = 0.2  # of the utterances in dev, and again in test
MIN_SPEAKERS = 3  # one per split


def most_evaluated_split(splits: pd.Series, keys: pd.Series) -> pd.Series:
    """Return for each row the most evaluated split (test before dev before train) of all rows with the same key."""
    order = splits.map(SPLITS.index).groupby(keys).transform("max")
    return order.map(dict(enumerate(SPLITS)))


def split_by_speaker(rows: pd.DataFrame, corpus: str, seed: int = 0) -> dict[str, str]:
    """Return the split of every speaker: about 60/20/20 of the utterances of each gender.

    The speakers with the fewest clips are held out first. So dev and test have as many speakers as 20 % of the
    utterances allow, and the leads of a series are in train. Speakers of the same languages are split together.

    Args:
        rows: language, gender, speaker and location (``file, row n``) of each utterance.
        corpus: name for messages.
        seed: orders speakers with equally many clips.

    Raises:
        CorpusError: a speaker has two genders, or a gender of a language lacks a speaker in some split.
    """
    refuse(gender_errors(rows, tuple(Gender)))
    speakers = rows.groupby("speaker").agg(
        gender=("gender", "first"),
        clips=("gender", "size"),
        languages=("language", lambda languages: "+".join(sorted(set(languages)))),
    )
    splits: dict[str, str] = {}
    for (languages, gender), group in speakers.groupby(["languages", "gender"]):
        clips = {str(name): int(count) for name, count in group["clips"].items()}
        if len(clips) < MIN_SPEAKERS:
            splits.update(dict.fromkeys(clips, "train"))
            continue
        names = sorted(clips)
        random.Random(f"{seed}/{languages}/{gender}").shuffle(names)
        names.sort(key=lambda name: clips[name])
        held_out, limit = {"dev": 0, "test": 0}, HELD_OUT_SHARE * sum(clips.values())
        for name in names:
            split = min(held_out, key=lambda split: held_out[split])
            if held_out[split] and held_out[split] + clips[name] > limit:
                split = "train"
            else:
                held_out[split] += clips[name]
            splits[name] = split
    groups = rows.assign(split=rows["speaker"].map(splits)).groupby(["language", "gender"])
    refuse(
        [
            f"{corpus}: {group['speaker'].nunique()} {gender} speaker(s) of {language} are too few for train, dev and "
            "test. Add a split column to a manifest, or choose another --split."
            for (language, gender), group in groups
            if gender in GENDERS and group["split"].nunique() < len(SPLITS)
        ]
    )
    return splits


def gender_errors(rows: pd.DataFrame, genders: Sequence[str]) -> list[str]:
    """Return an error for every speaker with rows of several genders, with the rows of each, the rarer gender first.

    Args:
        rows: speaker, gender and location (``file, row n``) of each utterance. Rows without a speaker are ignored.
        genders: the genders that count; others are ignored.
    """
    known = rows[rows["gender"].isin(genders) & (rows["speaker"] != "")]
    conflicting = known[known.groupby("speaker")["gender"].transform("nunique") > 1]
    return [_gender_error(str(speaker), group) for speaker, group in conflicting.groupby("speaker", sort=False)]


def _gender_error(speaker: str, rows: pd.DataFrame) -> str:
    locations = rows["location"].str.rpartition(", ")
    by_gender = sorted(locations[2].groupby(rows["gender"]), key=lambda group: len(group[1]))
    listed = "; ".join(f"{gender}: {', '.join(capped(numbers.tolist()))}" for gender, numbers in by_gender)
    if set(rows["gender"]) >= set(GENDERS):
        remedy = "Correct the wrong rows; if these are two people, give each a name."
    else:
        remedy = "Fill in the gender of every row of this speaker."
    return f"{locations[0].iloc[0]}: speaker {speaker!r} has rows of several genders ({listed}). {remedy}"


def find_leaks(rows: pd.DataFrame) -> list[str]:
    """Return one line for each clip, sound or set of parallel utterances that is in several splits.

    Args:
        rows: columns ``split``, ``path``, ``language``; ``clip_key`` (equal for rows of the same clip);
            ``parallel_key`` (equal for parallel utterances, or for a dialogue that should stay in one split);
            ``digest`` (hash of the sound). An empty cell means unknown.
    """
    same_clip = _in_several_splits(rows, "clip_key")
    leaks = [
        f"the same {group['language'].iloc[0]} clip in several splits: {_by_split(group, 'path')}"
        for group in same_clip
    ]
    reported = rows.index.isin([index for group in same_clip for index in group.index])
    leaks += [
        f"the same sound in several splits: {_by_split(group, 'path')}"
        for group in _in_several_splits(rows[~reported], "digest")
    ]
    leaks += [
        f"parallel utterances {group['parallel_key'].iloc[0]} in several splits: {_by_split(group, 'language')}"
        for group in _in_several_splits(rows, "parallel_key")
    ]
    return leaks


def _in_several_splits(rows: pd.DataFrame, key: str) -> list[pd.DataFrame]:
    """Return the rows of each value of the column ``key`` that occurs in several splits."""
    known = rows[rows[key] != ""]
    leaking = known[known.groupby(key)["split"].transform("nunique") > 1]
    return [group for _, group in leaking.groupby(key, sort=False)]


def _by_split(group: pd.DataFrame, column: str) -> str:
    """Return the values of a column by split, as ``train: a, b; test: c``."""
    return "; ".join(
        f"{split}: {', '.join(sorted(set(group.loc[group['split'] == split, column])))}"
        for split in SPLITS
        if (group["split"] == split).any()
    )
