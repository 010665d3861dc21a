"""Log-mel features on the true length of each clip, computed once a corpus and memory-mapped (Arrow, through datasets).

The stock processor pads every clip to 30 s. The encoder on the true length is exact if the mel is taken from audio
padded with zeros by at least one window and cut two frames behind the clip: the two convolutions look that far.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from datasets import Dataset, concatenate_datasets
from transformers import WhisperFeatureExtractor

from study.common.sharded_build import ShardedBuild
from study.data.corpora import read_audio

WINDOW = 400  # samples of one analysis window at 16 kHz
MIN_SAMPLES = 640  # 40 ms, the shortest clip that the tower makes a token of; shorter ones get silence behind them
MAX_FRAMES = 3000  # 30 s, the tower's limit; longer clips are cut there
PART = 256  # clips of a file
PARTS_WORTH_HELP = 8  # fewer take a second or two


Frames = TypeVar("Frames", int, torch.Tensor)
"""The mel frames of one clip, or of several."""


def true_length(samples: int, hop_length: int = 160) -> int:
    """L: mel frames that the stock attention mask calls valid for a clip of that many samples at 16 kHz."""
    return min(-(-samples // hop_length), MAX_FRAMES)


def stored_length(frames: int) -> int:
    """Frames to keep for a clip of L: L + 2 rounded up to even, as far as the last valid position looks."""
    return min(frames + 2 + frames % 2, MAX_FRAMES)


def encoder_positions(frames: Frames) -> Frames:
    """Positions of the tower before pooling for L mel frames."""
    return (frames - 1) // 2 + 1


def audio_tokens(frames: Frames) -> Frames:
    """Audio embeddings the language model gets for L mel frames; 0 for a clip too short to give one."""
    return (encoder_positions(frames) - 2) // 2 + 1


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

    All processes that call this at once share the work, and so do forked ones, as many as the machine has cores.

    Args:
        utterances: the table of ``study.data.corpora.Corpus``.
        content_hash: the corpus's; with the extractor's settings and the loudness it names the folder.
        loudness: of ``study.config.settings.CorpusSettings``.

    Returns:
        The folder; ``load`` reads it. Its parts (``study.common.sharded_build``) are Arrow files of ``PART`` clips
        each.
    """
    recipe = json.dumps(extractor.to_dict(), sort_keys=True, default=str)
    key = hashlib.sha256(f"parts of {PART} {content_hash} {recipe} {loudness}".encode()).hexdigest()[:12]
    count = -(-len(utterances) // PART)
    parts = ShardedBuild(cache / "features" / key, [f"{part:05d}-of-{count:05d}.arrow" for part in range(count)])
    schema = pa.Schema.from_pandas(utterances, preserve_index=False)  # of all rows: a part may lack every transcript

    def write(part: int, path: Path) -> None:
        rows = utterances.iloc[part * PART : (part + 1) * PART]
        frames, mels = _features(rows["path"], extractor, loudness)
        table = pa.Table.from_pandas(rows, schema, preserve_index=False)
        table = table.append_column("frames", pa.array(frames, pa.int64()))
        table = table.append_column("log_mel", pa.array(mels, pa.list_(pa.float32())))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)

    parts.build("features", write, _helpers() if len(parts.missing()) >= PARTS_WORTH_HELP else 0)
    return parts.folder


def _helpers() -> int:
    """Cores of this machine beside one for each process that builds, which are those of torchrun."""
    return max(0, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


def _features(
    paths: Iterable[str], extractor: WhisperFeatureExtractor, loudness: str
) -> tuple[list[int], list[np.ndarray]]:
    """True length L of each clip, and its log-mel, flat."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processes share the cores already; more threads made this eight times slower
    try:
        clips = [log_mel(read_audio(path, loudness), extractor) for path in paths]
    finally:
        torch.set_num_threads(threads)
    return [frames for _, frames in clips], [mel.reshape(-1) for mel, _ in clips]


def load(folder: Path) -> Dataset:
    """The corpus with its features, memory-mapped: ``log_mel`` comes back flat, reshape it to (-1, mel bins).

    Raises:
        ValueError: a part is missing or damaged.
    """
    parts = sorted(folder.glob("*-of-*.arrow"))
    if not parts:
        raise ValueError(
            f"{folder}: no features there on {socket.gethostname()}; on a cluster --cache, or --storage if that is a "
            "folder, has to be one that every machine sees"
        )
    if len(parts) != int(parts[0].stem.partition("-of-")[2]):
        raise ValueError(
            f"{folder}: lacks parts ({len(parts)} there); start a study on that corpus, which computes them"
        )
    return concatenate_datasets([_read(part) for part in parts])


def _read(part: Path) -> Dataset:
    try:
        return Dataset.from_file(str(part))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{part}: cannot be read ({error}); remove it, and the next run computes it again") from error
