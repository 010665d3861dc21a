"""The memory that a worker needs, computed from settings and the checkpoint's configuration before anything is loaded.

It is a lower bound. It leaves out the CUDA context, libraries and interpreter, DeepSpeed's communication buckets and
ZeRO-3's gathered layers, the allocator's fragmentation, short-lived intermediates, the hidden states of MinDiff, and
the page cache of the data set. Reserve about a tenth of a GPU for these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2AudioForConditionalGeneration, Qwen2Config

from study.config.settings import BackboneSettings, Parallelism
from study.data.features import MAX_FRAMES, audio_tokens, encoder_positions
from study.models.lora import lora_pattern

GB = 1e9
RESERVED_FRACTION = 0.1
"""The fraction of memory that is reserved for what the estimate leaves out."""
FLOAT32 = 4
TEXT_CONFIG_7B = {
    "model_type": "qwen2",
    "vocab_size": 156_032,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
"""The language model of Qwen2-Audio-7B; its other parts are the defaults of the configuration class."""


@dataclass(frozen=True)
class Workload:
    """The largest micro-batch of a run.

    Attributes:
        examples: utterances of a worker in one training micro-batch.
        scored: utterances of a worker in one scoring pass.
        clip_seconds: of the longest clip.
        text_tokens: of the longest prompt, without its audio.
        answer_tokens: of the longest label word and the end of turn.
        label_tokens: of all seven label words together.
    """

    examples: int
    scored: int
    clip_seconds: float
    text_tokens: int
    answer_tokens: int = 3
    label_tokens: int = 14

    @property
    def frames(self) -> int:
        """The mel frames (10 ms each) of the longest clip."""
        return min(max(round(100 * self.clip_seconds), 4), MAX_FRAMES)


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that one worker needs, in bytes.

    Attributes:
        parameters: the number of parameters of the backbone, without LoRA.
        trainable: the number of parameters that get gradients.
        bytes_each: of a weight: 2 in bf16, 4 in float32.
        activations: tensors that autograd stores between forward and backward pass.
        scoring: logits and attention mask of the label scores. Training and scoring do not happen at the same time.
    """

    parameters: int
    trainable: int
    bytes_each: int
    weights: float
    gradients: float
    optimiser: float
    activations: float
    scoring: float

    @property
    def total(self) -> float:
        training = self.gradients + self.optimiser + max(self.activations, self.scoring)
        return self.weights + training

    def describe(self) -> str:
        """Return ``at least 30.1 GB per worker: 16.8 GB weights (8.40 B parameters, bf16), ...``."""
        dtype = "bf16" if self.bytes_each == 2 else "float32"
        parts = {
            f"weights ({_count(self.parameters)} parameters, {dtype})": self.weights,
            f"gradients ({_count(self.trainable)} trained)": self.gradients,
            "optimiser": self.optimiser,
            "activations" if self.activations > self.scoring else "scoring": max(self.activations, self.scoring),
        }
        listed = ", ".join(f"{_with_unit(value)} {name}" for name, value in parts.items())
        return f"at least {_with_unit(self.total)} per worker: {listed}"


def memory_need(
    config: Qwen2AudioConfig,
    settings: BackboneSettings,
    parallelism: Parallelism,
    workload: Workload,
    on_gpu: bool,
    epochs: int,
) -> MemoryNeed:
    """Return the memory need of one worker.

    Args:
        on_gpu: whether training runs on a GPU in bf16, or on the CPU in float32.
        epochs: with 0, nothing is trained, and only weights and scoring count.
    """
    each = 2 if on_gpu else FLOAT32
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(config)
    parameters = sum(p.numel() for p in model.parameters())
    lora = lora_parameters(model, settings)
    whole = {"audio_encoder": model.model.audio_tower, "projector": model.model.multi_modal_projector}
    trainable = lora + sum(p.numel() for part in settings.trainable for p in whole[part].parameters())
    if "audio_encoder" in settings.trainable:
        trainable -= model.model.audio_tower.embed_positions.weight.numel()

    num_workers, stage = parallelism.num_workers, parallelism.zero_stage
    trained = trainable if epochs else 0
    return MemoryNeed(
        parameters=parameters,
        trainable=trainable,
        bytes_each=each,
        weights=(parameters + lora) * each / (num_workers if stage == 3 else 1),
        gradients=trained * each / (num_workers if stage >= 2 else 1),
        # Adam's two moments and a float32 master copy, which float32 training without ZeRO does not make
        optimiser=trained * FLOAT32 * (3 if on_gpu or stage else 2) / (num_workers if stage >= 1 else 1),
        activations=activations(config, settings, workload, each) if epochs else 0.0,
        scoring=workload.scored
        * (
            (1 + workload.label_tokens) * text_config(config).vocab_size * (each + 2 * FLOAT32)
            + (workload.text_tokens + audio_tokens(workload.frames) + workload.label_tokens) ** 2  # mask, one byte each
        ),
    )


def text_config(config: Qwen2AudioConfig) -> Qwen2Config:
    """Return the configuration of the language model."""
    return cast(Qwen2Config, config.text_config)


def lora_parameters(model: torch.nn.Module, settings: BackboneSettings) -> int:
    """Return the number of LoRA parameters: r (in + out) for every adapted linear layer."""
    linear = [
        cast(torch.nn.Linear, module)
        for name, module in model.named_modules()
        if re.fullmatch(lora_pattern(settings), name)
    ]
    return sum(settings.lora_rank * (module.in_features + module.out_features) for module in linear)


def activations(config: Qwen2AudioConfig, settings: BackboneSettings, workload: Workload, each: int) -> float:
    """Return the bytes that autograd stores in the forward pass of a micro-batch, without activation checkpointing.

    For each token and layer of a language model with width h, MLP width i and key width k, these are: two norms in
    float32 (8 h bytes); q, k, v and the output of attention (2 h + 2 k elements), but not its scores, which a fused
    kernel never stores; the gate before and after its activation and the up projection (3 i); and the input of every
    LoRA matrix, with dropout as a copy and a mask of one byte each. A frozen linear layer stores no input, and a frozen
    audio encoder stores nothing.

    Args:
        each: bytes of a weight.
    """
    text, encoder = text_config(config), cast(Qwen2AudioEncoderConfig, config.audio_config)
    h, i = text.hidden_size, text.intermediate_size
    k = h * cast(int, text.num_key_value_heads) // text.num_attention_heads
    tokens = workload.examples * (workload.text_tokens + audio_tokens(workload.frames) + workload.answer_tokens - 1)
    if settings.lora_dropout:
        inputs = {"attention": 4 * h, "all": 6 * h + i}[settings.lora_targets] * (each + 1)
    else:  # q, k and v share one input, gate and up another; the two other inputs are stored already
        inputs = {"attention": h, "all": 2 * h + i}[settings.lora_targets] * each
    layer = 2 * FLOAT32 * h + (2 * h + 2 * k + 3 * i) * each + inputs
    probability = FLOAT32 + (each if each < FLOAT32 else 0)  # computed in float32, stored in both dtypes
    stored = tokens * layer * text.num_hidden_layers
    if settings.attention == "eager":
        width = tokens // workload.examples
        stored += workload.examples * text.num_attention_heads * width**2 * probability * text.num_hidden_layers
    stored += workload.examples * workload.answer_tokens * text.vocab_size * probability
    if "audio_encoder" in settings.trainable:
        d, f = encoder.d_model, encoder.encoder_ffn_dim
        # the inputs of two norms, of q, k, v, of the output and of both MLP layers, and those of attention itself
        stored += (
            workload.examples * encoder_positions(workload.frames) * (9 * d + 2 * f) * each * encoder.encoder_layers
        )
    return float(stored)


def bytes_per_token(config: Qwen2AudioConfig, settings: BackboneSettings, each: int) -> float:
    """Return the bytes that autograd stores for each token of a micro-batch, for an utterance of typical length.

    Args:
        each: bytes of a weight.
    """
    typical = Workload(examples=1, scored=0, clip_seconds=3.6, text_tokens=50)
    tokens = typical.text_tokens + audio_tokens(typical.frames) + typical.answer_tokens - 1
    return activations(config, settings, typical, each) / tokens


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"


def _with_unit(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB else f"{size / 1e6:.1f} MB"
