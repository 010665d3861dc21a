"""LoRA on a backbone's language model."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Qwen2AudioForConditionalGeneration

from study.config.settings import BackboneSettings
from study.models.pretrained import load_base

LORA_TARGETS = {
    "attention": "q_proj|k_proj|v_proj|o_proj",
    "all": "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj",
}


def lora_pattern(settings: BackboneSettings) -> str:
    """Which modules get LoRA matrices. Anchored on the language model: bare suffixes would also hit the audio tower."""
    return rf".*language_model\.layers\.\d+\..*\.({LORA_TARGETS[settings.lora_targets]})"


def load_model(source: str, settings: BackboneSettings, dtype: torch.dtype) -> nn.Module:
    """The backbone of a hub id or folder, ready to be trained.

    Raises:
        SettingsError: as in ``load_base``.
    """
    return with_lora(load_base(source, settings, dtype), settings)


def with_lora(model: Qwen2AudioForConditionalGeneration, settings: BackboneSettings) -> nn.Module:
    """LoRA matrices on the language model; only those, and ``settings.trainable``, take gradients."""
    lora = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
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
