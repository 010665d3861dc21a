"""Read MELD-ST (arXiv 2405.13233), and the synthetic corpus, which has the same layout.

Each of the two pairs contains English and one other language: ``ENG_DEU/{ENG,DEU}/{train,dev,test}/{split}_{id}.wav``
with ``ENG_DEU/deu_{train,valid,test}.csv``, and ``ENG_JPN`` likewise. The reader handles two pitfalls: an English clip
may be in both pairs, and the pairs may assign parallel utterances to different splits.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from study.common.errors import CorpusError, refuse
from study.data.corpora.corpus import Listing
from study.data.corpora.label_maps import SPLITS, translate_column
from study.data.corpora.speaker_gender import GENDER_FILE, normalised_name, read_genders, resolve_gender, split_voices
from study.data.corpora.splits import most_evaluated_split, split_by_speaker
from study.data.corpora.table_io import read_table


class Pair(NamedTuple):
    """A language pair: its folder, the prefix of its CSV files, and its second language as column, folder and code."""

    folder: str
    csv_prefix: str
    column: str
    language_folder: str
    language: str

    def csv(self, split: str) -> str:
        """Return the path of a CSV file inside the corpus; it says "valid" where clips say "dev"."""
        return f"{self.folder}/{self.csv_prefix}_{'valid' if split == 'dev' else split}.csv"


PAIRS = (Pair("ENG_DEU", "deu", "German", "DEU", "de"), Pair("ENG_JPN", "jpn", "Japanese", "JPN", "ja"))
_NUMBERS = ("id", "dia_id", "utt_id", "season", "episode")
_COLUMNS = (*_NUMBERS, "emotion", "English", "speaker")


def list_meld_st(root: Path, split: str = "parallel", name: str = "meld-st", notes: tuple[str, ...] = ()) -> Listing:
    """List a MELD-ST folder that contains one pair or both.

    English utterances of both pairs are deduplicated by dialogue, utterance number and text.

    Args:
        root: the folder with ``ENG_DEU`` and/or ``ENG_JPN``, and optionally ``genders.csv`` (speaker, gender).
        split: ``parallel`` corrects the authors' split: what is in several splits goes to the most evaluated one (test,
            then dev, then train) in all languages. A dialogue moves as a whole if each pair keeps it whole, else its
            utterances move. ``official`` is the authors' split unchanged; an English clip in two splits stays in both.
            ``speaker`` puts every speaker into one split, and leaves out lines of several voices of different splits.
            ``none`` puts everything into test, for evaluation only.
        name: of the corpus in records.
        notes: sentences before the reader's own.

    Raises:
        CorpusError: a CSV file is absent, or rows are faulty; all of them are named.
    """
    root = Path(os.path.abspath(root))
    rows = _with_genders(_all_rows(root), root)
    rows["split"] = _assign_splits(rows, split, str(root))
    all_notes = list(notes)
    num_moved = int((rows["split"] != rows["official_split"]).sum())
    if split == "speaker":
        all_notes.append("The speakers were divided into train, dev and test; the authors' split was not used.")
        if num_mixed := int((rows["split"] == "").sum()):
            all_notes.append(f"{num_mixed} rows in which speakers of several splits speak together were left out.")
        rows = rows[rows["split"] != ""].reset_index(drop=True)
    elif num_moved and split == "parallel":
        all_notes.append(
            f"{num_moved} of {len(rows)} rows were moved so that parallel utterances are in the same split."
        )
    rows["is_used"] = _is_first_of_clip(rows)
    if num_repeated := int(rows.duplicated(["clip_key", "pair", "split"]).sum()):
        all_notes.append(f"{num_repeated} rows that repeat another row of the same language were left out.")
    rows["utterance_id"] = _utterance_ids(rows)
    from_name = rows["is_used"] & rows["gender_source"].isin(["table", "rule"])
    if from_name.any():
        all_notes.append(
            f"The genders of {rows.loc[from_name, 'speaker'].nunique()} characters ({from_name.sum()} of "
            f"{rows['is_used'].sum()} utterances) were derived from their names; python -m study.data.corpora check "
            f"lists them, and a {GENDER_FILE} overrides them."
        )
    return Listing(name, str(root), rows, tuple(all_notes))


def _all_rows(root: Path) -> pd.DataFrame:
    """Return one row for each clip of either language of either pair."""
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder. Give the folder that contains ENG_DEU and ENG_JPN.")
    pairs = [pair for pair in PAIRS if (root / pair.folder).is_dir()]
    if not pairs:
        raise CorpusError(f"{root} contains neither ENG_DEU nor ENG_JPN. Give the folder that contains them.")
    errors: list[str] = []
    frames = [frame for pair in pairs for split in SPLITS for frame in _rows_of_csv(root, pair, split, errors)]
    refuse(errors)
    return pd.concat(frames, ignore_index=True)


def _rows_of_csv(root: Path, pair: Pair, split: str, errors: list[str]) -> list[pd.DataFrame]:
    """Return the English rows and the other rows of one CSV file; append what is wrong with them to ``errors``."""
    table = read_table(
        str(root / pair.csv(split)),
        (*_COLUMNS, pair.column),
        "Copy it from the MELD-ST release; every pair has three CSV files.",
    )
    # Many tools write a column of integers with an empty cell as 0.0, 1.0, ...
    numbers = {name: table[name].str.removesuffix(".0") for name in _NUMBERS}
    for name, values in numbers.items():
        errors += [
            f"{location}: {name} {value!r} is not a number. Correct the row or remove it."
            for location, value in values[~values.str.fullmatch(r"\d+")].items()
        ]
    ids = numbers["id"]
    errors += [
        f"{location}: id {value!r} occurs twice. Give every row a clip of its own."
        for location, value in ids[ids.duplicated()].items()
    ]
    emotions, emotion_errors = translate_column(table, "emotion")
    errors += emotion_errors
    dialogue = "s" + numbers["season"] + "e" + numbers["episode"] + "_d" + numbers["dia_id"]
    utterance = dialogue + "_u" + numbers["utt_id"]
    shared = pd.DataFrame(
        {
            "location": table.index,
            "pair": pair.folder,
            "dialogue": dialogue,
            "utterance": utterance,
            # MELD numbers the dialogues of train, dev and test each from 0, so a number may mean two dialogues.
            "parallel_key": utterance + " (" + table["speaker"].map(normalised_name) + ")",
            "english": _single_spaced(table["English"]),
            "emotion": emotions,
            "speaker": table["speaker"],
            "official_split": split,
        },
        index=table.index,
    )
    frames = []
    for folder, language, column in (("ENG", "en", "English"), (pair.language_folder, pair.language, pair.column)):
        paths = [str(root / pair.folder / folder / split / f"{split}_{clip}.wav") for clip in ids]
        rows = shared.assign(language=language, transcript=_single_spaced(table[column]), path=paths)
        # The texts are part of the key, since the pairs may number different utterances alike.
        key = rows[["language", "parallel_key", "english", "transcript"]].agg("\n".join, axis=1)
        frames.append(rows.assign(clip_key=key))
    return frames


def _single_spaced(texts: pd.Series) -> pd.Series:
    """Normalise blanks: the pairs differ in them where they have the same sentence."""
    return texts.str.split().str.join(" ")


def _with_genders(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    own_genders = read_genders(str(root))
    resolved = {speaker: resolve_gender(speaker, own_genders) for speaker in rows["speaker"].unique()}
    return rows.assign(
        gender=[resolved[speaker].gender for speaker in rows["speaker"]],
        gender_source=[resolved[speaker].source for speaker in rows["speaker"]],
    )


def _assign_splits(rows: pd.DataFrame, split: str, corpus: str) -> pd.Series:
    """Return the split of every row; empty if speakers of several splits speak together."""
    if split == "official":
        return rows["official_split"]
    if split == "none":
        return pd.Series("test", index=rows.index)
    if split == "speaker":
        return _split_by_voice(rows, corpus)
    # Moving whole dialogues that the authors' split already divides would leave almost nothing in train.
    is_whole = rows.groupby(["pair", "dialogue"])["official_split"].transform("nunique") == 1
    is_whole = is_whole.groupby(rows["dialogue"]).transform("all")
    return most_evaluated_split(rows["official_split"], rows["dialogue"].where(is_whole, rows["parallel_key"]))


def _split_by_voice(rows: pd.DataFrame, corpus: str) -> pd.Series:
    """Split by speaker; a line of several known voices goes to the split of all of them, if that is one."""
    voices = {
        name: [normalised_name(role) for voice in split_voices(name) for role in voice.split("/")]
        for name in rows["speaker"].unique()
    }
    single = rows[rows["speaker"].map(lambda name: len(voices[name]) <= 1)]
    split_of_voice = split_by_speaker(single.assign(speaker=single["speaker"].map(normalised_name)), corpus)
    split_of_name = {}
    for name, parts in voices.items():
        splits = {split_of_voice[part] for part in parts if part in split_of_voice}
        split_of_name[name] = splits.pop() if len(splits) == 1 else "" if splits else "train"
    return rows["speaker"].map(split_of_name)


def _is_first_of_clip(rows: pd.DataFrame) -> pd.Series:
    """Return whether a row is the first of its clip in its split; rows with a file on disk come first."""
    is_absent = pd.Series([not os.path.isfile(path) for path in rows["path"]], index=rows.index)
    ordered = rows.loc[is_absent.sort_values(kind="stable").index]
    return ~ordered.duplicated(["clip_key", "split"]).reindex(rows.index)


def _utterance_ids(rows: pd.DataFrame) -> pd.Series:
    """Return ``en_s1e2_d12_u3``, with a hash of the text if several texts share it, and the split if several do."""
    used = rows[rows["is_used"]]
    ids = used["language"] + "_" + used["utterance"]
    is_shared = used.groupby(ids)["clip_key"].transform("nunique") > 1
    hashes = used["clip_key"].map(lambda key: hashlib.sha256(key.encode()).hexdigest()[:6])
    ids = ids.where(~is_shared, ids + "_" + hashes)
    ids = ids.where(~ids.duplicated(keep=False), ids + "_" + used["split"])
    return ids.reindex(rows.index, fill_value="")
