"""The reader of MELD-ST (arXiv 2405.13233), and of the synthetic corpus, which has the same layout.

Each of the two pairs holds English and one other language: ``ENG_DEU/{ENG,DEU}/{train,dev,test}/{split}_{id}.wav``
with ``ENG_DEU/deu_{train,valid,test}.csv``, and likewise ``ENG_JPN``. Two traps are dealt with here: an English clip
may stand in both pairs, and the pairs may put parallel utterances on different sides of the split.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pandas as pd

from study.common.errors import CorpusError, refuse
from study.data.corpora.corpus import Listing
from study.data.corpora.label_maps import SPLITS, translated
from study.data.corpora.speaker_gender import GENDER_FILE, key, read_genders, resolve, voices
from study.data.corpora.splits import by_speaker, most_evaluated
from study.data.corpora.table_io import read_table

# pair folder, CSV prefix, column of its second language, folder and code of that language
PAIRS = (("ENG_DEU", "deu", "German", "DEU", "de"), ("ENG_JPN", "jpn", "Japanese", "JPN", "ja"))
# the CSV says "valid" where folder and file prefix say "dev"
CSV_SPLIT = {"train": "train", "dev": "valid", "test": "test"}
_NUMBERS = ("id", "dia_id", "utt_id", "season", "episode")
_COMMON = (*_NUMBERS, "emotion", "English", "speaker")


def list_meld_st(root: Path, split: str = "parallel", name: str = "meld-st", notes: tuple[str, ...] = ()) -> Listing:
    """List a MELD-ST folder that holds one pair or both.

    English utterances are deduplicated over the pairs by dialogue, utterance number and text. ``split`` says who
    goes where:

    - ``parallel``: the authors' split, mended: what stands on several sides goes to the most evaluated one (test, then
      dev, then train) in all languages: as a whole dialogue where each pair keeps it whole, else by utterance.
    - ``official``: the authors' split as it is; an English clip on two sides then stays on both.
    - ``speaker``: every voice on one side; lines of several voices that are on different sides are left out.
    - ``none``: everything in test, for scoring.

    Args:
        root: the folder with ``ENG_DEU`` and/or ``ENG_JPN``, and perhaps ``genders.csv`` (speaker, gender).
        name: the name of the corpus in records.
        notes: sentences to put before the reader's own.

    Raises:
        CorpusError: a CSV is absent, or rows are faulty; all of them are named.
    """
    root = Path(os.path.abspath(root))
    rows = _with_genders(_all_rows(root), root)
    rows["split"] = _divided(rows, split, str(root))
    found = list(notes)
    moved = int((rows["split"] != rows["official"]).sum())
    if split == "speaker":
        found.append("The speakers were divided into train, dev and test; the authors' split was not used.")
        mixed = int((rows["split"] == "").sum())
        if mixed:
            found.append(f"{mixed} rows in which voices of several sides speak together were left out.")
        rows = rows[rows["split"] != ""].reset_index(drop=True)
    elif moved and split == "parallel":
        found.append(
            f"{moved} of {len(rows)} rows were moved so that parallel utterances are on one side of the split."
        )
    rows["kept"] = _first_of_each(rows)
    twice = rows.duplicated(["clip", "pair", "split"])
    if twice.any():
        found.append(f"{twice.sum()} rows that repeat another row of the same language were left out.")
    rows["utterance_id"] = _ids(rows)
    guessed = rows["kept"] & rows["resolved"].isin(["table", "rule"])
    if guessed.any():
        found.append(
            f"The genders of {rows.loc[guessed, 'speaker'].nunique()} characters ({guessed.sum()} of "
            f"{rows['kept'].sum()} utterances) come from their names; python -m study.data.corpora check lists them, "
            f"and a "
            f"{GENDER_FILE} overrides them."
        )
    return Listing(name, str(root), rows, tuple(found))


def _all_rows(root: Path) -> pd.DataFrame:
    """One row an official clip of either language of either pair."""
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder. Give the folder that holds ENG_DEU and ENG_JPN.")
    pairs = [pair for pair in PAIRS if (root / pair[0]).is_dir()]
    if not pairs:
        raise CorpusError(f"{root} holds neither ENG_DEU nor ENG_JPN. Give the folder that holds them.")
    errors: list[str] = []
    frames = [frame for pair in pairs for split in SPLITS for frame in _rows_of(root, pair, split, errors)]
    refuse(errors)
    return pd.concat(frames, ignore_index=True)


def _rows_of(root: Path, pair: tuple[str, str, str, str, str], split: str, errors: list[str]) -> list[pd.DataFrame]:
    """The English and the other rows of one CSV; what is wrong with them is added to ``faults``."""
    folder, prefix, column, other_folder, other_language = pair
    csv = str(root / folder / f"{prefix}_{CSV_SPLIT[split]}.csv")
    table = read_table(csv, (*_COMMON, column), "Copy it from the MELD-ST release; every pair has three CSV files.")
    # a column with an empty cell anywhere is written as 0.0, 1.0, ... by many tools
    number = {name: table[name].str.removesuffix(".0") for name in _NUMBERS}
    for name, values in number.items():
        errors += [
            f"{where}: {name} {value!r} is no number. Correct the row or remove it."
            for where, value in values[~values.str.fullmatch(r"\d+")].items()
        ]
    clips = number["id"]
    errors += [
        f"{where}: id {value!r} occurs twice. Every row names a clip of its own."
        for where, value in clips[clips.duplicated()].items()
    ]
    emotions, more = translated(table, "emotion")
    errors += more
    dialogue = "s" + number["season"] + "e" + number["episode"] + "_d" + number["dia_id"]
    utterance = dialogue + "_u" + number["utt_id"]
    shared = pd.DataFrame(
        {
            "where": table.index,
            "pair": folder,
            "dialogue": dialogue,
            "utterance": utterance,
            # MELD numbers the dialogues of train, dev and test each from 0: a number may name two dialogues
            "unit": utterance + " (" + table["speaker"].map(key) + ")",
            "english": _one_spaced(table["English"]),
            "emotion": emotions,
            "speaker": table["speaker"],
            "official": split,
        },
        index=table.index,
    )
    frames = []
    for side, language, text in (("ENG", "en", "English"), (other_folder, other_language, column)):
        paths = [str(root / folder / side / split / f"{split}_{clip}.wav") for clip in clips]
        rows = shared.assign(language=language, transcript=_one_spaced(table[text]), path=paths)
        # the pairs differ in blanks where they hold the same English sentence, so the text is part of what a clip is
        frames.append(rows.assign(clip=rows[["language", "unit", "english", "transcript"]].agg("\n".join, axis=1)))
    return frames


def _one_spaced(texts: pd.Series) -> pd.Series:
    return texts.str.split().str.join(" ")


def _with_genders(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    own = read_genders(str(root))
    resolved = {speaker: resolve(speaker, own) for speaker in rows["speaker"].unique()}
    return rows.assign(
        gender=[resolved[speaker].gender for speaker in rows["speaker"]],
        resolved=[resolved[speaker].by for speaker in rows["speaker"]],
    )


def _divided(rows: pd.DataFrame, split: str, where: str) -> pd.Series:
    """The side of every row; empty where voices of several sides speak together."""
    if split == "official":
        return rows["official"]
    if split == "none":
        return pd.Series("test", index=rows.index)
    if split == "speaker":
        return _by_voice(rows, where)
    # Moving whole dialogues of a split that tears them anyway would leave next to nothing in train.
    whole = rows.groupby(["pair", "dialogue"])["official"].transform("nunique") == 1
    whole = whole.groupby(rows["dialogue"]).transform("all")
    return most_evaluated(rows["official"], rows["dialogue"].where(whole, rows["unit"]))


def _by_voice(rows: pd.DataFrame, where: str) -> pd.Series:
    """The division by speaker, in which a line of several known voices goes where all of them are."""
    parts = {
        name: [key(role) for voice in voices(name) for role in voice.split("/")] for name in rows["speaker"].unique()
    }
    alone = rows[rows["speaker"].map(lambda name: len(parts[name]) <= 1)]
    sides = by_speaker(alone.assign(speaker=alone["speaker"].map(key)), where)
    found = {}
    for name, voiced in parts.items():
        known = {sides[part] for part in voiced if part in sides}
        found[name] = known.pop() if len(known) == 1 else "" if known else "train"
    return rows["speaker"].map(found)


def _first_of_each(rows: pd.DataFrame) -> pd.Series:
    """Whether a row is the first of its clip on its side; one that is on disk comes before one that is not."""
    absent = pd.Series([not os.path.isfile(path) for path in rows["path"]], index=rows.index)
    ordered = rows.loc[absent.sort_values(kind="stable").index]
    return ~ordered.duplicated(["clip", "split"]).reindex(rows.index)


def _ids(rows: pd.DataFrame) -> pd.Series:
    """``en_s1e2_d12_u3``; a hash of the text where several texts share that, and the side where several sides do."""
    kept = rows[rows["kept"]]
    ids = kept["language"] + "_" + kept["utterance"]
    texts = kept.groupby(ids)["clip"].transform("nunique") > 1
    hashes = kept["clip"].map(lambda clip: hashlib.sha256(clip.encode()).hexdigest()[:6])
    ids = ids.where(~texts, ids + "_" + hashes)
    ids = ids.where(~ids.duplicated(keep=False), ids + "_" + kept["split"])
    return ids.reindex(rows.index, fill_value="")
