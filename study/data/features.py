"""Log-mel features of the true length of each clip, computed once per corpus and memory-mapped (Arrow, with datasets).

The stock processor pads every clip to 30 s. Encoding the true length gives exactly the same result if the mel is
computed from audio that is padded with zeros by at least one window, and is cut two frames after the clip's end: the
receptive field of the two convolutions ends there.
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
MIN_SAMPLES = 640  # 40 ms, the shortest clip that gives an audio token; shorter clips are padded with silence
MAX_FRAMES = 3000  # 30 s, the limit of the audio encoder; longer clips are cut
CLIPS_PER_FILE = 256
MIN_FILES_FOR_HELPERS = 8  # fewer files take a second or two


Frames = TypeVar("Frames", int, torch.Tensor)
"""The mel frames of one clip, or of several."""


def true_length(samples: int, hop_length: int = 160) -> int:
    """Return L, the mel frames that the stock attention mask marks as valid for a clip of that many 16 kHz samples."""
    return min(-(-samples // hop_length), MAX_FRAMES)


def stored_length(frames: int) -> int:
    """Return the frames to keep for a clip of L: L + 2 rounded up to even, the receptive field of its last position."""
    return min(frames + 2 + frames % 2, MAX_FRAMES)


def encoder_positions(frames: Frames) -> Frames:
    """Return the positions of the audio encoder before pooling for L mel frames."""
    return (frames - 1) // 2 + 1


def audio_tokens(frames: Frames) -> Frames:
    """Return the audio embeddings that the language model gets for L mel frames; 0 if the clip is too short."""
    return (encoder_positions(frames) - 2) // 2 + 1


def log_mel(waveform: np.ndarray, extractor: WhisperFeatureExtractor) -> tuple[np.ndarray, int]:
    """Return the log-mel of one clip.

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
    # A clip of 30 s has no padding: its end is mirrored, as in the stock processor.
    length = min(keep * hop + WINDOW, MAX_FRAMES * hop)
    padded = np.pad(waveform, (0, length - len(waveform)))
    mel = extractor(
        padded, sampling_rate=extractor.sampling_rate, padding="do_not_pad", truncation=False, return_tensors="np"
    )
    return np.ascontiguousarray(mel["input_features"][0].T[:keep], dtype=np.float32), frames


def pad_mels(clips: Sequence[Mapping[str, Any]], mel_bins: int) -> torch.Tensor:
    """Return rows of ``load`` as one batch (B, F, mel bins) float32, padded with zeros."""
    mels = [np.asarray(clip["log_mel"], dtype=np.float32).reshape(-1, mel_bins) for clip in clips]
    batch = np.zeros((len(mels), max(map(len, mels)), mel_bins), dtype=np.float32)
    for i, mel in enumerate(mels):
        batch[i, : len(mel)] = mel
    return torch.from_numpy(batch)


def build(
    utterances: pd.DataFrame, content_hash: str, extractor: WhisperFeatureExtractor, cache: Path, loudness: str
) -> Path:
    """Compute the features of a whole corpus under ``cache``, unless they are there.

    All processes that call this at the same time share the work. Each forks helpers to use all cores.

    Args:
        utterances: of ``study.data.corpora.Corpus``.
        content_hash: of the corpus. With the extractor's settings and the loudness it gives the folder its name.
        loudness: of ``study.config.settings.CorpusSettings``.

    Returns:
        The folder for ``load``: Arrow files of ``CLIPS_PER_FILE`` clips (see ``study.common.sharded_build``).
    """
    recipe = json.dumps(extractor.to_dict(), sort_keys=True, default=str)
    key = hashlib.sha256(f"parts of {CLIPS_PER_FILE} {content_hash} {recipe} {loudness}".encode()).hexdigest()[:12]
    count = -(-len(utterances) // CLIPS_PER_FILE)
    files = ShardedBuild(cache / "features" / key, [f"{index:05d}-of-{count:05d}.arrow" for index in range(count)])
    schema = pa.Schema.from_pandas(utterances, preserve_index=False)  # of all rows: one file may have no transcript

    def write_file(index: int, path: Path) -> None:
        rows = utterances.iloc[index * CLIPS_PER_FILE : (index + 1) * CLIPS_PER_FILE]
        frames, mels = _compute_features(rows["path"], extractor, loudness)
        table = pa.Table.from_pandas(rows, schema, preserve_index=False)
        table = table.append_column("frames", pa.array(frames, pa.int64()))
        table = table.append_column("log_mel", pa.array(mels, pa.list_(pa.float32())))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)

    files.build("features", write_file, _num_helpers() if len(files.missing()) >= MIN_FILES_FOR_HELPERS else 0)
    return files.folder


def _num_helpers() -> int:
    """Return the cores of this machine beyond one for each process that builds (torchrun starts several)."""
    return max(0, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


def _compute_features(
    paths: Iterable[str], extractor: WhisperFeatureExtractor, loudness: str
) -> tuple[list[int], list[np.ndarray]]:
    """Return true length L and flat log-mel of each clip."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processes share the cores already; more threads were eight times slower
    try:
        clips = [log_mel(read_audio(path, loudness), extractor) for path in paths]
    finally:
        torch.set_num_threads(threads)
    return [frames for _, frames in clips], [mel.reshape(-1) for mel, _ in clips]


def load(folder: Path) -> Dataset:
    """Return the memory-mapped corpus with its features. ``log_mel`` is flat: reshape it to (-1, mel bins).

    Raises:
        ValueError: a file is missing or damaged.
    """
    files = sorted(folder.glob("*-of-*.arrow"))
    if not files:
        raise ValueError(
            f"{folder}: no features on {socket.gethostname()}; on a cluster --cache (or --storage, if that is a "
            "folder) must be a folder that every machine sees"
        )
    if len(files) != int(files[0].stem.partition("-of-")[2]):
        raise ValueError(
            f"{folder}: files are missing ({len(files)} exist); start a study on this corpus to compute them"
        )
    return concatenate_datasets([_read_file(file) for file in files])


def _read_file(path: Path) -> Dataset:
    try:
        return Dataset.from_file(str(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); remove it, and the next run computes it again") from error
