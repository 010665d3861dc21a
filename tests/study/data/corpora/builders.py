"""Small corpora written by hand, for the tests of the readers."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import numpy as np
import soundfile

from study.config.settings import CorpusSettings
from study.data.corpora.corpus import Corpus, Listing, build_corpus, inspect_clips

CSV_OF = {"train": "train", "dev": "valid", "test": "test"}
PAIR_OF = {"ENG_DEU": ("deu", "German", "DEU"), "ENG_JPN": ("jpn", "Japanese", "JPN")}


def built(listing: Listing, **settings: object) -> Corpus:
    """The corpus of a listing."""
    return build_corpus(listing, CorpusSettings(**settings), inspect_clips(listing.rows[listing.rows["kept"]]))


def write_wav(path: Path, samples: int = 1600, rate: int = 16_000, sound: str = "", level: float = 0.1) -> None:
    """A mono clip of noise at that RMS; ``sound``, or else its path, decides which noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32((sound or str(path)).encode())).normal(0, level, samples)
    soundfile.write(path, noise, rate, subtype="PCM_16")


def write_csv(path: Path, rows: list[dict]) -> None:
    """Rows of equal keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def row(dialogue: int, number: int, text: str = "", **changes: object) -> dict:
    """An utterance of MELD-ST without the columns of the translation and the id."""
    return {
        "dia_id": dialogue, "utt_id": number, "emotion": "joy", "sentiment": "positive",
        "English": text or f"Line {dialogue} {number}.", "season": 2, "episode": 7, "speaker": "Rachel", **changes,
    }  # fmt: skip


def write_pair(root: Path, pair: str, splits: dict[str, list[dict]], wavs: bool = True) -> None:
    """One pair of MELD-ST; clips are numbered inside their split, clip n has 1600 + n samples."""
    prefix, column, folder = PAIR_OF[pair]
    for split, rows in splits.items():
        full = [{"id": i, **r, column: r.get(column, f"{column} of {r['English']}")} for i, r in enumerate(rows)]
        write_csv(root / pair / f"{prefix}_{CSV_OF[split]}.csv", full)
        for i in range(len(rows)) if wavs else ():
            for side, text in (("ENG", full[i]["English"]), (folder, full[i][column])):
                write_wav(root / pair / side / split / f"{split}_{i}.wav", 1600 + i, sound=text)
