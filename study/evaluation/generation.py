"""Free answers: greedy decoding of a few tokens, and the emotion that an answer names, if it names one.

The likelihood of the seven labels (``EmotionModel.scores``) always names an emotion; what a user of the model reads is
what it generates, which can be anything. Answers that name none are "invalid" and count as wrong
(``study.evaluation.metrics``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from study.common.groups import EMOTIONS
from study.data.corpora.label_maps import EMOTION_WORDS, comparable
from study.data.examples import Batch, Examples
from study.evaluation.metrics import INVALID
from study.models.qwen2_audio import EmotionModel

MAX_TOKENS = 16  # of an answer; a label word with its end of turn has two to six


@torch.no_grad()
def generate(model: EmotionModel, batch: Batch, end: int, max_tokens: int = MAX_TOKENS) -> list[list[int]]:
    """The most likely next token, again and again, of every prompt; what stock ``generate(do_sample=False)`` gives.

    Prompts are moved to the right end of their row, so that all answers begin at the same place; the clips go through
    the tower on their true length.

    Args:
        end: the end-of-turn token, at which an answer stops.
        max_tokens: at most so many.

    Returns:
        B lists of token ids, without ``end``.
    """
    base = model.peft_model.get_base_model()
    language_model: nn.Module = base.model.language_model
    size, width = batch.input_ids.shape
    device = batch.input_ids.device
    steps = torch.arange(width, device=device)
    # (B, T) right-padded to left-padded: every row is rolled by its padding
    shifted = (steps - (width - batch.prompt_lengths)[:, None]) % width
    ids = batch.input_ids.gather(1, shifted)
    mask = (steps >= (width - batch.prompt_lengths)[:, None]).long()
    embedded, position = model.prompt_embeddings(ids, batch), (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=language_model.config)
    answers: list[Tensor] = []
    ended = torch.zeros(size, dtype=torch.bool, device=device)
    while len(answers) < max_tokens and not bool(ended.all()):
        hidden = language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        token = base.lm_head(hidden[:, -1]).argmax(-1)  # (B,)
        token = token.masked_fill(ended, end)
        ended = ended | (token == end)
        answers.append(token)
        embedded = language_model.embed_tokens(token[:, None])
        mask = nn.functional.pad(mask, (0, 1), value=1)
        position = position[:, -1:] + 1
    rows = torch.stack(answers, dim=1).tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


def generate_answers(
    model: EmotionModel, examples: Examples, tokenizer: PreTrainedTokenizerBase, batch_size: int, device: torch.device
) -> list[str]:
    """What the model answers about every example, in their order, as text; clips of like length go together."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    order = np.argsort(examples.lengths, kind="stable")
    answers = [""] * len(examples)
    model.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = generate(model, examples.collate(rows).to(device), end)
        for row, text in zip(rows, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
            answers[row] = text
    return answers


def emotion_of(answer: str, labels: Sequence[str]) -> str:
    """The emotion that an answer names, by its label word or another usual one ("sad", "wütend").

    "invalid" where it names none, or several, since what is meant is then a guess; a negation is not understood. Case
    does not matter. A word in letters that have cases must stand alone; Japanese does not space its words. Where two
    words begin at the same place the longer one counts.

    Args:
        labels: a word each emotion, in the order of ``EMOTIONS``.

    >>> words = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
    >>> [emotion_of(text, words) for text in ("Joy", "She sounds angry.", "It is anger, or fear.", "They enjoy it")]
    ['joy', 'anger', 'invalid', 'invalid']
    """
    words, pattern = _emotion_words(tuple(labels))
    named = {words[match[0]] for match in pattern.finditer(comparable(answer))}
    return named.pop() if len(named) == 1 else INVALID


@cache
def _emotion_words(labels: tuple[str, ...]) -> tuple[dict[str, str], re.Pattern[str]]:
    """The emotion of each word, and the pattern that finds them, longer ones first."""
    words = EMOTION_WORDS | {
        comparable(label.strip()): emotion for emotion, label in zip(EMOTIONS, labels, strict=True)
    }
    alone = (
        "".join(
            (
                r"\b" if word[0].upper() != word[0].lower() else "",
                re.escape(word),
                r"\b" if word[-1].upper() != word[-1].lower() else "",
            )
        )
        for word in sorted(words, key=len, reverse=True)
    )
    return words, re.compile("|".join(alone))


def answer_frame(
    examples: Examples, answers: Sequence[str], labels: Sequence[str], utterances: pd.DataFrame
) -> pd.DataFrame:
    """Answers with what is known of each example: ``answer``, ``predicted`` and the metrics' columns."""
    frame = utterances.iloc[examples.utterances].reset_index(drop=True)
    return frame.assign(
        modality=examples.modalities, answer=list(answers), predicted=[emotion_of(a, labels) for a in answers]
    )
