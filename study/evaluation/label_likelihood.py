"""Scoring a split with the seven label likelihoods, all ranks sharing the work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from study.common.distributed import gather_rows, world
from study.common.groups import SCORE_COLUMNS, Cell
from study.data.examples import Examples
from study.evaluation.metrics import labels_from_scores
from study.losses.base import GlobalBatch


@torch.no_grad()
def score_examples(model: nn.Module, examples: Examples, batch_size: int, device: torch.device) -> np.ndarray:
    """Summed log-probabilities (n, 7) of every example, on every rank.

    Each rank scores its share, clips of like length together; the shares are equal in number of batches, since under
    ZeRO-3 every rank must take part in every forward pass.

    Raises:
        FloatingPointError: a score is not a number.
    """
    rank, num_workers = world()
    order = np.argsort(examples.lengths, kind="stable")
    own = order[rank::num_workers]
    rounds = -(-len(order[::num_workers]) // batch_size)
    model.eval()
    scored, rows = [], []
    for i in range(rounds):
        chosen = own[i * batch_size : (i + 1) * batch_size]
        batch = examples.collate(chosen if len(chosen) else order[:1]).to(device)
        scores = model(batch, score=True)
        scored.append(scores[: len(chosen)])
        rows.append(batch.rows[: len(chosen)])
    model.train()
    all_scores, _ = gather_rows(torch.cat(scored))
    all_rows, _ = gather_rows(torch.cat(rows))
    result = torch.empty_like(all_scores)
    result[all_rows] = all_scores
    broken = int(result.isnan().any(dim=1).sum())
    if broken:
        raise FloatingPointError(
            f"{broken} of {len(result)} examples have a score that is not a number: training has diverged (lower "
            "optimisation.learning_rate or the fairness weight), or the weights of the backbone or of the adapter hold "
            "such values (fetch them again)"
        )
    return result.cpu().numpy()


def prediction_frame(examples: Examples, scores: np.ndarray, utterances: pd.DataFrame) -> pd.DataFrame:
    """Scores with what is known of each example: the columns of the records and of the metrics."""
    frame = utterances.iloc[examples.utterances].reset_index(drop=True)
    frame["modality"] = examples.modalities
    frame[list(SCORE_COLUMNS)] = scores
    frame["predicted"] = labels_from_scores(frame)
    return frame


def held_out_batch(
    examples: Examples, scores: np.ndarray, answer_lengths: Sequence[int], cells: tuple[Cell, ...]
) -> GlobalBatch:
    """The examples as one batch with losses (n,) in nats.

    The mean cross-entropy of an answer is minus its summed log-probability over its number of tokens.

    Args:
        scores: (n, 7) of these examples.
        answer_lengths: tokens of each label word, end of turn included.
    """
    losses = -scores[np.arange(len(scores)), examples.labels] / np.asarray(answer_lengths)[examples.labels]
    return GlobalBatch(torch.from_numpy(losses.astype(np.float32)), torch.from_numpy(examples.groups), cells)
