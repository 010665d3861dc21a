"""ERM-MinMaxGAP (arXiv 2603.21050): empirical risk plus the largest gender gap over cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from study.common.base_model import Frozen, NonNegative, Positive
from study.common.groups import Cell, Language, Modality
from study.losses.base import GlobalBatch, LossState, LossTerms, PenalisedLoss
from study.losses.gap_estimators import BatchGaps, Estimator
from study.losses.schedules import AdaptiveWeight

if TYPE_CHECKING:
    from torch import Tensor


class Coefficients(Frozen):
    """MinMaxGAP coefficients: kappa_c = language's x modality's x the cell's own, normalised to mean 1 (ours).

    ``cells`` alone gives them whole; beside the other two it holds deviations from what is shared. Missing means 1.
    """

    languages: dict[Language, NonNegative] = {}
    modalities: dict[Modality, NonNegative] = {}
    cells: dict[str, NonNegative] = {}

    def kappa(self, cells_in_use: Sequence[Cell]) -> tuple[float, ...]:
        """kappa (C,), scaled to mean 1 over the cells in use: only kappa x lambda is identified, lambda has the scale.

        >>> Coefficients(languages={"de": 3.0}).kappa((Cell("en", "speech"), Cell("de", "speech")))
        (0.5, 1.5)

        Raises:
            ValueError: all are zero.
        """
        raw = [
            self.languages.get(Language(cell.language), 1.0)
            * self.modalities.get(Modality(cell.modality), 1.0)
            * self.cells.get(str(cell), 1.0)
            for cell in cells_in_use
        ]
        mean = sum(raw) / len(raw)
        if mean == 0:
            raise ValueError("every coefficient is 0: set at least one above 0, or use method erm")
        return tuple(value / mean for value in raw)


class ErmMinMaxGap(PenalisedLoss):
    """J = L_ERM + lambda R on a whole effective batch (arXiv 2603.21050; module docstring).

    Attributes:
        power: p; 2 is the paper's, 1 its ablation.
        reduction: over cells; "max" is the paper's. "softmax" is tau log(mean_c exp(kappa_c D_c^p / tau)), between
            mean and max.
        temperature: tau in nats^p, of "softmax"; from 0.01 (nearly the max) to 1 (nearly the mean).
        coefficients: kappa.
        estimator: how gaps are estimated.

    >>> import torch
    >>> two = (Cell("en", "speech"), Cell("de", "speech"))
    >>> groups = torch.tensor([0, 1, 2, 3])                                # en F, en M, de F, de M: gaps -2.0 and -0.5
    >>> batch = GlobalBatch(torch.tensor([1.0, 3.0, 2.0, 2.5]), groups, two)
    >>> parts = ErmMinMaxGap()(batch, weights=(0.5,))
    >>> [round(float(x), 4) for x in (parts.risk, parts.penalty, parts.total)]
    [2.125, 4.0, 4.125]
    """

    method: Literal["minmaxgap"] = "minmaxgap"
    power: Literal[1, 2] = 2
    reduction: Literal["max", "mean", "sum", "softmax"] = "max"
    temperature: Positive = 0.1
    coefficients: Coefficients = Coefficients()
    estimator: Estimator = BatchGaps()

    @model_validator(mode="after")
    def _one_or_each(self) -> ErmMinMaxGap:
        weight = self.fairness_weight
        if isinstance(weight, AdaptiveWeight) and weight.per_cell and self.reduction != "max":
            raise ValueError(f"reduction {self.reduction} has no effect with a fairness weight per_cell; leave one out")
        return self

    def cell_penalties(self, gaps: Tensor, cells: Sequence[Cell]) -> Tensor:
        """kappa_c D_c^p (C,)."""
        return gaps.new_tensor(self.coefficients.kappa(cells)) * gaps.abs() ** self.power

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        gaps, present, state = self.estimator.estimate(batch, state)
        by_cell = self.cell_penalties(gaps, batch.cells).where(present, 0.0)
        if self.n_weights(len(batch.cells)) > 1:
            penalties = tuple(by_cell)
        else:
            penalties = (reduced(by_cell, present, self.reduction, self.temperature),)
        return LossTerms(batch.losses.mean(), penalties, state, (gaps.detach(), present))


def reduced(by_cell: Tensor, present: Tensor, reduction: str, temperature: float) -> Tensor:
    """R from kappa_c D_c^p (C,), over the cells present; 0 if there is none.

    The gradient of a maximum goes to the largest cell, in equal parts where several are.
    """
    count = present.sum().clamp(min=1)
    if reduction == "max":
        return by_cell.max()
    if reduction == "softmax":
        if not present.any():
            return by_cell.sum()
        logits = (by_cell / temperature).where(present, -math.inf)
        return temperature * (logits.logsumexp(0) - count.log())
    return by_cell.sum() / (count if reduction == "mean" else 1)
