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
(``study.collectives``), asks for w_i = dJ/dl_i here and back-propagates its share of sum_i w_i l_i.

An objective is its settings and its arithmetic in one class; ``study.methods`` has those that this one is compared
with. Only methods of tensors are called, so that reading a plan does not cost an import of torch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from study.frozen import Frozen, NonNegative, Positive
from study.groups import Cell, Language, Modality
from study.schedules import AdaptiveWeight, FairnessWeight

if TYPE_CHECKING:
    from torch import Tensor

Sampling = Literal["natural", "balanced", "weighted"]
Memory = Mapping[str, "Tensor"]
"""What an objective carries from step to step; part of a checkpoint."""


class WholeBatch(NamedTuple):
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


class Terms(NamedTuple):
    """What an objective returns of itself.

    Attributes:
        risk: scalar, nats.
        penalties: one scalar for each fairness weight.
        memory: to be given back at the next step.
        gaps: (C,) signed gaps that the penalty used, nats, and (C,) bool, which of them exist; None for the batch's.
    """

    risk: Tensor
    penalties: tuple[Tensor, ...] = ()
    memory: Memory = {}
    gaps: tuple[Tensor, Tensor] | None = None


class ObjectiveParts(NamedTuple):
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
    memory: Memory


def signed_gaps(means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """L_c,F - L_c,M (C,) in nats, 0 where a gender is absent, and the mask (C,) of cells that have both.

    Args:
        means, counts: (2C,) from ``WholeBatch.group_means``.
    """
    by_cell = means.view(-1, 2)
    present = (counts.view(-1, 2) > 0).all(dim=1)
    return (by_cell[:, 0] - by_cell[:, 1]).where(present, 0.0), present


class BatchGaps(Frozen):
    """The gaps of the batch as they are: the paper's form.

    With no true gap, losses of sd 1.2 nats and 64 utterances, the largest of three gaps is still about 0.69 nats.
    """

    kind: Literal["batch"] = "batch"

    def estimate(self, batch: WholeBatch, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Signed gaps (C,) with gradient, which of them exist (C,), and the memory of the next step."""
        return *signed_gaps(*batch.group_means()), {}


class MovingGaps(Frozen):
    """Size and sign from decayed sums over past batches, direction from this batch (ours).

    A group's mean is (sum_t decay^age loss sum) / (sum_t decay^age count), so early steps need no correction and a
    group that is absent keeps its mean. The noise falls by sqrt((1 - decay) / (1 + decay)).
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9

    def estimate(self, batch: WholeBatch, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """As ``BatchGaps.estimate``."""
        means, counts = batch.group_means()
        sums, weights = (means * counts).detach(), counts
        if memory:
            sums, weights = sums + self.decay * memory["sums"], weights + self.decay * memory["weights"]
        averaged = sums / weights.where(weights > 0, 1.0)
        gaps = _with_direction_of(*signed_gaps(averaged, weights), *signed_gaps(means, counts))
        return *gaps, {"sums": sums, "weights": weights}


class HeldOutGaps(Frozen):
    """Size and sign from a control split, direction from this batch (ours).

    A group with few training utterances can have the *lower* training loss, because it is memorised; then the gap of a
    batch has the wrong sign. The gaps are taken anew at every look (``looks_per_epoch``), on utterances that are
    neither trained on nor used for selection (``control`` in the settings).
    """

    kind: Literal["held_out"] = "held_out"

    def estimate(self, batch: WholeBatch, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """As ``BatchGaps.estimate``; ``memory`` is that of ``look``."""
        gaps = _with_direction_of(memory["gaps"], memory["present"], *signed_gaps(*batch.group_means()))
        return *gaps, memory

    def look(self, held_out: WholeBatch) -> Memory:
        """The memory after measuring the control split."""
        gaps, present = signed_gaps(*held_out.group_means())
        return {"gaps": gaps.detach(), "present": present}


Estimator = Annotated[BatchGaps | MovingGaps | HeldOutGaps, Field(discriminator="kind")]


def _with_direction_of(gaps: Tensor, present: Tensor, here: Tensor, here_present: Tensor) -> tuple[Tensor, Tensor]:
    """``gaps`` (C,) with the gradient of the batch's own, ``here``; a cell absent here has a value but no gradient."""
    return gaps + (here - here.detach()).where(here_present, 0.0), present


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


class Objective(Frozen):
    """What a run minimises: J = risk + sum_j lambda_j penalty_j, over whole batches.

    Attributes:
        sampling: how batches are drawn: each utterance once an epoch ("natural"); the same number of every group in
            each batch ("balanced"); or independently, every group with the same probability ("weighted"). None takes
            the method's own.
    """

    sampling: Sampling | None = None

    own_sampling: ClassVar[Sampling] = "balanced"
    uses_states: ClassVar[bool] = False

    def sampled(self) -> Sampling:
        return self.sampling or self.own_sampling

    @abstractmethod
    def terms(self, batch: WholeBatch, memory: Memory) -> Terms:
        """The method: a new one is a subclass with this function."""

    def cell_penalties(self, gaps: Tensor, cells: Sequence[Cell]) -> Tensor:
        """How much each cell counts (C,), from its signed gap: |D_c| unless the method says otherwise."""
        return gaps.abs()

    def __call__(
        self, batch: WholeBatch, weights: Sequence[float] = (), memory: Memory | None = None
    ) -> ObjectiveParts:
        """J and its parts.

        Args:
            weights: lambda, as many as the objective has penalties.
            memory: what the last step returned; None or empty at the first.
        """
        terms = self.terms(batch, memory or {})
        total = terms.risk
        for weight, penalty in zip(weights, terms.penalties, strict=True):
            if weight:  # at weight 0 a penalty must not even carry a gradient of 0 * inf
                total = total + weight * penalty
        gaps, present = terms.gaps or signed_gaps(*batch.group_means())
        most = self.cell_penalties(gaps, batch.cells).where(present, -1.0).argmax()
        active = most.where(present.any(), -1)
        penalty = sum(terms.penalties, total.new_zeros(()))
        return ObjectiveParts(total, terms.risk, penalty, gaps, present, active, terms.memory)


class Penalised(Objective):
    """An objective with a penalty under a fairness weight.

    Attributes:
        looks_per_epoch: how often held-out gaps are measured that move an adaptive weight or that an estimator uses.
        weight_floor: smallest N w_i of an utterance (ours). None is the paper's form, in which the better group can
            get negative weights and is then *unlearned*; 0 forbids that: only the worse group is pushed. The weights
            then sum to more than 1, so that a large fairness weight also enlarges the gradient before it is clipped.
    """

    fairness_weight: FairnessWeight = AdaptiveWeight()
    looks_per_epoch: Annotated[int, Field(ge=1)] = 1
    weight_floor: Annotated[float, Field(le=1.0, allow_inf_nan=False)] | None = None

    def n_weights(self, n_cells: int) -> int:
        """How many fairness weights there are."""
        return n_cells if isinstance(self.fairness_weight, AdaptiveWeight) and self.fairness_weight.per_cell else 1


class ErmMinMaxGap(Penalised):
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
    >>> batch = WholeBatch(torch.tensor([1.0, 3.0, 2.0, 2.5]), groups, two)
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

    def terms(self, batch: WholeBatch, memory: Memory) -> Terms:
        gaps, present, memory = self.estimator.estimate(batch, memory)
        by_cell = self.cell_penalties(gaps, batch.cells).where(present, 0.0)
        if self.n_weights(len(batch.cells)) > 1:
            penalties = tuple(by_cell)
        else:
            penalties = (reduced(by_cell, present, self.reduction, self.temperature),)
        return Terms(batch.losses.mean(), penalties, memory, (gaps.detach(), present))


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


class UtteranceWeights(NamedTuple):
    """dJ/dl_i (N,), and dJ/dh_i (N, D) for an objective that uses states."""

    losses: Tensor
    states: Tensor | None


def utterance_weights(
    objective: Objective, batch: WholeBatch, weights: Sequence[float], memory: Memory
) -> tuple[UtteranceWeights, ObjectiveParts]:
    """w_i = dJ/dl_i on the whole batch, so that sum_i w_i l_i has the gradient of J.

    For ERM-MinMaxGAP, w_i = 1/N + lambda kappa_c p D_c^(p-1) (+s_c for a woman, -s_c for a man) / n_c,g on the active
    cell c with s_c the sign of its gap, and 1/N elsewhere: the better group's weight can turn negative.

    Args:
        batch: detached here.

    Returns:
        The weights, with ``weight_floor`` applied, and the detached parts.
    """
    losses = batch.losses.detach().requires_grad_()
    states = batch.states.detach().requires_grad_() if batch.states is not None else None
    parts = objective(batch._replace(losses=losses, states=states), weights, memory)
    parts.total.backward()
    by_utterance = _gradient(losses)
    if isinstance(objective, Penalised) and objective.weight_floor is not None:
        by_utterance = by_utterance.clamp(min=objective.weight_floor / len(by_utterance))
    detached = ObjectiveParts._make([*(part.detach() for part in parts[:-1]), parts.memory])
    return UtteranceWeights(by_utterance, None if states is None else _gradient(states)), detached


def _gradient(leaf: Tensor) -> Tensor:
    """That of a leaf after ``backward``, 0 if the total does not depend on it."""
    return leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad
