"""Estimators of the per-cell loss gap: of the batch, a moving average, or a held-out control split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from study.common.base_model import Frozen
from study.losses.base import GlobalBatch, LossState, signed_gaps

if TYPE_CHECKING:
    from torch import Tensor


class BatchGaps(Frozen):
    """The gaps of the batch as they are: the paper's form.

    With no true gap, losses of sd 1.2 nats and 64 utterances, the largest of three gaps is still about 0.69 nats.
    """

    kind: Literal["batch"] = "batch"

    def estimate(self, batch: GlobalBatch, state: LossState) -> tuple[Tensor, Tensor, LossState]:
        """Signed gaps (C,) with gradient, which of them exist (C,), and the memory of the next step."""
        return *signed_gaps(*batch.group_means()), {}


class MovingGaps(Frozen):
    """Size and sign from decayed sums over past batches, direction from this batch (ours).

    A group's mean is (sum_t decay^age loss sum) / (sum_t decay^age count), so early steps need no correction and a
    group that is absent keeps its mean. The noise falls by sqrt((1 - decay) / (1 + decay)).
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9

    def estimate(self, batch: GlobalBatch, state: LossState) -> tuple[Tensor, Tensor, LossState]:
        """As ``BatchGaps.estimate``."""
        means, counts = batch.group_means()
        sums, weights = (means * counts).detach(), counts
        if state:
            sums, weights = sums + self.decay * state["sums"], weights + self.decay * state["weights"]
        averaged = sums / weights.where(weights > 0, 1.0)
        gaps = _with_direction_of(*signed_gaps(averaged, weights), *signed_gaps(means, counts))
        return *gaps, {"sums": sums, "weights": weights}


class HeldOutGaps(Frozen):
    """Size and sign from a control split, direction from this batch (ours).

    A group with few training utterances can have the *lower* training loss, because it is memorised; then the gap of a
    batch has the wrong sign. The gaps are taken anew at every look (``fairness_updates_per_epoch``), on utterances that
    are neither trained on nor used for selection (``control`` in the settings).
    """

    kind: Literal["held_out"] = "held_out"

    def estimate(self, batch: GlobalBatch, state: LossState) -> tuple[Tensor, Tensor, LossState]:
        """As ``BatchGaps.estimate``; ``memory`` is that of ``look``."""
        gaps = _with_direction_of(state["gaps"], state["present"], *signed_gaps(*batch.group_means()))
        return *gaps, state

    def look(self, held_out: GlobalBatch) -> LossState:
        """The memory after measuring the control split."""
        gaps, present = signed_gaps(*held_out.group_means())
        return {"gaps": gaps.detach(), "present": present}


Estimator = Annotated[BatchGaps | MovingGaps | HeldOutGaps, Field(discriminator="kind")]


def _with_direction_of(gaps: Tensor, present: Tensor, here: Tensor, here_present: Tensor) -> tuple[Tensor, Tensor]:
    """``gaps`` (C,) with the gradient of the batch's own, ``here``; a cell absent here has a value but no gradient."""
    return gaps + (here - here.detach()).where(here_present, 0.0), present
