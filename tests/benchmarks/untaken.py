"""What levers of a training step that are not built would be worth: the same batch with and without each, in turn.

``python -m tests.benchmarks.untaken`` on a narrow model as deep as Qwen2-Audio-7B, with its proportion of tower to
language model (1 to 10); ``--shape 7b`` takes its full size, on a GPU. Every clip lasts 3.6 s, LoRA drops nothing, and
the gradient of each variant is compared with the plain one's. On a CPU one thread's processor time is compared.

- last layer: queries, output and feed-forward of the last layer at the answer's positions only.
- prefix: what stands before the audio passes once a batch, and all clips look at its keys and values.
- compiled: the language model's layers through ``torch.compile``, whatever the shape.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import DynamicCache, Qwen2AudioConfig
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from study.common.groups import EMOTIONS
from study.config.settings import BackboneSettings
from study.data.examples import Batch
from study.models.lora import with_lora
from study.models.memory_estimate import TEXT_CONFIG_7B
from study.models.qwen2_audio import EmotionModel
from tests.benchmarks.levers import PAD, batch_of, random_model, read_flags, timed

FRAMES = 360  # 3.6 s
PREFIX = 20  # tokens before the audio in the paper's prompt, about
DEEP = Qwen2AudioConfig(
    audio_config={
        "model_type": "qwen2_audio_encoder",
        "d_model": 40,
        "encoder_layers": 32,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 160,
    },
    text_config={
        "model_type": "qwen2",
        "vocab_size": 4096,
        "hidden_size": 128,
        "intermediate_size": 344,
        "num_hidden_layers": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    audio_token_index=0,
)


def batch_with_prefix(config: Qwen2AudioConfig, size: int, device: torch.device) -> Batch:
    """Clips of one length, the first ``PREFIX`` tokens alike."""
    batch = batch_of(config, np.full(size, FRAMES), device)
    prefix = torch.arange(100, 100 + PREFIX, device=device).expand(size, -1)
    ids = torch.cat([prefix, batch.input_ids[:, 10:]], dim=1)  # ten other tokens stood there
    return replace(batch, input_ids=ids, prompt_lengths=batch.prompt_lengths + PREFIX - 10)


@contextmanager
def last_layer_at(model: EmotionModel, at: Tensor) -> Iterator[None]:
    """The last layer computes at the positions ``at`` (B, S) alone; its output elsewhere is zero."""
    layer = model.peft_model.get_base_model().model.language_model.layers[-1]
    attention = layer.self_attn
    rows = torch.arange(len(at), device=at.device)[:, None]

    def forward(hidden: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: object) -> Tensor:
        size, width, _ = hidden.shape
        normed = layer.input_layernorm(hidden)
        heads = partial(Tensor.unflatten, dim=-1, sizes=(-1, attention.head_dim))
        keys, values = (heads(project(normed)).transpose(1, 2) for project in (attention.k_proj, attention.v_proj))
        queries = heads(attention.q_proj(normed[rows, at])).transpose(1, 2)
        cos, sin = (table.expand(size, -1, -1) for table in position_embeddings)
        queries, _ = apply_rotary_pos_emb(queries, queries, cos[rows, at], sin[rows, at])
        keys, _ = apply_rotary_pos_emb(keys, keys, cos, sin)
        mask = torch.arange(width, device=at.device) <= at[:, None, :, None]
        seen = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        own = hidden[rows, at] + attention.o_proj(seen.transpose(1, 2).flatten(2))
        own = own + layer.mlp(layer.post_attention_layernorm(own))
        return torch.zeros_like(hidden).index_put((rows, at), own)

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


@contextmanager
def prefix_once(model: EmotionModel) -> Iterator[None]:
    """The first ``PREFIX`` tokens pass through the language model for the first row alone."""
    language_model = model.peft_model.get_base_model().model.language_model
    plain = language_model.forward

    def forward(inputs_embeds: Tensor, attention_mask: Tensor, use_cache: bool) -> object:
        cache = DynamicCache(config=language_model.config)
        plain(inputs_embeds=inputs_embeds[:1, :PREFIX], past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            layer.keys, layer.values = (
                part.expand(len(inputs_embeds), -1, -1, -1) for part in (layer.keys, layer.values)
            )
        rest = plain(
            inputs_embeds=inputs_embeds[:, PREFIX:],
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
        )
        before = rest.last_hidden_state.new_zeros(len(inputs_embeds), PREFIX, inputs_embeds.shape[-1])
        rest.last_hidden_state = torch.cat([before, rest.last_hidden_state], dim=1)
        return rest

    language_model.forward = forward
    try:
        yield
    finally:
        del language_model.forward


def gradient(model: EmotionModel) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def main() -> int:
    flags = read_flags("untaken", __doc__, "deep", 8)
    config = DEEP if flags.shape == "deep" else Qwen2AudioConfig(text_config=TEXT_CONFIG_7B)
    base, device = random_model(config)
    on_gpu, size = device.type == "cuda", flags.batch_size
    peft_model = with_lora(base, BackboneSettings(lora_dropout=0.0))
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name:  # zero at first, which would hide half of the gradient
            nn.init.normal_(parameter, std=0.02)
    answers = [[20 + 2 * i, 5] for i in range(len(EMOTIONS))]
    model = EmotionModel(peft_model, answers, pad_token_id=PAD).to(device).train()

    def step(batch: Batch) -> None:
        model.zero_grad(set_to_none=True)
        model(batch, score=False)[0].sum().backward()

    def at_answers(batch: Batch) -> None:
        with last_layer_at(model, batch.prompt_lengths[:, None] - 1 + torch.arange(2, device=device)):
            step(batch)

    def with_prefix_once(batch: Batch) -> None:
        with prefix_once(model):
            step(batch)

    layers = base.model.language_model.layers
    plain_forwards = [layer.forward for layer in layers]
    compiled_forwards = [torch.compile(forward, dynamic=True) for forward in plain_forwards]

    def compiled(batch: Batch) -> None:
        for layer, forward in zip(layers, compiled_forwards, strict=True):
            layer.forward = forward
        try:
            step(batch)
        finally:
            for layer in layers:
                del layer.forward

    variants: dict[str, Callable[[Batch], None]] = {
        "plain": step,
        "last layer at the answers": at_answers,
        "prefix once": with_prefix_once,
        "compiled layers": compiled,
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    expected = torch.empty(0)
    for done in range(flags.rounds + 1):
        batch = batch_with_prefix(config, size, device)
        for name, variant in variants.items():
            began = time.perf_counter()
            seconds = timed(lambda variant=variant, batch=batch: variant(batch), on_gpu)
            if done:
                times[name].append(seconds)
                continue
            expected = gradient(model) if name == "plain" else expected
            off = float((gradient(model) - expected).norm() / expected.norm())
            print(f"{name:26} first step {time.perf_counter() - began:6.1f} s, gradient off by {off:.1e}", flush=True)
    print(f"compiled: {counters['stats']['unique_graphs']} graphs")
    for name, each in times.items():
        ratio = statistics.median(before / after for before, after in zip(times["plain"], each, strict=True))
        print(f"{name:26} {1000 * statistics.median(each):8.0f} ms, {ratio:.3f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
