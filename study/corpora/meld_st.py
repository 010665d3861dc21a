"""The reader of MELD-ST (arXiv 2405.13233), and of the embedded corpus, which has the same layout.

Each of the two pairs holds English and one other language: ``ENG_DEU/{ENG,DEU}/{train,dev,test}/{split}_{id}.wav``
with ``ENG_DEU/deu_{train,valid,test}.csv``, and likewise ``ENG_JPN``. Two traps are dealt with here: an English clip
may stand in both pairs, and the pairs may put the same dialogue on different sides of the split.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pandas as pd

from study.corpora.corpus import SPLITS, Corpus, build_corpus, check_emotion, line, read_table, unknown_gender_note
from study.corpora.errors import CorpusError
from study.corpora.genders import gender_of, read_genders

MISSING_TOLERATED = 0.05  # share of the utterances; some wavs of the real corpus are absent

# pair folder, CSV prefix, column of its second language, folder and code of that language
PAIRS = (("ENG_DEU", "deu", "German", "DEU", "de"), ("ENG_JPN", "jpn", "Japanese", "JPN", "ja"))
# the CSV says "valid" where folder and file prefix say "dev"
CSV_SPLIT = {"train": "train", "dev": "valid", "test": "test"}
_COMMON = ("id", "dia_id", "utt_id", "emotion", "English", "season", "episode", "speaker")
_KEY = ["dialogue", "utt_id", "english"]


def read_meld_st(root: Path, name: str = "meld-st", notes: tuple[str, ...] = ()) -> Corpus:
    """Read a MELD-ST folder that holds one pair or both.

    English utterances are deduplicated over the pairs by dialogue, utterance number and text. A dialogue that stands
    on several sides of the official splits goes to the most evaluated one (test, then dev, then train) as a whole, in
    all languages.

    Args:
        root: the folder with ``ENG_DEU`` and/or ``ENG_JPN``, and perhaps ``genders.csv`` (speaker, gender).
        name: the name of the corpus in records.
        notes: sentences to put before the reader's own.

    Raises:
        CorpusError: a CSV is absent or faulty, or too many clips are.
    """
    root = Path(os.path.abspath(root))
    rows = _one_side(_all_rows(root))
    moved = int((rows["split"] != rows["official"]).sum())
    clips, repeated = _deduplicated(rows)
    present = pd.Series([os.path.isfile(path) for path in clips["path"]], index=clips.index)
    absent = [f"{path}: no such file" for path in clips.loc[~present, "path"]]
    if len(absent) > MISSING_TOLERATED * len(clips):
        raise CorpusError(
            f"{root}: {len(absent)} of {len(clips)} clips are missing, more than {MISSING_TOLERATED:.0%}; the first is "
            f"{absent[0]}. Check that the archive was unpacked completely."
        )
    clips = clips[present]
    overrides = read_genders(str(root))
    genders = {speaker: gender_of(speaker, overrides) for speaker in clips["speaker"].unique()}
    clips = clips.assign(gender=clips["speaker"].map(genders), utterance_id=_ids(clips))
    found = list(notes)
    if moved:
        found.append(
            f"{moved} of {len(rows)} rows were moved so that a dialogue is on one side of the split in all languages."
        )
    if repeated:
        found.append(f"{repeated} rows that repeat another row of the same language were left out.")
    if absent:
        found.append(f"{len(absent)} of {len(present)} utterances have no clip on disk and were skipped.")
    return build_corpus(name, str(root), clips, (*found, *unknown_gender_note(clips)), absent)


def _all_rows(root: Path) -> pd.DataFrame:
    """One row an official clip of either language of either pair."""
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder. Give the folder that holds ENG_DEU and ENG_JPN.")
    pairs = [pair for pair in PAIRS if (root / pair[0]).is_dir()]
    if not pairs:
        raise CorpusError(f"{root} holds neither ENG_DEU nor ENG_JPN. Give the folder that holds them.")
    frames = [frame for pair in pairs for split in SPLITS for frame in _rows_of(root, pair, split)]
    return pd.concat(frames, ignore_index=True)


def _rows_of(root: Path, pair: tuple[str, str, str, str, str], split: str) -> list[pd.DataFrame]:
    """The English and the other rows of one CSV."""
    folder, prefix, column, other_folder, other_language = pair
    csv = str(root / folder / f"{prefix}_{CSV_SPLIT[split]}.csv")
    table = read_table(csv, (*_COMMON, column), "Copy it from the MELD-ST release; every pair has three CSV files.")
    if table["id"].duplicated().any():
        row = int(table["id"].duplicated().to_numpy().argmax())
        raise CorpusError(f"{line(csv, row)}: id {table['id'][row]!r} occurs twice. Every row names a clip of its own.")
    emotions = [check_emotion(emotion, line(csv, row)) for row, emotion in enumerate(table["emotion"])]
    number = {key: table[key].str.removesuffix(".0") for key in ("dia_id", "utt_id", "season", "episode")}
    shared = pd.DataFrame(
        {
            "pair": folder,
            "dialogue": "s" + number["season"] + "e" + number["episode"] + "_d" + number["dia_id"],
            "utt_id": number["utt_id"],
            "english": _one_spaced(table["English"]),
            "emotion": emotions,
            "speaker": table["speaker"],
            "official": split,
        }
    )
    return [
        shared.assign(
            language=language,
            transcript=_one_spaced(table[text]),
            path=[str(root / folder / side / split / f"{split}_{clip}.wav") for clip in table["id"]],
        )
        for side, language, text in (("ENG", "en", "English"), (other_folder, other_language, column))
    ]


def _one_spaced(texts: pd.Series) -> pd.Series:
    """The pairs differ in blanks where they hold the same English sentence."""
    return texts.str.split().str.join(" ")


def _one_side(rows: pd.DataFrame) -> pd.DataFrame:
    """Every dialogue on its most evaluated side, in all languages."""
    side = rows["official"].map(SPLITS.index).groupby(rows["dialogue"]).transform("max")
    return rows.assign(split=side.map(dict(enumerate(SPLITS))))


def _deduplicated(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """One row an utterance and language, and how many rows repeated another one beyond English being in both pairs.

    Where an English utterance has two clips, one that is on disk is kept.
    """
    ordered = rows.assign(absent=[not os.path.isfile(path) for path in rows["path"]])
    ordered = ordered.sort_values("absent", kind="stable")
    key = [*_KEY, "language", "transcript"]
    kept = ordered.drop_duplicates(key).sort_index()
    return kept, int(rows.duplicated([*key, "pair"]).sum())


def _ids(clips: pd.DataFrame) -> pd.Series:
    """``en_s1e2_d12_u3``; where several texts share that, a hash of the text tells them apart."""
    ids = clips["language"] + "_" + clips["dialogue"] + "_u" + clips["utt_id"]
    shared = ids.duplicated(keep=False)
    texts = clips["english"] + "\n" + clips["transcript"]
    return ids.where(~shared, ids + "_" + texts.map(lambda text: hashlib.sha256(text.encode()).hexdigest()[:6]))
