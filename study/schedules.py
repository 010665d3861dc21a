"""Schedules of the fairness weight lambda: constant, ramps from 0, and the adaptive multiplier.

Each is a pure function of the step, or of the previous weight and a development gap; the trainer keeps the weight.
"""

from __future__ import annotations

import math


def constant(weight: float) -> float:
    """lambda_t = weight."""
    return weight


def ramp(shape: str, weight: float, progress: float, ramp_fraction: float) -> float:
    """A rise from 0 to ``weight`` over the first ``ramp_fraction`` of training, then constant.

    Args:
        shape: "linear", or "cosine" (half a period: slow at both ends).
        progress: share of the training steps done, in [0, 1].
        ramp_fraction: share of training that the rise takes, in (0, 1].

    >>> [ramp("linear", 2.0, progress, 0.5) for progress in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 1.0, 2.0, 2.0]
    """
    risen = min(progress / ramp_fraction, 1.0)
    return weight * (risen if shape == "linear" else 0.5 * (1.0 - math.cos(math.pi * risen)))


def adaptive(weight: float, dev_gap: float, step_size: float, tolerance: float, maximum: float) -> float:
    """lambda_{t+1} = clip(lambda_t + eta (G_dev - epsilon), 0, lambda_max), after each development evaluation.

    The projected multiplier of arXiv 2603.21050 (stated: epsilon = 0.02, range [0, 10]; eta is not stated).
    ``dev_gap`` and ``tolerance`` are fractions for a metric gap, nats for a loss gap.

    >>> adaptive(0.5, dev_gap=0.12, step_size=2.0, tolerance=0.02, maximum=10.0)
    0.7
    """
    return min(max(weight + step_size * (dev_gap - tolerance), 0.0), maximum)
