"""Predictions and metrics of the held-out splits of a run, computed at most once between two steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from study.evaluation.label_likelihood import held_out_batch, prediction_frame, score_examples
from study.evaluation.metrics import evaluate
from study.losses.base import GlobalBatch, signed_gaps
from study.training.run_data import RunData
from study.training.run_state import RunState

Evaluation = tuple[np.ndarray, dict[str, Any]]


@dataclass
class Evaluator:
    """Scores the splits of a run with the current weights.

    Attributes:
        model: scores batches; all workers call it together.
        batch_size: utterances of a worker in one scoring pass.
        state: gives the step and gets the seconds spent here.
    """

    model: nn.Module
    data: RunData
    device: torch.device
    batch_size: int
    state: RunState
    _cache: dict[str, tuple[int, Evaluation]] = field(default_factory=dict)

    def evaluate(self, split: str) -> Evaluation:
        """Return scores (n, 7) and metrics of a split; a second call without a step between reuses the first result."""
        step, cached = self._cache.get(split, (None, None))
        if cached is not None and step == len(self.state.steps):
            return cached
        began = time.perf_counter()
        scores = score_examples(self.model, self.data.examples[split], self.batch_size, self.device)
        result = scores, evaluate(self.predictions(split, scores))
        self._cache[split] = len(self.state.steps), result
        self.state.seconds["evaluate"] += time.perf_counter() - began
        return result

    def forget(self) -> None:
        """Drop all results; call it after weights have been changed by anything but a step."""
        self._cache.clear()

    def predictions(self, split: str, scores: np.ndarray) -> pd.DataFrame:
        """Return a split's scores (n, 7) as a table of predictions."""
        return prediction_frame(self.data.examples[split], scores, self.data.utterances)

    def global_batch(self, split: str) -> GlobalBatch:
        """Return a whole split as one batch of losses, on the CPU."""
        scores, _ = self.evaluate(split)
        answer_lengths = [len(answer) for answer in self.data.answers]
        return held_out_batch(self.data.examples[split], scores, answer_lengths, self.data.cells)

    def gaps(self, split: str, kind: str) -> list[float | None]:
        """Return the absolute gap of each cell on a split, None where it is undefined.

        Args:
            kind: "metric_gap" for the AVG gap (a fraction), "loss_gap" for the gap of the mean losses (nats).
        """
        if kind == "metric_gap":
            _, figures = self.evaluate(split)
            return [figures["cells"].get(str(cell), {}).get("gap") for cell in self.data.cells]
        gaps, present = signed_gaps(*self.global_batch(split).group_means())
        return [abs(float(gap)) if exists else None for gap, exists in zip(gaps, present, strict=True)]
