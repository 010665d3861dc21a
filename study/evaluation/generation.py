"""Free answers: greedy decoding of a few tokens.

The likelihood of the seven labels (``EmotionModel.scores``) always names an emotion. A generated answer, which is what
a user of the model reads, can be anything. An answer that does not name one emotion is "invalid" and counts as wrong
(``study.evaluation.metrics``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedTokenizerBase

from study.data.examples import Batch, Examples
from study.evaluation.answer_parser import emotion_of
from study.models.qwen2_audio import EmotionModel

MAX_TOKENS = 16  # of an answer; a label word and the end of turn have two to six


@torch.no_grad()
def generate(model: EmotionModel, batch: Batch, end: int, max_tokens: int = MAX_TOKENS) -> list[list[int]]:
    """Decode an answer to every prompt greedily, with the result of the stock ``generate(do_sample=False)``.

    Prompts are padded on the left, so that all answers begin at the same position. The audio encoder runs on the true
    length of the clips.

    Args:
        end: the id of the end-of-turn token, which ends an answer.
        max_tokens: the most tokens of an answer.

    Returns:
        B lists of token ids, without ``end``.
    """
    base = model.backbone
    language_model = base.model.language_model
    size, width = batch.input_ids.shape
    device = batch.input_ids.device
    steps = torch.arange(width, device=device)
    # from right-padded (B, T) to left-padded: roll every row by its padding
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
    """Return the model's answer to every example, as text, in the order of the examples."""
    end = cast(int, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    order = np.argsort(examples.lengths, kind="stable")
    answers = [""] * len(examples)
    model.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = generate(model, examples.collate(rows.tolist()).to(device), end)
        for row, text in zip(rows, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
            answers[row] = text
    return answers


def answer_frame(
    examples: Examples, answers: Sequence[str], labels: Sequence[str], utterances: pd.DataFrame
) -> pd.DataFrame:
    """Return the table of predictions for free answers: the utterances' columns, ``answer`` and ``predicted``.

    Args:
        answers: one per example.
        labels: the label word of each emotion, in the order of ``EMOTIONS``.
        utterances: the corpus's table, with a row for each utterance.
    """
    frame = utterances.iloc[examples.utterances].reset_index(drop=True)
    return frame.assign(
        modality=examples.modalities, answer=list(answers), predicted=[emotion_of(a, labels) for a in answers]
    )
