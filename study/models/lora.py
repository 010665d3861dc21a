"""LoRA on a backbone's language model, and the frozen base model that a process caches for its next run."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen2AudioForConditionalGeneration

from study.config.settings import BackboneSettings
from study.models.pretrained import load_base

LORA_TARGETS = {
    "attention": "q_proj|k_proj|v_proj|o_proj",
    "all": "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj",
}

BaseModelKey = tuple[str, str, torch.dtype]
_cached_base_models: dict[BaseModelKey, Qwen2AudioForConditionalGeneration] = {}
"""At most one frozen base model: loading a 7B model can take longer than an epoch."""


def lora_pattern(settings: BackboneSettings) -> str:
    """Return a pattern of the modules that get LoRA matrices.

    It is anchored on the language model, since bare suffixes such as ``q_proj`` also match the audio encoder.
    """
    return rf".*language_model\.layers\.\d+\..*\.({LORA_TARGETS[settings.lora_targets]})"


def load_model(source: str, settings: BackboneSettings, dtype: torch.dtype) -> PeftModel:
    """Return a backbone with new LoRA matrices, ready to be trained, on the cached base model if it is the same.

    Args:
        source: a hub id or a folder.

    Raises:
        SettingsError: as in ``load_base``.
    """
    base = _cached_base_models.pop(_key(source, settings, dtype), None)
    _cached_base_models.clear()
    return with_lora(load_base(source, settings, dtype) if base is None else base, settings)


def with_lora(model: Qwen2AudioForConditionalGeneration, settings: BackboneSettings) -> PeftModel:
    """Add LoRA matrices to the language model. Only they, and the modules in ``settings.trainable``, get gradients."""
    lora = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # PEFT computes with it as a float
        lora_dropout=settings.lora_dropout,
        target_modules=lora_pattern(settings),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, lora)
    for part in settings.trainable:
        module = model.model.audio_tower if part == "audio_encoder" else model.model.multi_modal_projector
        module.requires_grad_(True)
    model.model.audio_tower.embed_positions.requires_grad_(False)
    return peft_model


def cache_base_model(peft_model: PeftModel, source: str, settings: BackboneSettings, dtype: torch.dtype) -> None:
    """Cache the base model without its LoRA matrices, unless its own weights were trained too.

    Do not call it under ZeRO-3, which shards the weights.
    """
    if not settings.trainable:
        _cached_base_models[_key(source, settings, dtype)] = peft_model.unload()


def _key(source: str, settings: BackboneSettings, dtype: torch.dtype) -> BaseModelKey:
    return source, settings.attention, dtype
