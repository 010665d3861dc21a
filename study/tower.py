"""The audio tower of Qwen2-Audio on the true length of clips, and the tower of a checkpoint alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from study.features import MAX_FRAMES, tower_positions
from study.settings import SettingsError


def tower_states(tower: Qwen2AudioEncoder, log_mel: Tensor, frames: Tensor, on_30_seconds: bool = False) -> Tensor:
    """What the projector gets: states after pooling and the last norm.

    Args:
        log_mel: (B, F, M), F even and at least two above the longest clip (or the tower's limit).
        frames: (B,) true length of each clip.
        on_30_seconds: compute as many positions as the stock model, the rest of them masked.

    Returns:
        (B, A, d_model); of a clip the first ``audio_tokens(frames)`` count, the rest is padding.
    """
    longest = int(frames.max())
    if on_30_seconds:
        longest = MAX_FRAMES
        log_mel = nn.functional.pad(log_mel, (0, 0, 0, MAX_FRAMES - log_mel.shape[1]))
    dtype = tower.conv1.weight.dtype
    hidden = nn.functional.gelu(tower.conv1(log_mel.to(dtype).transpose(1, 2)))
    hidden = nn.functional.gelu(tower.conv2(hidden)).transpose(1, 2)
    length = tower_positions(longest)
    hidden = hidden[:, :length]
    steps = torch.arange(length, device=hidden.device)
    hidden = hidden + tower.embed_positions(steps)
    hidden = nn.functional.dropout(hidden, p=tower.dropout, training=tower.training)
    valid = steps < tower_positions(frames)[:, None]
    mask = None if bool(valid.all()) else valid[:, None, None, :].expand(-1, 1, length, -1)
    for layer in tower.layers:
        hidden = layer(hidden, mask)
    return tower.layer_norm(tower.avg_pooler(hidden.transpose(1, 2)).transpose(1, 2))


def is_deterministic(source: str) -> bool:
    """Whether the tower of a checkpoint gives the same states in training as in scoring: it drops nothing."""
    config = AutoConfig.from_pretrained(source).audio_config
    return not any((config.dropout, config.attention_dropout, config.activation_dropout, config.encoder_layerdrop))


def load_tower(source: str, dtype: torch.dtype, device: torch.device) -> Qwen2AudioEncoder:
    """The tower of a hub id or folder, without the language model, ready to score.

    Raises:
        SettingsError: weights of the tower are missing from the checkpoint, do not fit it or cannot be read.
    """
    try:
        tower, loading = Qwen2AudioEncoder.from_pretrained(
            source,
            config=AutoConfig.from_pretrained(source).audio_config,
            dtype=dtype,
            attn_implementation="sdpa",
            key_mapping={r"^(model\.)?audio_tower\.": ""},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except SafetensorError as error:
        raise SettingsError([f"--backbone {source}: its weights cannot be read ({error}); fetch them again"]) from error
    refuse_incomplete(source, loading)
    return tower.to(device).eval()


def refuse_incomplete(source: str, loading: Mapping[str, Any]) -> None:
    """Raises SettingsError where a checkpoint left weights random.

    Args:
        loading: what ``from_pretrained`` says of it; ``missing_keys`` and ``mismatched_keys``.
    """
    if loading["missing_keys"]:
        raise SettingsError([f"--backbone {source}: the checkpoint lacks {sorted(loading['missing_keys'])[:5]}"])
    if loading["mismatched_keys"]:
        shapes = [f"{name} ({tuple(there)}, not {tuple(here)})" for name, there, here in loading["mismatched_keys"]]
        raise SettingsError(
            [f"--backbone {source}: weights that do not fit its config.json: {', '.join(sorted(shapes)[:5])}"]
        )
