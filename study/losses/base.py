"""The interface of a training loss: J = risk + sum_j lambda_j penalty_j, on one global batch.

A loss is one class that holds its hyperparameters and its arithmetic. It is a pure function of the per-utterance losses
l_i (mean cross-entropy over the answer tokens, in nats) of the *global batch*, over all workers and micro-batches::

    L_k   = mean of l_i over group k              a group k is a (cell, gender), a cell c is a (language, modality)
    D_c   = | L_c,F - L_c,M |                     undefined for a cell without both genders
    w_i   = dJ / dl_i                             so that sum_i w_i l_i has the gradient of J

Workers and micro-batches must not compute a loss on their own shares, since a maximum over group gaps is not the mean
of the maxima of its parts. The train step gathers the l_i of the global batch (``study.common.distributed``), computes
w_i with ``sample_weights``, and back-propagates its share of sum_i w_i l_i.

``study.losses.minmaxgap`` has ERM-MinMaxGAP, ``study.losses.baselines`` the losses that it is compared with. Settings
contain losses and are read without torch, so these modules import torch for type checking only.
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
"""Tensors that a loss carries from step to step; part of a checkpoint."""


class GlobalBatch(NamedTuple):
    """The per-utterance losses of one global batch.

    Attributes:
        losses: (N,) float32, nats.
        groups: (N,) int64, ``2 * cell + gender``; -1 where the gender is unknown.
        cells: the C cells in use.
        hidden_states: (N, D) mean hidden states over the answer tokens; only for a loss that ``uses_hidden_states``.
    """

    losses: Tensor
    groups: Tensor
    cells: tuple[Cell, ...]
    hidden_states: Tensor | None = None

    def group_means(self) -> tuple[Tensor, Tensor]:
        """Return L_k (2C,) of every group in nats, 0 where the group is empty, and the number of utterances (2C,)."""
        known = (self.groups >= 0).to(self.losses.dtype)
        index = self.groups.clamp(min=0)
        zeros = self.losses.new_zeros(2 * len(self.cells))
        counts = zeros.index_add(0, index, known)
        return zeros.index_add(0, index, self.losses * known) / counts.clamp(min=1), counts

    def unknown_gender_risk(self) -> tuple[Tensor, Tensor]:
        """Return (1/N) sum of l_i over the utterances of unknown gender, and the share of the others; both scalar."""
        unknown = (self.groups < 0).to(self.losses.dtype)
        return (self.losses * unknown).mean(), 1.0 - unknown.mean()


class LossTerms(NamedTuple):
    """The terms of J that a loss computes.

    Attributes:
        risk: scalar, nats.
        penalties: one scalar for each fairness weight.
        state: passed to the loss at the next step.
        gaps: (C,) the signed gaps that the penalty used, in nats, and (C,) bool, the cells that have one; None if these
            are the gaps of the batch.
    """

    risk: Tensor
    penalties: tuple[Tensor, ...] = ()
    state: LossState = {}
    gaps: tuple[Tensor, Tensor] | None = None


class LossValue(NamedTuple):
    """J and its components.

    Attributes:
        total: J, scalar, nats.
        risk: scalar, nats.
        penalty: scalar, without the fairness weight; the sum over cells if each cell has its own weight.
        signed_gaps: (C,) L_c,F - L_c,M in nats, as estimated; 0 where undefined.
        present: (C,) bool, the cells that have a gap.
        active: scalar, the index of the cell with the largest penalty; -1 if no cell has a gap.
        state: passed to the loss at the next step.
    """

    total: Tensor
    risk: Tensor
    penalty: Tensor
    signed_gaps: Tensor
    present: Tensor
    active: Tensor
    state: LossState


def signed_gaps(means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return L_c,F - L_c,M (C,) in nats, 0 where a gender is absent, and the mask (C,) of cells with both genders.

    Args:
        means, counts: (2C,) from ``GlobalBatch.group_means``.
    """
    by_cell = means.view(-1, 2)
    present = (counts.view(-1, 2) > 0).all(dim=1)
    return (by_cell[:, 0] - by_cell[:, 1]).where(present, 0.0), present


class Loss(Frozen):
    """A training loss.

    Attributes:
        sampling: how batches are drawn: each utterance once an epoch ("natural"), the same number of utterances of
            every group in each batch ("balanced"), or independently, with the same probability for every group
            ("weighted"). None is the default of the method.
    """

    sampling: Sampling | None = None

    default_sampling: ClassVar[Sampling] = "balanced"
    uses_hidden_states: ClassVar[bool] = False

    @property
    def batch_sampling(self) -> Sampling:
        """The sampling in use: the setting, or else the default of the method."""
        return self.sampling or self.default_sampling

    @abstractmethod
    def terms(self, batch: GlobalBatch, state: LossState) -> LossTerms:
        """Return risk and penalties of a global batch. A new loss is a subclass that implements this.

        Args:
            state: what the last step returned; empty at the first step.
        """

    def penalty_by_cell(self, gaps: Tensor, cells: Sequence[Cell]) -> Tensor:
        """Return the penalty of each cell (C,) from its signed gap. It decides which cell is recorded as active."""
        return gaps.abs()

    def __call__(
        self, batch: GlobalBatch, fairness_weights: Sequence[float] = (), state: LossState | None = None
    ) -> LossValue:
        """Return J and its components.

        Args:
            fairness_weights: lambda, as many as the loss has penalties.
            state: what the last step returned; None or empty at the first step.
        """
        terms = self.terms(batch, state or {})
        total = terms.risk
        for weight, penalty in zip(fairness_weights, terms.penalties, strict=True):
            if weight:  # at weight 0, an infinite gradient of the penalty would become NaN
                total = total + weight * penalty
        gaps, present = terms.gaps or signed_gaps(*batch.group_means())
        largest = self.penalty_by_cell(gaps, batch.cells).where(present, -1.0).argmax()
        active = largest.where(present.any(), -1)
        penalty = sum(terms.penalties, total.new_zeros(()))
        return LossValue(total, terms.risk, penalty, gaps, present, active, terms.state)


class PenalisedLoss(Loss):
    """A loss with a penalty under a fairness weight.

    Attributes:
        fairness_weight: the schedule of lambda.
        fairness_updates_per_epoch: how often held-out gaps are measured. They move an adaptive fairness weight, and an
            estimator of held-out gaps uses them.
        min_sample_weight: the smallest N w_i of an utterance (ours). None is the paper's form, in which the better
            group can get negative weights and is then *unlearned*. 0 forbids that, so only the worse group is pushed;
            the weights then sum to more than 1, and a large fairness weight also enlarges the gradient before clipping.
    """

    fairness_weight: FairnessWeight = AdaptiveWeight()
    fairness_updates_per_epoch: Annotated[int, Field(ge=1)] = 1
    min_sample_weight: Annotated[float, Field(le=1.0, allow_inf_nan=False)] | None = None

    def n_fairness_weights(self, n_cells: int) -> int:
        """Return the number of fairness weights: one, or one a cell."""
        return n_cells if isinstance(self.fairness_weight, AdaptiveWeight) and self.fairness_weight.per_cell else 1


class SampleWeights(NamedTuple):
    """The weights of the utterances of a global batch.

    Attributes:
        losses: (N,) w_i = dJ/dl_i.
        hidden_states: (N, D) dJ/dh_i, for a loss that ``uses_hidden_states``.
    """

    losses: Tensor
    hidden_states: Tensor | None


def sample_weights(
    loss: Loss, batch: GlobalBatch, fairness_weights: Sequence[float], state: LossState
) -> tuple[SampleWeights, LossValue]:
    """Return w_i = dJ/dl_i on a global batch, so that sum_i w_i l_i has the gradient of J.

    For ERM-MinMaxGAP, w_i = 1/N + lambda kappa_c p D_c^(p-1) (+s_c for a woman, -s_c for a man) / n_c,g on the active
    cell c, with s_c the sign of its gap, and 1/N elsewhere. The weights of the better group can be negative.

    Args:
        batch: is detached here.

    Returns:
        The weights, with ``min_sample_weight`` applied, and the detached value of the loss.
    """
    losses = batch.losses.detach().requires_grad_()
    states = batch.hidden_states.detach().requires_grad_() if batch.hidden_states is not None else None
    value = loss(batch._replace(losses=losses, hidden_states=states), fairness_weights, state)
    value.total.backward()
    weights = _gradient(losses)
    if isinstance(loss, PenalisedLoss) and loss.min_sample_weight is not None:
        weights = weights.clamp(min=loss.min_sample_weight / len(weights))
    detached = LossValue._make([*(part.detach() for part in value[:-1]), value.state])
    return SampleWeights(weights, None if states is None else _gradient(states)), detached


def _gradient(leaf: Tensor) -> Tensor:
    """Return the gradient of a leaf after ``backward``, 0 if the result does not depend on it."""
    return leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad
