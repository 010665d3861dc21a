"""ERM-MinMaxGAP: empirical risk plus the largest gender gap over cells, under a fairness weight.

After *ERM-MinMaxGAP* (arXiv 2603.21050). Stated there: cross-entropy ERM, the penalty (max over languages of the
male-female loss gap)^p with p = 2, a fairness weight moved by development gaps. Ours, since the full paper was not
available to us: cells may also be (language, modality) pairs, every cell has a coefficient kappa_c (1 in the paper),
    and
what is marked as ours in ``study.losses``::

    L_ERM = (1/N) sum_i l_i                       l_i: mean cross-entropy over the answer tokens of i, in nats
    L_c,g = mean of l_i over cell c and gender g
    D_c   = | L_c,F - L_c,M |                     a cell without both genders has no gap
    R     = max_c kappa_c D_c^p
    J     = L_ERM + lambda R                      or L_ERM + sum_c lambda_c kappa_c D_c^p, with one weight per cell
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from study.common.base_model import Frozen, NonNegative, Positive
from study.common.groups import Cell, Language, Modality
from study.losses.base import GlobalBatch, LossState, LossTerms, PenalisedLoss
from study.losses.gap_estimators import BatchGaps, GapEstimator
from study.losses.schedules import AdaptiveWeight

if TYPE_CHECKING:
    from torch import Tensor


class Coefficients(Frozen):
    """MinMaxGAP coefficients: kappa_c = language's x modality's x the cell's own, normalised to mean 1 (ours).

    A missing coefficient is 1. ``cells`` alone gives every kappa_c; beside the other two it holds deviations from them.
    """

    languages: dict[Language, NonNegative] = {}
    modalities: dict[Modality, NonNegative] = {}
    cells: dict[str, NonNegative] = {}

    def kappa(self, cells_in_use: Sequence[Cell]) -> tuple[float, ...]:
        """Return kappa (C,), scaled to mean 1 over the cells in use, since only kappa x lambda is identified.

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
    """J = L_ERM + lambda R (arXiv 2603.21050; equations in the module docstring).

    Attributes:
        power: p; 2 is the paper's, 1 its ablation.
        reduction: over cells; "max" is the paper's. "softmax" is tau log(mean_c exp(kappa_c D_c^p / tau)), between
            mean and max.
        temperature: tau of "softmax" in nats^p; from 0.01 (nearly the max) to 1 (nearly the mean).
        coefficients: kappa.
        estimator: how gaps are estimated.

    >>> import torch
    >>> two = (Cell("en", "speech"), Cell("de", "speech"))
    >>> groups = torch.tensor([0, 1, 2, 3])                                # en F, en M, de F, de M: gaps -2.0 and -0.5
    >>> batch = GlobalBatch(torch.tensor([1.0, 3.0, 2.0, 2.5]), groups, two)
    >>> value = ErmMinMaxGap()(batch, fairness_weights=(0.5,))
    >>> [round(float(x), 4) for x in (value.risk, value.penalty, value.total)]
    [2.125, 4.0, 4.125]
    """

    method: Literal["minmaxgap"] = "minmaxgap"
    power: Literal[1, 2] = 2
    reduction: Literal["max", "mean", "sum", "softmax"] = "max"
    temperature: Positive = 0.1
    coefficients: Coefficients = Coefficients()
    estimator: GapEstimator = BatchGaps()

    @model_validator(mode="after")
    def _check_reduction(self) -> ErmMinMaxGap:
        weight = self.fairness_weight
        if isinstance(weight, AdaptiveWeight) and weight.per_cell and self.reduction != "max":
            raise ValueError(
                f"reduction {self.reduction} has no effect with fairness_weight.per_cell; remove one of the two"
            )
        return self

    def penalty_by_cell(self, gaps: Tensor, cells: Sequence[Cell]) -> Tensor:
        """Return kappa_c D_c^p (C,)."""
        return gaps.new_tensor(self.coefficients.kappa(cells)) * gaps.abs() ** self.power

    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        gaps, present, state = self.estimator.estimate(batch, state)
        by_cell = self.penalty_by_cell(gaps, batch.cells).where(present, 0.0)
        if self.n_fairness_weights(len(batch.cells)) > 1:
            penalties = tuple(by_cell)
        else:
            penalties = (reduce_cells(by_cell, present, self.reduction, self.temperature),)
        return LossTerms(batch.losses.mean(), penalties, state, (gaps.detach(), present))


def reduce_cells(by_cell: Tensor, present: Tensor, reduction: str, temperature: float) -> Tensor:
    """Return R, scalar, from kappa_c D_c^p (C,) over the cells that have a gap; 0 if there is none.

    The gradient of a maximum goes to the largest cell, in equal parts if there are several.
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
