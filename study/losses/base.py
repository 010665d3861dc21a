"""ERM-MinMaxGAP: empirical risk plus the largest gender gap over cells, under a fairness weight.

After *ERM-MinMaxGAP* (arXiv 2603.21050). Stated there: cross-entropy ERM, the penalty (max over languages of the
male-female loss gap)^p with p = 2, a weight moved by development gaps. Ours, since the full paper was not available
to us: cells may also be (language, modality) pairs, every cell has a coefficient kappa_c (1 in the paper), and what is
marked as ours below::

    L_ERM = (1/N) sum_i l_i                       l_i: mean cross-entropy over the answer tokens of i, in nats
    L_c,g = mean of l_i over cell c and gender g
    D_c   = | L_c,F - L_c,M |                     a cell without both genders has no gap
    R     = max_c kappa_c D_c^p
    J     = L_ERM + lambda R                      or L_ERM + sum_c lambda_c kappa_c D_c^p, a multiplier a cell

Everything here is a pure function of one *whole* effective batch. A maximum over group gaps is not the mean of the
maxima of its parts, so ranks and micro-batches must not call it on their own shares: the trainer gathers the losses
(``study.common.distributed``), asks for w_i = dJ/dl_i here and back-propagates its share of sum_i w_i l_i.

An objective is its settings and its arithmetic in one class; ``study.losses.baselines`` has those that this one is
compared with. Only methods of tensors are called, so that reading a plan does not cost an import of torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from study.common.base_model import Frozen
from study.common.groups import Cell
from study.losses.schedules import AdaptiveWeight, FairnessWeight

if TYPE_CHECKING:
    from torch import Tensor

Sampling = Literal["natural", "balanced", "weighted"]
LossState = Mapping[str, "Tensor"]
"""What an objective carries from step to step; part of a checkpoint."""


class GlobalBatch(NamedTuple):
    """The outcome of one whole effective batch.

    Attributes:
        losses: (N,) float32, nats.
        groups: (N,) int64, ``2 * cell + gender``; -1 where the gender is unknown.
        cells: the C cells in use.
        states: (N, D) mean hidden state over the answer tokens; only for an objective that ``uses_states``.
    """

    losses: Tensor
    groups: Tensor
    cells: tuple[Cell, ...]
    states: Tensor | None = None

    def group_means(self) -> tuple[Tensor, Tensor]:
        """Mean loss (2C,) in nats of every group, 0 where it is empty, and its number of utterances (2C,)."""
        known = (self.groups >= 0).to(self.losses.dtype)
        index = self.groups.clamp(min=0)
        zeros = self.losses.new_zeros(2 * len(self.cells))
        counts = zeros.index_add(0, index, known)
        return zeros.index_add(0, index, self.losses * known) / counts.clamp(min=1), counts

    def unknown_risk(self) -> tuple[Tensor, Tensor]:
        """(1/N) sum of l_i over the utterances of unknown gender, and the share of the others; both scalar."""
        unknown = (self.groups < 0).to(self.losses.dtype)
        return (self.losses * unknown).mean(), 1.0 - unknown.mean()


class LossTerms(NamedTuple):
    """What an objective returns of itself.

    Attributes:
        risk: scalar, nats.
        penalties: one scalar for each fairness weight.
        memory: to be given back at the next step.
        gaps: (C,) signed gaps that the penalty used, nats, and (C,) bool, which of them exist; None for the batch's.
    """

    risk: Tensor
    penalties: tuple[Tensor, ...] = ()
    state: LossState = {}
    gaps: tuple[Tensor, Tensor] | None = None


class LossParts(NamedTuple):
    """The total and what it is made of.

    Attributes:
        total: J, scalar, nats.
        risk: scalar, nats.
        penalty: scalar, before the fairness weight (the sum over cells where each has its own).
        signed_gaps: (C,) L_c,F - L_c,M in nats, as estimated; 0 where absent.
        present: (C,) bool, the cells that have one.
        active: index of the cell that counts most, -1 if none has a gap; scalar.
        memory: to be given back at the next step.
    """

    total: Tensor
    risk: Tensor
    penalty: Tensor
    signed_gaps: Tensor
    present: Tensor
    active: Tensor
    state: LossState


def signed_gaps(means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """L_c,F - L_c,M (C,) in nats, 0 where a gender is absent, and the mask (C,) of cells that have both.

    Args:
        means, counts: (2C,) from ``WholeBatch.group_means``.
    """
    by_cell = means.view(-1, 2)
    present = (counts.view(-1, 2) > 0).all(dim=1)
    return (by_cell[:, 0] - by_cell[:, 1]).where(present, 0.0), present


class Loss(Frozen):
    """What a run minimises: J = risk + sum_j lambda_j penalty_j, over whole batches.

    Attributes:
        sampling: how batches are drawn: each utterance once an epoch ("natural"); the same number of every group in
            each batch ("balanced"); or independently, every group with the same probability ("weighted"). None takes
            the method's own.
    """

    sampling: Sampling | None = None

    own_sampling: ClassVar[Sampling] = "balanced"
    uses_hidden_states: ClassVar[bool] = False

    def sampled(self) -> Sampling:
        return self.sampling or self.own_sampling

    @abstractmethod
    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        """The method: a new one is a subclass with this function."""

    def cell_penalties(self, gaps: Tensor, cells: Sequence[Cell]) -> Tensor:
        """How much each cell counts (C,), from its signed gap: |D_c| unless the method says otherwise."""
        return gaps.abs()

    def __call__(self, batch: GlobalBatch, weights: Sequence[float] = (), state: LossState | None = None) -> LossParts:
        """J and its parts.

        Args:
            weights: lambda, as many as the objective has penalties.
            memory: what the last step returned; None or empty at the first.
        """
        terms = self.terms(batch, state or {})
        total = terms.risk
        for weight, penalty in zip(weights, terms.penalties, strict=True):
            if weight:  # at weight 0 a penalty must not even carry a gradient of 0 * inf
                total = total + weight * penalty
        gaps, present = terms.gaps or signed_gaps(*batch.group_means())
        most = self.cell_penalties(gaps, batch.cells).where(present, -1.0).argmax()
        active = most.where(present.any(), -1)
        penalty = sum(terms.penalties, total.new_zeros(()))
        return LossParts(total, terms.risk, penalty, gaps, present, active, terms.state)


class PenalisedLoss(Loss):
    """An objective with a penalty under a fairness weight.

    Attributes:
        fairness_updates_per_epoch: how often held-out gaps are measured that move an adaptive weight or that an
        estimator uses. min_sample_weight: smallest N w_i of an utterance (ours). None is the paper's form, in which the
        better group can
            get negative weights and is then *unlearned*; 0 forbids that: only the worse group is pushed. The weights
            then sum to more than 1, so that a large fairness weight also enlarges the gradient before it is clipped.
    """

    fairness_weight: FairnessWeight = AdaptiveWeight()
    fairness_updates_per_epoch: Annotated[int, Field(ge=1)] = 1
    min_sample_weight: Annotated[float, Field(le=1.0, allow_inf_nan=False)] | None = None

    def n_weights(self, n_cells: int) -> int:
        """How many fairness weights there are."""
        return n_cells if isinstance(self.fairness_weight, AdaptiveWeight) and self.fairness_weight.per_cell else 1


class UtteranceWeights(NamedTuple):
    """dJ/dl_i (N,), and dJ/dh_i (N, D) for an objective that uses states."""

    losses: Tensor
    states: Tensor | None


def utterance_weights(
    loss: Loss, batch: GlobalBatch, weights: Sequence[float], state: LossState
) -> tuple[UtteranceWeights, LossParts]:
    """w_i = dJ/dl_i on the whole batch, so that sum_i w_i l_i has the gradient of J.

    For ERM-MinMaxGAP, w_i = 1/N + lambda kappa_c p D_c^(p-1) (+s_c for a woman, -s_c for a man) / n_c,g on the active
    cell c with s_c the sign of its gap, and 1/N elsewhere: the better group's weight can turn negative.

    Args:
        batch: detached here.

    Returns:
        The weights, with ``min_sample_weight`` applied, and the detached parts.
    """
    losses = batch.losses.detach().requires_grad_()
    states = batch.states.detach().requires_grad_() if batch.states is not None else None
    parts = loss(batch._replace(losses=losses, states=states), weights, state)
    parts.total.backward()
    by_utterance = _gradient(losses)
    if isinstance(loss, PenalisedLoss) and loss.min_sample_weight is not None:
        by_utterance = by_utterance.clamp(min=loss.min_sample_weight / len(by_utterance))
    detached = LossParts._make([*(part.detach() for part in parts[:-1]), parts.state])
    return UtteranceWeights(by_utterance, None if states is None else _gradient(states)), detached


def _gradient(leaf: Tensor) -> Tensor:
    """That of a leaf after ``backward``, 0 if the total does not depend on it."""
    return leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad
