"""Load a pretrained backbone, its processor or its audio encoder, and check that the checkpoint is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from study.common.errors import SettingsError
from study.config.settings import BackboneSettings

SAMPLED_BYTES = 1024**2


def refuse_absent(source: str) -> None:
    """Raises SettingsError where a backbone is named like a folder, and there is none."""
    like_a_folder = not source or source.startswith((".", "/", "~")) or source.count("/") > 1
    if like_a_folder and not os.path.isdir(source):
        raise SettingsError([f"--backbone {source}: there is no such folder"])


def load_processor(source: str) -> Qwen2AudioProcessor:
    """The processor (tokenizer, feature extractor, chat template) of a hub id or folder."""
    refuse_absent(source)
    try:
        processor = AutoProcessor.from_pretrained(source)
    except (ValueError, OSError) as error:
        raise SettingsError(
            [f"--backbone {source}: no checkpoint of Qwen2-Audio can be loaded from it ({error})"]
        ) from error
    if not isinstance(processor, Qwen2AudioProcessor):
        raise SettingsError(
            [f"--backbone {source}: holds a {type(processor).__name__}; only Qwen2-Audio can be trained"]
        )
    if len(processor.tokenizer(f"{processor.audio_token}<|im_end|>", add_special_tokens=False)["input_ids"]) != 2:
        raise SettingsError(  # without its files transformers makes an empty tokenizer
            [f"--backbone {source}: its tokenizer has no token {processor.audio_token} or <|im_end|>; copy the "
             "checkpoint's tokenizer files beside its weights"]
        )  # fmt: skip
    if processor.chat_template is None:
        processor.chat_template = processor.default_chat_template
    return processor


def backbone_hash(source: str) -> str:
    """Twelve hex digits for the weights: every file of a folder but its notes (large ones by 64 samples), or hub
    id and commit."""
    digest = hashlib.sha256()
    if not os.path.isdir(source):
        commit = getattr(AutoConfig.from_pretrained(source), "_commit_hash", None)
        return hashlib.sha256(f"{source} {commit}".encode()).hexdigest()[:12]
    for path in sorted(p for p in Path(source).iterdir() if p.is_file() and p.suffix != ".md" and p.name[0] != "."):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            if size <= 64 * SAMPLED_BYTES:
                digest.update(file.read())
            else:
                for place in range(64):
                    file.seek(place * (size - SAMPLED_BYTES) // 63)
                    digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:12]


def load_base(source: str, settings: BackboneSettings, dtype: torch.dtype) -> Qwen2AudioForConditionalGeneration:
    """The checkpoint of a hub id or folder.

    Raises:
        SettingsError: weights are missing from the checkpoint (they would be left random) or have another shape than
            its configuration says, or the attention that is asked for is not installed.
    """
    attention = {"text_config": settings.attention, "audio_config": "sdpa"}
    try:
        model, loading = Qwen2AudioForConditionalGeneration.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except ImportError as error:
        raise SettingsError([f"backbone.attention: {settings.attention} cannot be used here ({error})"]) from error
    except SafetensorError as error:
        raise SettingsError([f"--backbone {source}: its weights cannot be read ({error}); fetch them again"]) from error
    refuse_incomplete(source, loading)
    return model


def is_deterministic(source: str) -> bool:
    """Whether the tower of a checkpoint gives the same states in training as in scoring: it drops nothing."""
    config = AutoConfig.from_pretrained(source).audio_config
    return not any((config.dropout, config.attention_dropout, config.activation_dropout, config.encoder_layerdrop))


def load_audio_encoder(source: str, dtype: torch.dtype, device: torch.device) -> Qwen2AudioEncoder:
    """The tower of a hub id or folder, without the language model, ready to score.

    Raises:
        SettingsError: weights of the tower are missing from the checkpoint, do not fit it or cannot be read.
    """
    try:
        encoder, loading = Qwen2AudioEncoder.from_pretrained(
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
    return encoder.to(device).eval()


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
