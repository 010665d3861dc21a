"""Log-mel features on the true length of each clip, computed once a corpus and memory-mapped (Arrow, through datasets).

The stock processor pads every clip to 30 s. The encoder on the true length is exact if the mel is taken from audio
padded with zeros by at least one window and cut two frames behind the clip: the two convolutions look that far.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, disable_progress_bars, load_from_disk
from filelock import FileLock
from transformers import WhisperFeatureExtractor

from study.corpora import read_audio

WINDOW = 400  # samples of one analysis window at 16 kHz
MIN_SAMPLES = 640  # 40 ms, the shortest clip that the tower makes a token of; shorter ones get silence behind them
MAX_FRAMES = 3000  # 30 s, the tower's limit; longer clips are cut there


def true_length(samples: int, hop_length: int = 160) -> int:
    """L: mel frames that the stock attention mask calls valid for a clip of that many samples at 16 kHz."""
    return min(-(-samples // hop_length), MAX_FRAMES)


def stored_length(frames: int) -> int:
    """Frames to keep for a clip of L: L + 2 rounded up to even, as far as the last valid position looks."""
    return min(frames + 2 + frames % 2, MAX_FRAMES)


def tower_positions(frames: int) -> int:
    """Positions of the tower before pooling for L mel frames."""
    return (frames - 1) // 2 + 1


def audio_tokens(frames: int) -> int:
    """Audio embeddings the language model gets for L mel frames; 0 for a clip too short to give one."""
    return (tower_positions(frames) - 2) // 2 + 1


def log_mel(waveform: np.ndarray, extractor: WhisperFeatureExtractor) -> tuple[np.ndarray, int]:
    """The log-mel of one clip.

    Args:
        waveform: (samples,) float32 at 16 kHz.

    Returns:
        (stored_length(L), mel bins) float32, and L.
    """
    hop = extractor.hop_length
    waveform = waveform[: MAX_FRAMES * hop]
    waveform = np.pad(waveform, (0, max(0, MIN_SAMPLES - len(waveform))))
    frames = true_length(len(waveform), hop)
    keep = stored_length(frames)
    length = min(keep * hop + WINDOW, MAX_FRAMES * hop)  # a clip of 30 s is mirrored at its end, as stock does
    padded = np.pad(waveform, (0, length - len(waveform)))
    mel = extractor(padded, sampling_rate=extractor.sampling_rate, padding=False, truncation=False, return_tensors="np")
    return np.ascontiguousarray(mel["input_features"][0].T[:keep], dtype=np.float32), frames


def mels_of(clips: Sequence[Mapping[str, Any]], mel_bins: int) -> torch.Tensor:
    """Rows of ``load`` as one batch (B, F, mel bins) float32, zeros behind the shorter ones."""
    mels = [np.asarray(clip["log_mel"], dtype=np.float32).reshape(-1, mel_bins) for clip in clips]
    batch = np.zeros((len(mels), max(map(len, mels)), mel_bins), dtype=np.float32)
    for i, mel in enumerate(mels):
        batch[i, : len(mel)] = mel
    return torch.from_numpy(batch)


def build(
    utterances: pd.DataFrame, content_hash: str, extractor: WhisperFeatureExtractor, cache: Path, loudness: str
) -> Path:
    """Features of a whole corpus, computed once and kept under ``cache``.

    Args:
        utterances: the table of ``study.corpora.Corpus``.
        content_hash: the corpus's; with the extractor's settings and the loudness it names the folder.
        loudness: of ``study.settings.CorpusSettings``.

    Returns:
        The folder; ``load`` reads it. Written aside and renamed, under a lock: concurrent callers build it once.
    """
    recipe = json.dumps(extractor.to_dict(), sort_keys=True, default=str)
    key = hashlib.sha256(f"{content_hash} {recipe} {loudness}".encode()).hexdigest()[:12]
    target = cache / "features" / key
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists():
            return target
        for leftover in target.parent.glob(f"{key}.*.tmp"):  # of a builder that was killed: we hold the lock
            shutil.rmtree(leftover)
        aside = target.with_name(f"{key}.{os.getpid()}.tmp")
        aside.mkdir()
        disable_progress_bars()
        try:
            table = Dataset.from_pandas(utterances, preserve_index=False)
            table = table.map(
                _batch_features,
                batched=True,
                batch_size=64,
                fn_kwargs={"extractor": extractor, "loudness": loudness},
                cache_file_name=str(aside / "work.arrow"),
                num_proc=min(os.cpu_count() or 1, 8) if len(table) > 2000 else None,
                load_from_cache_file=False,
            )
            table.save_to_disk(str(aside / "table"))
            os.replace(aside / "table", target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _batch_features(rows: dict[str, list], extractor: WhisperFeatureExtractor, loudness: str) -> dict[str, list]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processes share the cores already; more threads made this eight times slower
    try:
        clips = [log_mel(read_audio(path, loudness), extractor) for path in rows["path"]]
    finally:
        torch.set_num_threads(threads)
    return {"frames": [frames for _, frames in clips], "log_mel": [mel.reshape(-1) for mel, _ in clips]}


def load(folder: Path) -> Dataset:
    """The corpus with its features, memory-mapped: ``log_mel`` comes back flat, reshape it to (-1, mel bins)."""
    return load_from_disk(str(folder))
