"""The audio tower of Qwen2-Audio on the true length of clips, and the tower of a checkpoint alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from study.data.features import MAX_FRAMES, tower_positions


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
