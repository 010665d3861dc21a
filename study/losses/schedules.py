"""Schedules of the fairness weight lambda: constant, ramps and a step from 0, and the adaptive dual variable.

Each class holds the settings of a schedule and its arithmetic: a pure function of training progress, or of the current
dual variable and a held-out gap. The trainer stores the dual variables. Sensible weights lie between 0 and about 1 at
p = 2 with the paper's batch estimate; the paper reports that a fixed 5 or 10 drops accuracy to about 30 %.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from study.common.base_model import Frozen, NonNegative, Positive, Share


class ConstantWeight(Frozen):
    """lambda_t = weight."""

    schedule: Literal["constant"] = "constant"
    weight: NonNegative

    def at(self, progress: float) -> float:
        """Return lambda when the share ``progress`` of all training steps, in [0, 1], is done."""
        return self.weight


class RampWeight(Frozen):
    """A rise from 0 to ``weight`` over the first ``ramp_fraction`` of training, then constant (ours).

    "cosine" rises by half a period, slowly at both ends.

    >>> ramp = RampWeight(schedule="linear", weight=2.0, ramp_fraction=0.5)
    >>> [ramp.at(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 1.0, 2.0, 2.0]
    """

    schedule: Literal["linear", "cosine"]
    weight: NonNegative
    ramp_fraction: Share = 0.5

    def at(self, progress: float) -> float:
        """Return lambda when the share ``progress`` of all training steps, in [0, 1], is done."""
        risen = min(progress / self.ramp_fraction, 1.0)
        return self.weight * (risen if self.schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * risen)))


class StepWeight(Frozen):
    """0 for the first ``start_fraction`` of training, then ``weight`` (ours).

    >>> [StepWeight(weight=2.0, start_fraction=0.5).at(progress) for progress in (0.0, 0.49, 0.5, 1.0)]
    [0.0, 0.0, 2.0, 2.0]
    """

    schedule: Literal["step"] = "step"
    weight: NonNegative
    start_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5

    def at(self, progress: float) -> float:
        """Return lambda when the share ``progress`` of all training steps, in [0, 1], is done."""
        return self.weight if progress >= self.start_fraction else 0.0


class AdaptiveWeight(Frozen):
    """lambda_{t+1} = clip(lambda_t + eta (G - epsilon), 0, lambda_max) at every fairness update.

    The projected dual variable of arXiv 2603.21050; its ancestors are 1802.08626 and 1807.00028. Stated there: moved by
    development-set gaps, epsilon = 0.02, range [0, 10]. Not stated, so ours: the initial value, eta, the period of the
    updates (``fairness_updates_per_epoch`` of the loss), and the definition of G.

    Attributes:
        initial: lambda_0.
        step_size: eta; of the order of 1 to 10 for a metric gap, 0.1 to 1 for a loss gap.
        tolerance: epsilon, a fraction for a metric gap (0.02 is 2 points), nats for a loss gap.
        maximum: lambda_max.
        driver: whether G is the AVG gap of the metrics (a fraction) or the gap of the mean losses (nats). Noise alone
            keeps a loss gap above 0.02 nats, so a weight driven by it tends to climb to its maximum.
        split: where G is measured: on dev, which also selects the epoch, or on the control split.
        per_cell: one dual variable per cell, each moved by the gap of its cell, with sum_c lambda_c kappa_c D_c^p in
            place of lambda R. Otherwise a single one, moved by the largest gap.
    """

    schedule: Literal["adaptive"] = "adaptive"
    initial: NonNegative = 0.0
    step_size: Positive = 2.0
    tolerance: NonNegative = 0.02
    maximum: Positive = 10.0
    driver: Literal["metric_gap", "loss_gap"] = "metric_gap"
    split: Literal["dev", "control"] = "dev"
    per_cell: bool = False

    @model_validator(mode="after")
    def _check_initial(self) -> AdaptiveWeight:
        if self.initial > self.maximum:
            raise ValueError(f"initial {self.initial} is above maximum {self.maximum}")
        return self

    def updated(self, value: float, gap: float) -> float:
        """Return the dual variable after a fairness update.

        Args:
            value: lambda_t.
            gap: G.

        >>> AdaptiveWeight(step_size=2.0).updated(0.5, gap=0.12)
        0.7
        """
        return min(max(value + self.step_size * (gap - self.tolerance), 0.0), self.maximum)


FairnessWeight = Annotated[ConstantWeight | RampWeight | StepWeight | AdaptiveWeight, Field(discriminator="schedule")]
