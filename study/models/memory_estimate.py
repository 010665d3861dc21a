"""The memory that a rank needs, from settings and the checkpoint's configuration alone, before anything is loaded.

A lower bound: what must be held, by arithmetic. Not in it: the CUDA context, libraries and interpreter, DeepSpeed's
communication buckets and ZeRO-3's gathered layers, the allocator's fragments, passing intermediates, the states of
MinDiff, and a data set that the page cache holds. Leave a tenth or so of a GPU for these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from study.config.settings import BackboneSettings, Parallelism
from study.data.features import MAX_FRAMES, audio_tokens, encoder_positions
from study.models.lora import lora_pattern

GB = 1e9
LEFT_FREE = 0.1
"""The part of a memory that is left for what is not counted here."""
FLOAT32 = 4
SEVEN_B = {
    "model_type": "qwen2",
    "vocab_size": 156_032,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
"""Language model of Qwen2-Audio-7B; the other parts of it are the configuration class's defaults."""


@dataclass(frozen=True)
class Load:
    """What one pass over a micro-batch holds, at its longest.

    Attributes:
        examples: of a rank in one training pass.  scored: in one scoring pass.
        clip_seconds: of the longest clip.
        text_tokens: of the longest prompt without its audio.
        answer_tokens: of the longest label word and its end of turn.  branch_tokens: of all seven words together.
    """

    examples: int
    scored: int
    clip_seconds: float
    text_tokens: int
    answer_tokens: int = 3
    branch_tokens: int = 14

    @property
    def frames(self) -> int:
        """Mel frames (10 ms) of the longest clip."""
        return min(max(round(100 * self.clip_seconds), 4), MAX_FRAMES)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of one rank.

    Attributes:
        parameters: of the backbone, LoRA apart.  trainable: parameters that take gradients.
        bytes_each: of a weight, 2 in bf16 and 4 in float32.
        activations: what autograd keeps between forward and backward pass.
        scoring: the label scores' logits and their mask; training and scoring do not happen at once.
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

    def in_words(self) -> str:
        """``about 30.1 GB a rank: 16.8 weights (8.40 B parameters, bf16), ...``"""
        kind = "bf16" if self.bytes_each == 2 else "float32"
        parts = {
            f"weights ({_count(self.parameters)} parameters, {kind})": self.weights,
            f"gradients ({_count(self.trainable)} trained)": self.gradients,
            "optimiser": self.optimiser,
            "activations" if self.activations > self.scoring else "scoring": max(self.activations, self.scoring),
        }
        listed = ", ".join(f"{_gigabytes(value)} {name}" for name, value in parts.items())
        return f"at least {_gigabytes(self.total)} GB a rank: {listed}"


def memory_need(
    config: Qwen2AudioConfig,
    settings: BackboneSettings,
    parallelism: Parallelism,
    load: Load,
    on_gpu: bool,
    epochs: int,
) -> MemoryNeed:
    """The need of one rank.

    Args:
        on_gpu: bf16 there, float32 on the CPU.
        epochs: 0 trains nothing, so only weights and scoring count.
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
        # Adam's two moments, and a master copy in float32, which without ZeRO float32 training does not make
        optimiser=trained * FLOAT32 * (3 if on_gpu or stage else 2) / (num_workers if stage >= 1 else 1),
        activations=activations(config, settings, load, each) if epochs else 0.0,
        scoring=load.scored
        * (
            (1 + load.branch_tokens) * config.text_config.vocab_size * (each + 2 * FLOAT32)
            + (load.text_tokens + audio_tokens(load.frames) + load.branch_tokens) ** 2  # the mask, a byte each
        ),
    )


def lora_parameters(model: torch.nn.Module, settings: BackboneSettings) -> int:
    """r (in + out) for every linear layer that LoRA is put on."""
    linear = [module for name, module in model.named_modules() if re.fullmatch(lora_pattern(settings), name)]
    return sum(settings.lora_rank * (module.in_features + module.out_features) for module in linear)


def activations(config: Qwen2AudioConfig, settings: BackboneSettings, load: Load, each: int) -> float:
    """Bytes that autograd keeps of one training pass, without activation checkpointing.

    A token and layer of the language model, h wide with an MLP of i and attention keys of k: two norms in float32
    (8 h bytes); q, k, v and the output of attention (2 h + 2 k elements), whose scores a fused kernel never keeps; the
    gate before and after its activation and the up projection (3 i); and the input of every LoRA matrix, with dropout
    a copy and a mask of a byte each. A frozen linear layer keeps no input. A frozen tower keeps nothing.
    """
    text, encoder = config.text_config, config.audio_config
    h, i = text.hidden_size, text.intermediate_size
    k = h * text.num_key_value_heads // text.num_attention_heads
    tokens = load.examples * (load.text_tokens + audio_tokens(load.frames) + load.answer_tokens - 1)
    if settings.lora_dropout:
        inputs = {"attention": 4 * h, "all": 6 * h + i}[settings.lora_targets] * (each + 1)
    else:  # one input serves q, k and v, and one gate and up; the two others are kept already
        inputs = {"attention": h, "all": 2 * h + i}[settings.lora_targets] * each
    layer = 2 * FLOAT32 * h + (2 * h + 2 * k + 3 * i) * each + inputs
    twice = FLOAT32 + (each if each < FLOAT32 else 0)  # a probability: computed in float32, kept in both types
    kept = tokens * layer * text.num_hidden_layers
    if settings.attention == "eager":
        width = tokens // load.examples
        kept += load.examples * text.num_attention_heads * width**2 * twice * text.num_hidden_layers
    kept += load.examples * load.answer_tokens * text.vocab_size * twice
    if "audio_encoder" in settings.trainable:
        d, f = encoder.d_model, encoder.encoder_ffn_dim
        # two norms' inputs, the inputs of q, k, v, of the output, of both layers of the MLP, and attention's own
        kept += load.examples * encoder_positions(load.frames) * (9 * d + 2 * f) * each * encoder.encoder_layers
    return float(kept)


def bytes_a_token(config: Qwen2AudioConfig, settings: BackboneSettings, each: int) -> float:
    """What autograd keeps of a training pass for each of its tokens, for an utterance of usual length.

    Args:
        each: bytes of a weight.
    """
    usual = Load(examples=1, scored=0, clip_seconds=3.6, text_tokens=50)
    tokens = usual.text_tokens + audio_tokens(usual.frames) + usual.answer_tokens - 1
    return activations(config, settings, usual, each) / tokens


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"


def _gigabytes(value: float) -> str:
    return f"{value / GB:.1f}" if value >= GB else f"{value / GB:.2f}"
