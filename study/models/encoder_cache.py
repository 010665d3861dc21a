"""States of a frozen audio tower, computed once a corpus and backbone and memory-mapped, shared by all trials.

A folder holds shards of ``SHARD`` clips in the corpus's order, each ``(tokens, d_model)`` in the backbone's type, one
clip behind the other; where a clip lies follows from the clips' lengths. Ranks, and trials that run at once, share the
work (``study.common.sharded_build``). A clip of 3.6 s takes 225 KiB with Qwen2-Audio-7B in bf16.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from study.common.distributed import least
from study.common.errors import SettingsError
from study.common.sharded_build import GB, ShardedBuild
from study.config.settings import Settings
from study.data.examples import Examples
from study.data.features import audio_tokens, mels_of
from study.models.audio_encoder import encoder_states
from study.models.pretrained import backbone_hash, is_deterministic, load_audio_encoder

SHARD = 256  # clips of a file
AT_ONCE = 32  # clips of a pass through the tower
DISK_LEFT_FREE = 0.05


class EncoderCache(ShardedBuild):
    """States of a corpus's clips by their row in it: ``cache[row]`` is (audio tokens, d_model), memory-mapped.

    Args:
        folder: of the shards; made if need be.
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
            raise ValueError(f"{self.path(shard)}: holds {tuple(states.shape)}, not {expected}; remove it, and the "
                             "next run computes it again")  # fmt: skip
        return states

    def bytes_of(self, shards: list[int]) -> int:
        """What these shards take on disk."""
        return sum(int(self._tokens[self.shards[shard]].sum()) for shard in shards) * self.width * self.dtype.itemsize


def shared_states(
    features: Path,
    examples: Examples,
    source: str,
    settings: Settings,
    dtype: torch.dtype,
    device: torch.device,
) -> EncoderCache | None:
    """The complete cache of a run, all ranks building what is missing of it; None where the tower has to be run.

    Args:
        features: the folder of ``study.data.features.build``.  examples: any of that corpus.
        source: hub id or folder of the backbone.

    Raises:
        SettingsError: a cache is asked for, and its disk has no room or the tower does not allow one.
    """
    choice = settings.computation.encoder_states
    if choice == "computed" or not settings.optimisation.epochs:  # a single pass gains nothing from being kept
        return None
    message, store = None, None
    if settings.computation.encoder_input != "true_length":
        message = f"computation.encoder_input is {settings.computation.encoder_input}, to be measured in every pass"
    elif "audio_encoder" in settings.backbone.trainable:
        message = "the tower is trained (backbone.trainable), so its states change"
    elif not is_deterministic(source):
        message = f"the tower of {source} drops activations in training"
    else:
        store = open_cache(features, examples.dataset, source, dtype)
        message = lacking_room(store)
    if least(message is None, device):  # or every rank runs the tower
        compute(store, examples.dataset, source, device, examples.mel_bins)
        return store
    if choice == "cached":
        raise SettingsError([f"computation.encoder_states: cached is not possible: {message or 'a rank has no room'}"])
    if store is not None:
        print(f"tower states: computed in every pass, not kept: {message or 'a rank has no room'}", flush=True)
    return None


def open_cache(features: Path, dataset: Dataset, source: str, dtype: torch.dtype) -> EncoderCache:
    """The cache of a corpus and backbone, complete or not; its folder stands beside that of the features.

    Args:
        features: the folder of ``study.data.features.build``, whose name is the hash of corpus and extractor.
        dataset: what it holds.
        source: hub id or folder of the backbone.
    """
    kind = str(dtype).removeprefix("torch.")
    folder = features.parent.parent / "audio_encoder" / f"{features.name}-{_hash(source)}-{kind}"
    width = AutoConfig.from_pretrained(source).audio_config.d_model
    return EncoderCache(folder, np.asarray(dataset["frames"]), width, dtype)


_hash = cache(backbone_hash)  # a worker asks for it again with every seed


def lacking_room(store: EncoderCache) -> str | None:
    """Why the missing shards cannot be kept, None if they can."""
    need, disk = store.bytes_of(store.missing()), shutil.disk_usage(store.folder)
    free = disk.free - DISK_LEFT_FREE * disk.total
    if need <= free:
        return None
    return f"{need / GB:.1f} GB are needed in {store.folder} and {max(free, 0) / GB:.1f} GB are free"


def compute(store: EncoderCache, dataset: Dataset, source: str, device: torch.device, mel_bins: int) -> None:
    """Compute what is missing, together with every other process that does so."""
    if not store.missing():
        return
    encoder = load_audio_encoder(source, store.dtype, device)
    clips = dataset.select_columns(["log_mel", "frames"]).with_format("numpy")

    def write(shard: int, path: Path) -> None:
        save_file({"states": _states(store.shards[shard], encoder, clips, device, mel_bins)}, path)

    store.build("tower states", write)


@torch.no_grad()
def _states(
    rows: np.ndarray, encoder: Qwen2AudioEncoder, clips: Dataset, device: torch.device, mel_bins: int
) -> Tensor:
    """States (tokens, d_model) of some clips behind each other, on the CPU; clips of like length pass together."""
    lengths = np.asarray(clips[rows]["frames"])
    parts: dict[int, Tensor] = {}
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(rows), AT_ONCE):
        chosen = order[start : start + AT_ONCE]
        frames = torch.from_numpy(lengths[chosen]).to(device)
        mels = mels_of([clips[int(rows[i])] for i in chosen], mel_bins).to(device)
        states = encoder_states(encoder, mels, frames).cpu()
        for i, state in zip(chosen, states, strict=True):
            parts[int(i)] = state[: audio_tokens(int(lengths[i]))]
    return torch.cat([parts[i] for i in range(len(rows))])
