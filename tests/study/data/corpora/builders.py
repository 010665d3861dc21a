"""Write small corpora for the tests of the readers."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from study.config.settings import CorpusSettings
from study.data.corpora.corpus import Corpus, Listing, build_corpus, inspect_clips
from study.data.corpora.meld_st import PAIRS


def build(listing: Listing, **settings: Any) -> Corpus:
    """Return the corpus of a listing, with all its clips decoded."""
    return build_corpus(listing, CorpusSettings(**settings), inspect_clips(listing.rows[listing.rows["is_used"]]))


def write_wav(path: Path, samples: int = 1600, rate: int = 16_000, sound: str = "", level: float = 0.1) -> None:
    """Write a mono clip of noise with RMS ``level``; ``sound``, or else its path, seeds the noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32((sound or str(path)).encode())).normal(0, level, samples)
    soundfile.write(path, noise, rate, subtype="PCM_16")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of equal keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def meld_row(dialogue: int, number: int, text: str = "", **changes: object) -> dict[str, Any]:
    """Return an utterance of MELD-ST without the columns of the translation and the id."""
    return {
        "dia_id": dialogue, "utt_id": number, "emotion": "joy", "sentiment": "positive",
        "English": text or f"Line {dialogue} {number}.", "season": 2, "episode": 7, "speaker": "Rachel", **changes,
    }  # fmt: skip


def write_pair(root: Path, folder: str, splits: dict[str, list[dict[str, Any]]]) -> None:
    """Write one pair of MELD-ST. Clips are numbered within their split; clip n has 1600 + n samples."""
    (pair,) = (pair for pair in PAIRS if pair.folder == folder)
    for split, rows in splits.items():
        full = [
            {"id": i, **r, pair.column: r.get(pair.column, f"{pair.column} of {r['English']}")}
            for i, r in enumerate(rows)
        ]
        write_csv(root / pair.csv(split), full)
        for i, utterance in enumerate(full):
            for language_folder, column in (("ENG", "English"), (pair.language_folder, pair.column)):
                path = root / folder / language_folder / split / f"{split}_{i}.wav"
                write_wav(path, 1600 + i, sound=utterance[column])
