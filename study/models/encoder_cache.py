"""The states of a frozen audio encoder, computed once per corpus and backbone, memory-mapped and shared by all trials.

A folder holds shards of ``SHARD`` clips in the corpus's order. A shard is one ``(tokens, d_model)`` tensor in the
backbone's dtype with its clips concatenated; the position of a clip follows from the clips' lengths. Workers, and
trials that run at the same time, share the computation (``study.common.sharded_build``). A clip of 3.6 s takes 225 KiB
with Qwen2-Audio-7B in bf16.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from study.common.distributed import minimum
from study.common.errors import SettingsError
from study.common.sharded_build import GB, ShardedBuild
from study.config.settings import Settings
from study.data.features import audio_tokens, pad_mels
from study.models.audio_encoder import encoder_states
from study.models.pretrained import backbone_hash, is_deterministic, load_audio_encoder

if TYPE_CHECKING:
    from datasets import Dataset

    from study.data.examples import Examples

SHARD = 256  # clips in a file
ENCODER_BATCH = 32  # clips in a forward pass
RESERVED_DISK = 0.05
"""The fraction of the disk that is never filled."""


class EncoderCache(ShardedBuild):
    """Encoder states by the row of a clip in its corpus: ``cache[row]`` is (audio tokens, d_model), memory-mapped.

    Args:
        folder: of the shards; created if it does not exist.
        frames: (n,) true length of each clip in mel frames.
        width: d_model.
    """

    def __init__(self, folder: Path, frames: np.ndarray, width: int, dtype: torch.dtype):
        self.shards = [np.arange(start, min(start + SHARD, len(frames))) for start in range(0, len(frames), SHARD)]
        super().__init__(folder, [f"{shard:05d}.safetensors" for shard in range(len(self.shards))])
        self.width, self.dtype = width, dtype
        self._tokens = np.array([audio_tokens(int(length)) for length in frames])
        self._ends = np.concatenate([self._tokens[rows].cumsum() for rows in self.shards])
        self._open: dict[int, Tensor] = {}

    def __getitem__(self, row: int) -> Tensor:
        shard = row // SHARD
        if shard not in self._open:
            self._open[shard] = self._read(shard)
        end = int(self._ends[row])
        return self._open[shard][end - int(self._tokens[row]) : end]

    def _read(self, shard: int) -> Tensor:
        with safe_open(self.path(shard), framework="pt") as file:
            states = file.get_tensor("states")
        expected = (int(self._tokens[self.shards[shard]].sum()), self.width)
        if tuple(states.shape) != expected or states.dtype != self.dtype:
            raise ValueError(
                f"{self.path(shard)}: has shape {tuple(states.shape)} and {states.dtype}, expected {expected} and "
                f"{self.dtype}; remove it, and the next run computes it again"
            )
        return states

    def bytes_of(self, shards: list[int]) -> int:
        """Return the size of these shards on disk."""
        return sum(int(self._tokens[self.shards[shard]].sum()) for shard in shards) * self.width * self.dtype.itemsize


def shared_states(
    features: Path,
    examples: Examples,
    source: str,
    settings: Settings,
    dtype: torch.dtype,
    device: torch.device,
) -> EncoderCache | None:
    """Return the complete cache of a run, or None if the audio encoder has to run in every forward pass.

    All workers call this and compute together what is missing from the cache.

    Args:
        features: the folder written by ``study.data.features.build``.
        examples: any split of that corpus.
        source: a hub id or folder of the backbone.

    Raises:
        SettingsError: ``computation.encoder_states`` is "cached", which the disk or another setting does not allow.
    """
    choice = settings.computation.encoder_states
    if choice == "computed" or not settings.optimisation.epochs:  # without training, each clip is encoded once anyway
        return None
    reason, store = None, None
    if settings.computation.encoder_input != "true_length":
        reason = f"computation.encoder_input is {settings.computation.encoder_input}"
    elif "audio_encoder" in settings.backbone.trainable:
        reason = "the audio encoder is trained (backbone.trainable), so its states change"
    elif not is_deterministic(source):
        reason = f"the audio encoder of {source} uses dropout in training"
    else:
        store = open_cache(features, examples.dataset, source, dtype)
        reason = missing_disk_space(store)
    if store is not None and minimum(reason is None, device):  # the workers decide alike
        compute(store, examples.dataset, source, device, examples.mel_bins)
        return store
    reason = reason or "a worker has too little disk space"
    if choice == "cached":
        raise SettingsError([f"computation.encoder_states: cached is not possible: {reason}"])
    if store is not None:
        print(f"encoder states: computed in every forward pass, not cached: {reason}", flush=True)
    return None


def open_cache(features: Path, dataset: Dataset, source: str, dtype: torch.dtype) -> EncoderCache:
    """Return the cache of a corpus and backbone, complete or not. Its folder is ``cache/encoder_states/...``.

    Args:
        features: the folder written by ``study.data.features.build``; its name is a hash of corpus and extractor.
        dataset: the content of that folder.
        source: a hub id or folder of the backbone.
    """
    dtype_name = str(dtype).removeprefix("torch.")
    folder = features.parent.parent / "encoder_states" / f"{features.name}-{_cached_hash(source)}-{dtype_name}"
    width = AutoConfig.from_pretrained(source).audio_config.d_model
    return EncoderCache(folder, np.asarray(dataset["frames"]), width, dtype)


_cached_hash = cache(backbone_hash)  # a worker needs it again for every seed


def missing_disk_space(store: EncoderCache) -> str | None:
    """Return why the missing shards do not fit on the disk, or None if they fit."""
    needed, disk = store.bytes_of(store.missing()), shutil.disk_usage(store.folder)
    free = disk.free - RESERVED_DISK * disk.total
    if needed <= free:
        return None
    return f"{needed / GB:.1f} GB are needed in {store.folder} and {max(free, 0) / GB:.1f} GB are free"


def compute(store: EncoderCache, dataset: Dataset, source: str, device: torch.device, mel_bins: int) -> None:
    """Compute the missing shards, together with every other process that calls this."""
    if not store.missing():
        return
    encoder = load_audio_encoder(source, store.dtype, device)
    clips = dataset.select_columns(["log_mel", "frames"]).with_format("numpy")

    def write(shard: int, path: Path) -> None:
        save_file({"states": _states(store.shards[shard], encoder, clips, device, mel_bins)}, path)

    store.build("encoder states", write)


@torch.no_grad()
def _states(
    rows: np.ndarray, encoder: Qwen2AudioEncoder, clips: Dataset, device: torch.device, mel_bins: int
) -> Tensor:
    """Return the concatenated states (tokens, d_model) of some clips, on the CPU; similar lengths are batched."""
    lengths = np.asarray(clips[rows]["frames"])
    states_by_clip: dict[int, Tensor] = {}
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(rows), ENCODER_BATCH):
        chosen = order[start : start + ENCODER_BATCH]
        frames = torch.from_numpy(lengths[chosen]).to(device)
        mels = pad_mels([clips[int(rows[i])] for i in chosen], mel_bins).to(device)
        batch_states = encoder_states(encoder, mels, frames).cpu()
        for i, states in zip(chosen, batch_states, strict=True):
            states_by_clip[int(i)] = states[: audio_tokens(int(lengths[i]))]
    return torch.cat([states_by_clip[i] for i in range(len(rows))])
