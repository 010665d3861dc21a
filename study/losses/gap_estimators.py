"""Estimators of the loss gap of each cell: from the batch, from a moving average, or from the control split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from study.common.base_model import Frozen
from study.losses.base import GlobalBatch, LossState, signed_gaps

if TYPE_CHECKING:
    from torch import Tensor


class BatchGaps(Frozen):
    """The gaps of the batch: the paper's form.

    With no true gap, losses of sd 1.2 nats and 64 utterances, the largest of three gaps is still about 0.69 nats.
    """

    kind: Literal["batch"] = "batch"

    def estimate(self, batch: GlobalBatch, state: LossState) -> tuple[Tensor, Tensor, LossState]:
        """Return signed gaps (C,) in nats with gradient, the mask (C,) of cells that have one, and the next state."""
        return *signed_gaps(*batch.group_means()), {}


class MovingAverageGaps(Frozen):
    """Magnitude and sign from decayed sums over past batches, gradient direction from this batch (ours).

    The mean of a group is (sum_t decay^age loss sum) / (sum_t decay^age count), so early steps need no correction and a
    group that is absent keeps its mean. The noise falls by sqrt((1 - decay) / (1 + decay)).
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9

    def estimate(self, batch: GlobalBatch, state: LossState) -> tuple[Tensor, Tensor, LossState]:
        """Return what ``BatchGaps.estimate`` returns."""
        means, counts = batch.group_means()
        sums, weights = (means * counts).detach(), counts
        if state:
            sums, weights = sums + self.decay * state["sums"], weights + self.decay * state["weights"]
        averages = sums / weights.where(weights > 0, 1.0)
        gaps, present = signed_gaps(averages, weights)
        return _with_gradient_of(gaps, *signed_gaps(means, counts)), present, {"sums": sums, "weights": weights}


class HeldOutGaps(Frozen):
    """Magnitude and sign from the control split, gradient direction from this batch (ours).

    A group with few training utterances can have the *lower* training loss because it is memorised; then the gap of a
    batch has the wrong sign. The gaps are measured at every fairness update (``fairness_updates_per_epoch``), on
    utterances that are used neither for training nor for selection (``control`` in the settings).
    """

    kind: Literal["held_out"] = "held_out"

    def estimate(self, batch: GlobalBatch, state: LossState) -> tuple[Tensor, Tensor, LossState]:
        """Return what ``BatchGaps.estimate`` returns.

        Args:
            state: what ``measure`` returned.
        """
        return _with_gradient_of(state["gaps"], *signed_gaps(*batch.group_means())), state["present"], state

    def measure(self, control: GlobalBatch) -> LossState:
        """Return the loss state that holds the gaps of the control split."""
        gaps, present = signed_gaps(*control.group_means())
        return {"gaps": gaps.detach(), "present": present}


GapEstimator = Annotated[BatchGaps | MovingAverageGaps | HeldOutGaps, Field(discriminator="kind")]


def _with_gradient_of(gaps: Tensor, batch_gaps: Tensor, batch_present: Tensor) -> Tensor:
    """Return ``gaps`` (C,) with the gradient of the batch's gaps. A cell absent from the batch gets no gradient."""
    return gaps + (batch_gaps - batch_gaps.detach()).where(batch_present, 0.0)
