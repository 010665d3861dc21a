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

SAMPLE_BYTES = 1024**2
SAMPLES = 64


def require_folder(source: str) -> None:
    """Raise SettingsError if a backbone is written like a folder that does not exist."""
    like_a_folder = not source or source.startswith((".", "/", "~")) or source.count("/") > 1
    if like_a_folder and not os.path.isdir(source):
        raise SettingsError([f"--backbone {source}: there is no such folder"])


def load_processor(source: str) -> Qwen2AudioProcessor:
    """Return the processor (tokenizer, feature extractor, chat template) of a hub id or folder.

    Raises:
        SettingsError: there is no processor of Qwen2-Audio, or its tokenizer is incomplete.
    """
    require_folder(source)
    try:
        processor = AutoProcessor.from_pretrained(source)
    except (ValueError, OSError) as error:
        raise SettingsError(
            [f"--backbone {source}: no Qwen2-Audio checkpoint can be loaded from it ({error})"]
        ) from error
    if not isinstance(processor, Qwen2AudioProcessor):
        raise SettingsError(
            [f"--backbone {source}: holds a {type(processor).__name__}; only Qwen2-Audio can be trained"]
        )
    # transformers makes an empty tokenizer if the files of the tokenizer are missing
    if len(processor.tokenizer(f"{processor.audio_token}<|im_end|>", add_special_tokens=False)["input_ids"]) != 2:
        raise SettingsError(
            [
                f"--backbone {source}: its tokenizer has no token {processor.audio_token} or <|im_end|>; copy the "
                "checkpoint's tokenizer files beside its weights"
            ]
        )
    if processor.chat_template is None:
        processor.chat_template = processor.default_chat_template
    return processor


def backbone_hash(source: str) -> str:
    """Return twelve hex digits that identify the weights.

    For a folder, they hash all files except notes and hidden files, large ones by 64 samples; for a hub id, the id and
    its commit.
    """
    digest = hashlib.sha256()
    if not os.path.isdir(source):
        commit = getattr(AutoConfig.from_pretrained(source), "_commit_hash", None)
        return hashlib.sha256(f"{source} {commit}".encode()).hexdigest()[:12]
    for path in sorted(p for p in Path(source).iterdir() if p.is_file() and p.suffix != ".md" and p.name[0] != "."):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            if size <= SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
            else:
                for i in range(SAMPLES):
                    file.seek(i * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def load_base(source: str, settings: BackboneSettings, dtype: torch.dtype) -> Qwen2AudioForConditionalGeneration:
    """Return the model of a hub id or folder.

    Raises:
        SettingsError: weights are missing from the checkpoint, cannot be read or have another shape than its
            configuration says, or the chosen attention is not installed.
    """
    attention = {"text_config": settings.attention, "audio_config": "sdpa"}
    try:
        loaded: Any = Qwen2AudioForConditionalGeneration.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
        )
    except ImportError as error:
        raise SettingsError([f"backbone.attention: {settings.attention} cannot be used here ({error})"]) from error
    except SafetensorError as error:
        raise SettingsError([_unreadable(source, error)]) from error
    model, loading = loaded
    require_complete(source, loading)
    return model


def is_deterministic(source: str) -> bool:
    """Return whether the audio encoder of a checkpoint gives the same states in training as in scoring (no dropout)."""
    config = AutoConfig.from_pretrained(source).audio_config
    return not any((config.dropout, config.attention_dropout, config.activation_dropout, config.encoder_layerdrop))


def load_audio_encoder(source: str, dtype: torch.dtype, device: torch.device) -> Qwen2AudioEncoder:
    """Return the audio encoder of a hub id or folder in evaluation mode, without loading the language model.

    Raises:
        SettingsError: weights of the encoder are missing from the checkpoint, have another shape or cannot be read.
    """
    try:
        loaded: Any = Qwen2AudioEncoder.from_pretrained(
            source,
            config=AutoConfig.from_pretrained(source).audio_config,
            dtype=dtype,
            attn_implementation="sdpa",
            key_mapping={r"^(model\.)?audio_tower\.": ""},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
        )
    except SafetensorError as error:
        raise SettingsError([_unreadable(source, error)]) from error
    encoder, loading = loaded
    require_complete(source, loading)
    return encoder.to(device).eval()


def require_complete(source: str, loading: Mapping[str, Any]) -> None:
    """Raise SettingsError if weights would stay random because the checkpoint lacks them or has other shapes.

    Args:
        loading: the loading information of ``from_pretrained``: ``missing_keys`` and ``mismatched_keys``.
    """
    if loading["missing_keys"]:
        raise SettingsError([f"--backbone {source}: the checkpoint lacks {sorted(loading['missing_keys'])[:5]}"])
    if loading["mismatched_keys"]:
        shapes = [
            f"{name} ({tuple(actual)}, not {tuple(expected)})" for name, actual, expected in loading["mismatched_keys"]
        ]
        raise SettingsError(
            [f"--backbone {source}: weights that do not fit its config.json: {', '.join(sorted(shapes)[:5])}"]
        )


def _unreadable(source: str, error: Exception) -> str:
    return f"--backbone {source}: its weights cannot be read ({error}); download them again"
