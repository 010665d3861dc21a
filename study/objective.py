"""ERM-MinMaxGAP: empirical risk plus the largest gender gap over cells, under a fairness weight.

After *ERM-MinMaxGAP* (arXiv 2603.21050). Stated there: cross-entropy ERM, the penalty (max over languages of the
male-female loss gap)^p with p = 2, a weight moved by development gaps. Ours, since the full paper was not available
to us: cells may also be (language, modality) pairs, and every cell has a coefficient kappa_c (1 in the paper)::

    L_ERM = (1/N) sum_i l_i                       l_i: mean cross-entropy over the answer tokens of i, in nats
    L_c,g = mean of l_i over cell c and gender g
    D_c   = | L_c,F - L_c,M |                     a cell without both genders has no gap
    R     = max_c kappa_c D_c^p
    J     = L_ERM + lambda R

Everything here is a pure function of the losses of one *whole* effective batch. A maximum over group gaps is not the
mean of the maxima of its parts, so ranks and micro-batches must not call it on their own shares: see
``study.collectives``, which gathers the losses, asks for dJ/dl_i here and back-propagates sum_i (dJ/dl_i) l_i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class ObjectiveParts(NamedTuple):
    """The total and what it is made of.

    Attributes:
        total: J, scalar, nats.
        risk: L_ERM, scalar, nats.
        penalty: R, scalar, nats^p, before the fairness weight.
        signed_gaps: (C,) L_c,F - L_c,M in nats; 0 where absent.
        present: (C,) bool, the cells in which both genders occur.
    """

    total: Tensor
    risk: Tensor
    penalty: Tensor
    signed_gaps: Tensor
    present: Tensor


ObjectiveFunction = Callable[[Tensor, Tensor, float], ObjectiveParts]
"""(losses (N,) float32 nats, group ids (N,) int64, fairness weight) -> ObjectiveParts."""


def group_means(losses: Tensor, groups: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
    """Mean loss and number of utterances of every (cell, gender).

    Args:
        losses: (N,) nats.
        groups: (N,) int64, ``2 * cell + gender``; -1 (gender unknown) is left out.
        n_cells: C.

    Returns:
        means (C, 2) in nats, 0 where a group is empty, and counts (C, 2); column 0 is female.
    """
    known = groups >= 0
    index = groups.clamp(min=0)
    weight = known.to(losses.dtype)
    counts = losses.new_zeros(2 * n_cells).index_add(0, index, weight)
    sums = losses.new_zeros(2 * n_cells).index_add(0, index, losses * weight)
    return (sums / counts.clamp(min=1)).view(n_cells, 2), counts.view(n_cells, 2)


def signed_gaps(means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """L_c,F - L_c,M (C,) in nats, 0 where a gender is absent, and the mask (C,) of cells that have both."""
    present = (counts > 0).all(dim=1)
    return torch.where(present, means[:, 0] - means[:, 1], 0.0), present


def min_max_gap(gaps: Tensor, present: Tensor, coefficients: Tensor, power: int) -> Tensor:
    """R = max_c kappa_c |D_c|^p over the cells present, 0 if there is none.

    Args:
        gaps: (C,) signed, nats.  present: (C,) bool.  coefficients: kappa (C,), >= 0.  power: p, 1 or 2.

    The gradient goes to one cell, the first of the largest; at D_c = 0 it is 0.
    """
    scores = torch.where(present, coefficients * gaps.abs() ** power, 0.0)
    return scores.max()


@dataclass(frozen=True)
class ErmMinMaxGap:
    """J = L_ERM + lambda R on a whole effective batch (arXiv 2603.21050; cells and kappa are ours).

    Attributes:
        coefficients: kappa_c, one a cell, mean 1.
        power: p; 2 is the paper's, 1 its ablation.

    Sane fairness weights lie between 0 and about 1 at p = 2; the paper reports that a fixed 5 or 10 collapses accuracy.

    >>> losses = torch.tensor([1.0, 3.0, 2.0, 2.5])
    >>> groups = torch.tensor([0, 1, 2, 3])                      # two cells, F and M in each
    >>> parts = ErmMinMaxGap(coefficients=(1.0, 1.0), power=2)(losses, groups, 0.5)
    >>> [round(float(x), 4) for x in (parts.risk, parts.penalty, parts.total)]     # max(2.0, 0.5)^2 = 4
    [2.125, 4.0, 4.125]
    """

    coefficients: tuple[float, ...]
    power: int = 2

    def __call__(self, losses: Tensor, groups: Tensor, fairness_weight: float) -> ObjectiveParts:
        """Args: losses (N,) nats; groups (N,) int64; fairness_weight lambda >= 0. Returns: the parts of J."""
        means, counts = group_means(losses, groups, len(self.coefficients))
        gaps, present = signed_gaps(means, counts)
        penalty = min_max_gap(gaps, present, losses.new_tensor(self.coefficients), self.power)
        risk = losses.mean()
        # At weight 0 the penalty must not even carry a gradient of 0 * inf.
        total = risk + fairness_weight * penalty if fairness_weight else risk
        return ObjectiveParts(total, risk, penalty, gaps, present)


def utterance_weights(
    objective: ObjectiveFunction, losses: Tensor, groups: Tensor, fairness_weight: float
) -> tuple[Tensor, ObjectiveParts]:
    """w_i = dJ/dl_i on the whole batch, so that sum_i w_i l_i has the gradient of J.

    For ERM-MinMaxGAP, w_i = 1/N + lambda kappa_c p D_c^(p-1) (+s_c for a woman, -s_c for a man) / n_c,g on the active
    cell c with s_c the sign of its gap, and 1/N elsewhere: the better group's weight can turn negative.

    Args:
        losses: (N,) nats; detached here.

    Returns:
        weights (N,), and the detached parts.
    """
    with torch.enable_grad():
        leaf = losses.detach().requires_grad_()
        parts = objective(leaf, groups, fairness_weight)
        (weights,) = torch.autograd.grad(parts.total, leaf)
    return weights, ObjectiveParts(*(part.detach() for part in parts))
