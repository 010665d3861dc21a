"""One optimiser step over the global batch.

The loss is not additive over workers and micro-batches: a maximum over group gaps is not the mean of the maxima of its
parts. So each step gathers the per-utterance losses of the whole global batch, computes the weights w_i = dJ/dl_i
(``study.losses.base.sample_weights``), and each worker back-propagates its share of sum_i w_i l_i.

A worker's share of the global batch is split into *micro-batches*, as many as its memory requires, and each micro-batch
into *buckets* of utterances of similar length (``study.data.bucketing``). With one micro-batch, a step is one forward
and one backward pass. With several, every micro-batch is first run without gradient to get the losses, then run again
with gradient and the same dropout masks, which costs about a third more arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from study.common.distributed import gather_rows, world
from study.common.groups import Cell
from study.common.rng import random_state, set_random_state
from study.data.bucketing import OVERHEAD, make_micro_batches
from study.losses.base import GlobalBatch, Loss, LossState, LossValue, SampleWeights, sample_weights

if TYPE_CHECKING:
    from study.data.examples import Batch, Examples

LossesAndStates = tuple[Tensor, Tensor]
"""Per-utterance losses (n,) and hidden states (n, D)."""


class LossNotFinite(FloatingPointError):
    """The loss of a step was not finite; the message names the epoch and the remedy."""


class TrainableModel(Protocol):
    """The part of a DeepSpeed engine that a step uses."""

    def __call__(self, batch: Batch, *, score: bool) -> LossesAndStates: ...
    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None: ...
    def backward(self, loss: Tensor, *, scale_wrt_gas: bool) -> Any: ...
    def step(self) -> Any: ...


@dataclass
class TrainStep:
    """Collates this worker's share of a global batch and does one optimiser step on it.

    Attributes:
        examples: the training split.
        cells: the C cells in use.
        micro_batch_size: the most utterances of a micro-batch.
        length_buckets: whether a micro-batch is split into buckets of similar length.
    """

    model: TrainableModel
    loss: Loss
    examples: Examples
    cells: tuple[Cell, ...]
    device: torch.device
    micro_batch_size: int
    length_buckets: bool

    def collate(self, shares: Sequence[np.ndarray], max_tokens: int | None) -> list[list[Batch]]:
        """Return this worker's share of a global batch as micro-batches of buckets, on the CPU.

        Args:
            shares: rows of ``examples`` of each worker; all workers need the same number of micro-batches and buckets.
            max_tokens: the most tokens of a micro-batch, padding included; None for no limit.
        """
        overhead = OVERHEAD if self.length_buckets else None
        rank, _ = world()
        plans = make_micro_batches(shares, self.examples.lengths, self.micro_batch_size, max_tokens, overhead)
        return [[self.examples.collate(bucket.tolist()) for bucket in buckets] for buckets in plans[rank]]

    def __call__(
        self, micro_batches: list[list[Batch]], fairness_weights: Sequence[float], loss_state: LossState, epoch: int
    ) -> tuple[LossValue, SampleWeights]:
        """Do one optimiser step.

        Args:
            micro_batches: what ``collate`` returned.
            fairness_weights: lambda_t, as many as the loss has penalties.
            loss_state: the state that the loss returned at the last step.
            epoch: named in an error.

        Returns:
            The loss of the global batch, which holds the next state, and the weights of its utterances.

        Raises:
            LossNotFinite: the loss is not finite; no weight has been changed.
        """
        micro_batches = [[batch.to(self.device) for batch in buckets] for buckets in micro_batches]
        with_gradient: Iterable[LossesAndStates]
        if len(micro_batches) == 1:
            losses, hidden_states = self.forward(micro_batches[0])
            with_gradient = [(losses, hidden_states)]
        else:
            losses, hidden_states, random_states = self.forward_without_gradient(micro_batches)
            with_gradient = self.forward_replayed(micro_batches, random_states)
        groups = torch.cat([batch.groups for buckets in micro_batches for batch in buckets])
        with record_function("collectives"):
            global_batch, own = self._gather(losses.detach(), hidden_states.detach(), groups)
        weights, value = sample_weights(self.loss, global_batch, fairness_weights, loss_state)
        if not math.isfinite(float(value.total)):
            raise LossNotFinite(
                f"epoch {epoch}: the loss is {float(value.total)} (risk {float(value.risk):.3g} nats, fairness weights "
                f"{tuple(fairness_weights)}); lower optimisation.learning_rate or the fairness weight"
            )
        sizes = [sum(len(batch.rows) for batch in buckets) for buckets in micro_batches]
        self._backward(with_gradient, weights, own, sizes)
        return value, weights

    def forward(self, buckets: list[Batch]) -> LossesAndStates:
        """Return the per-utterance losses (n,) and hidden states (n, D) of a micro-batch."""
        losses, hidden_states = zip(*(self.model(batch, score=False) for batch in buckets), strict=True)
        return torch.cat(losses), torch.cat(hidden_states)

    def forward_without_gradient(
        self, micro_batches: list[list[Batch]]
    ) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
        """Return losses (n,) and hidden states (n, D) of all micro-batches, and the random state before each one."""
        random_states, results = [], []
        with torch.no_grad():
            for buckets in micro_batches:
                random_states.append(random_state())
                results.append(self.forward(buckets))
        losses, hidden_states = zip(*results, strict=True)
        return torch.cat(losses), torch.cat(hidden_states), random_states

    def forward_replayed(
        self, micro_batches: list[list[Batch]], random_states: list[dict[str, Tensor]]
    ) -> Iterator[LossesAndStates]:
        """Yield losses and hidden states of one micro-batch after another, with gradient and the same dropout masks."""
        for buckets, state in zip(micro_batches, random_states, strict=True):
            set_random_state(state)
            yield self.forward(buckets)

    def _gather(self, losses: Tensor, hidden_states: Tensor, groups: Tensor) -> tuple[GlobalBatch, slice]:
        """Return the global batch, gathered from all workers, and the position of this worker's share in it."""
        all_losses, own = gather_rows(losses)
        all_groups, _ = gather_rows(groups)
        all_states = gather_rows(hidden_states)[0] if self.loss.uses_hidden_states else None
        return GlobalBatch(all_losses, all_groups, self.cells, all_states), own

    def _backward(
        self, with_gradient: Iterable[LossesAndStates], weights: SampleWeights, own: slice, sizes: list[int]
    ) -> None:
        """Back-propagate this worker's weighted losses, one micro-batch after another, and step the optimiser.

        Args:
            own: the position of this worker's share in the global batch.
            sizes: utterances of each micro-batch.
        """
        _, num_workers = world()  # DeepSpeed averages gradients over workers; J is over the global batch
        loss_weights = (num_workers * weights.losses[own]).split(sizes)
        state_weights = None
        if weights.hidden_states is not None:
            state_weights = (num_workers * weights.hidden_states[own]).split(sizes)
        for i, (losses, hidden_states) in enumerate(with_gradient):
            weighted = (loss_weights[i] * losses).sum()
            if state_weights is not None:
                weighted = weighted + (state_weights[i] * hidden_states).sum()
            self.model.set_gradient_accumulation_boundary(i == len(sizes) - 1)
            with record_function("backward"):
                self.model.backward(weighted, scale_wrt_gas=False)
            with record_function("optimiser"):
                self.model.step()
