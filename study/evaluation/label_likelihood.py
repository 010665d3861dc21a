"""Score a split by the likelihoods of the seven labels; all workers share the examples."""

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
    """Return summed log-probabilities (n, 7) of every example, on every worker.

    Each worker scores its share, batched by length. All workers run the same number of batches, since under ZeRO-3
    every worker must take part in every forward pass.

    Raises:
        FloatingPointError: a score is NaN.
    """
    rank, num_workers = world()
    order = np.argsort(examples.lengths, kind="stable")
    own = order[rank::num_workers]
    n_batches = -(-len(order[::num_workers]) // batch_size)
    model.eval()
    scored, rows = [], []
    for i in range(n_batches):
        chosen = own[i * batch_size : (i + 1) * batch_size]
        batch = examples.collate((chosen if len(chosen) else order[:1]).tolist()).to(device)
        scores = model(batch, score=True)
        scored.append(scores[: len(chosen)])
        rows.append(batch.rows[: len(chosen)])
    model.train()
    all_scores, _ = gather_rows(torch.cat(scored))
    all_rows, _ = gather_rows(torch.cat(rows))
    result = torch.empty_like(all_scores)
    result[all_rows] = all_scores
    n_nan = int(result.isnan().any(dim=1).sum())
    if n_nan:
        raise FloatingPointError(
            f"{n_nan} of {len(result)} examples have a score that is NaN: training has diverged (lower "
            "optimisation.learning_rate or the fairness weight), or the weights of the backbone or of the adapter hold "
            "NaN (download them again)"
        )
    return result.cpu().numpy()


def prediction_frame(examples: Examples, scores: np.ndarray, utterances: pd.DataFrame) -> pd.DataFrame:
    """Return the table of predictions for scores (n, 7): the utterances' columns, the scores and ``predicted``."""
    frame = utterances.iloc[examples.utterances].reset_index(drop=True)
    frame["modality"] = examples.modalities
    frame[list(SCORE_COLUMNS)] = scores
    frame["predicted"] = labels_from_scores(frame)
    return frame


def held_out_batch(
    examples: Examples, scores: np.ndarray, answer_lengths: Sequence[int], cells: tuple[Cell, ...]
) -> GlobalBatch:
    """Return the examples as one batch of losses (n,) in nats, for the loss functions.

    The mean cross-entropy of an answer is its summed log-probability divided by minus its number of tokens.

    Args:
        scores: (n, 7) of these examples.
        answer_lengths: tokens of each label word and the end of turn.
    """
    losses = -scores[np.arange(len(scores)), examples.labels] / np.asarray(answer_lengths)[examples.labels]
    return GlobalBatch(torch.from_numpy(losses.astype(np.float32)), torch.from_numpy(examples.groups), cells)
