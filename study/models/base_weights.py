"""The frozen base of the last run, kept in the process for the next one: loading a 7B takes longer than many an epoch.

Only weights that no run has changed are kept: those of a base with a trained tower or projector, or one that ZeRO-3
has cut up, are loaded again.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from transformers import Qwen2AudioForConditionalGeneration

from study.config.settings import BackboneSettings
from study.models.lora import with_lora
from study.models.pretrained import load_base

_kept: dict[tuple, Qwen2AudioForConditionalGeneration] = {}


def borrow(source: str, settings: BackboneSettings, dtype: torch.dtype) -> PeftModel:
    """The backbone with new LoRA matrices, on the base that ``give_back`` kept if it is the same."""
    base = _kept.pop(_key(source, settings, dtype), None)
    _kept.clear()
    return with_lora(load_base(source, settings, dtype) if base is None else base, settings)


def give_back(peft_model: PeftModel, source: str, settings: BackboneSettings, dtype: torch.dtype) -> None:
    """Keep the base without its LoRA matrices, unless more than these was trained."""
    if not settings.trainable:
        _kept[_key(source, settings, dtype)] = peft_model.unload()


def _key(source: str, settings: BackboneSettings, dtype: torch.dtype) -> tuple:
    return source, settings.attention, dtype
