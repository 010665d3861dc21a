"""The accuracy of models that ignore their input."""

from __future__ import annotations

import pandas as pd


def chance_w_f1(emotions: pd.Series) -> float:
    """Return the best W-F1 that a model can be expected to reach without looking at its input.

    It is the larger of two: always answering the most frequent emotion, of share p, has W-F1 p · 2p / (1 + p); drawing
    answers from the label distribution has W-F1 Σ p².

    Args:
        emotions: the true label of each utterance.

    >>> round(chance_w_f1(pd.Series(["joy"] * 3 + ["anger"])), 4)  # 0.75 * 1.5 / 1.75 > 0.75 ** 2 + 0.25 ** 2
    0.6429
    >>> chance_w_f1(pd.Series(["joy", "anger", "fear", "disgust"]))  # 4 * 0.25 ** 2 > 0.25 * 0.5 / 1.25
    0.25
    """
    shares = emotions.value_counts(normalize=True)
    largest = float(shares.max())
    return max(2 * largest**2 / (1 + largest), float((shares**2).sum()))
