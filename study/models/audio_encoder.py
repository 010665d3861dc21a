"""The forward pass of Qwen2-Audio's audio encoder on the true length of clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from study.data.features import MAX_FRAMES, encoder_positions


def encoder_states(encoder: Qwen2AudioEncoder, log_mel: Tensor, frames: Tensor, on_30_seconds: bool = False) -> Tensor:
    """Return the input of the projector: the states after pooling and the last norm.

    Args:
        log_mel: (B, F, M), F even and at least two above the longest clip (or the encoder's limit).
        frames: (B,) true length of each clip in mel frames.
        on_30_seconds: whether to compute as many positions as the stock model, with those beyond the clip masked.

    Returns:
        (B, A, d_model); the first ``audio_tokens(frames)`` states of a clip are valid, the rest is padding.
    """
    longest = int(frames.max())
    if on_30_seconds:
        longest = MAX_FRAMES
        log_mel = nn.functional.pad(log_mel, (0, 0, 0, MAX_FRAMES - log_mel.shape[1]))
    dtype = encoder.conv1.weight.dtype
    hidden = nn.functional.gelu(encoder.conv1(log_mel.to(dtype).transpose(1, 2)))
    hidden = nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    length = encoder_positions(longest)
    hidden = hidden[:, :length]
    steps = torch.arange(length, device=hidden.device)
    hidden = hidden + encoder.embed_positions(steps)
    hidden = nn.functional.dropout(hidden, p=encoder.dropout, training=encoder.training)
    valid = steps < encoder_positions(frames)[:, None]
    mask = None if bool(valid.all()) else valid[:, None, None, :].expand(-1, 1, length, -1)
    for layer in encoder.layers:
        hidden = layer(hidden, mask)
    return encoder.layer_norm(encoder.avg_pooler(hidden.transpose(1, 2)).transpose(1, 2))
