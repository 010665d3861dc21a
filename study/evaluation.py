"""Scoring a split with the seven label likelihoods, all ranks sharing the work."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from study.batching import Examples
from study.collectives import gather_rows, world
from study.metrics import labels_from_scores
from study.records import SCORE_COLUMNS


@torch.no_grad()
def score_examples(model: nn.Module, examples: Examples, batch_size: int, device: torch.device) -> np.ndarray:
    """Summed log-probabilities (n, 7) of every example, on every rank.

    Each rank scores its share, clips of like length together; the shares are equal in number of batches, since under
    ZeRO-3 every rank must take part in every forward pass.
    """
    rank, ranks = world()
    order = np.argsort(examples.lengths, kind="stable")
    own = order[rank::ranks]
    rounds = -(-len(order[::ranks]) // batch_size)
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
    return result.cpu().numpy()


def prediction_frame(examples: Examples, scores: np.ndarray, utterances: pd.DataFrame) -> pd.DataFrame:
    """Scores with what is known of each example: the columns of ``study.records`` and those of ``study.metrics``."""
    frame = utterances.iloc[examples.utterances].reset_index(drop=True)
    frame["modality"] = examples.modalities
    frame[list(SCORE_COLUMNS)] = scores
    frame["predicted"] = labels_from_scores(frame)
    return frame


def loss_gaps(examples: Examples, scores: np.ndarray, answer_lengths: list[int], n_cells: int) -> np.ndarray:
    """|L_c,F - L_c,M| (C,) in nats from scores, NaN where a gender is absent.

    The mean cross-entropy of an answer is minus its summed log-probability over its number of tokens.
    """
    losses = -scores[np.arange(len(scores)), examples.labels] / np.asarray(answer_lengths)[examples.labels]
    gaps = np.full(n_cells, np.nan)
    for cell in range(n_cells):
        female, male = losses[examples.groups == 2 * cell], losses[examples.groups == 2 * cell + 1]
        if len(female) and len(male):
            gaps[cell] = abs(female.mean() - male.mean())
    return gaps
