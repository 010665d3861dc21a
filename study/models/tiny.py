"""A small Qwen2-Audio checkpoint with random weights, in the folder layout of the real one.

With it the whole study runs on two CPU cores, through the same code that loads Qwen2-Audio-7B. Its results say nothing
about speech LLMs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import transformers
from filelock import FileLock
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
)
SHAPE = {"mel_bins": 64, "width": 48, "heads": 4, "encoder_layers": 1, "language_layers": 1, "vocabulary": 768}


def tiny_checkpoint(texts: Sequence[str], cache: Path, seed: int = 0) -> Path:
    """Return the folder of a tiny checkpoint whose tokenizer is trained on ``texts``; it is written once, to ``cache``.

    Args:
        texts: sentences for the byte-level BPE (prompt, labels, training transcripts); it can encode any other text
            too.
    """
    recipe = json.dumps([SHAPE, seed, list(texts)], sort_keys=True)
    target = cache / "backbones" / f"tiny-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
            try:
                _save(texts, temporary, seed)
                os.replace(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return target


def _save(texts: Sequence[str], folder: Path, seed: int) -> None:
    tokenizer = _tokenizer(texts)
    extractor = WhisperFeatureExtractor(feature_size=SHAPE["mel_bins"])
    processor = Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer)
    processor.chat_template = processor.default_chat_template
    audio_token = cast(int, tokenizer.convert_tokens_to_ids("<|AUDIO|>"))
    config = tiny_config(len(tokenizer), tokenizer.pad_token_id, audio_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def tiny_config(
    vocabulary: int = SHAPE["vocabulary"], pad_token: int | None = None, audio_token: int = 0
) -> Qwen2AudioConfig:
    """Return the configuration of the tiny checkpoint.

    Args:
        vocabulary: size of the tokenizer's vocabulary; it is smaller than ``SHAPE`` says if the tokenizer was trained
            on little text.
    """
    width, heads = SHAPE["width"], SHAPE["heads"]
    return Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": SHAPE["mel_bins"],
            "d_model": width,
            "encoder_layers": SHAPE["encoder_layers"],
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": 2 * width,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": SHAPE["language_layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "pad_token_id": pad_token,
            "initializer_range": 0.1,
        },
        audio_token_index=audio_token,
    )


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE["vocabulary"],
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        audio_token="<|AUDIO|>",
        extra_special_tokens=list(SPECIAL_TOKENS),
    )
