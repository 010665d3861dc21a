"""The schedules of the fairness weight at single points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.losses.schedules import AdaptiveWeight, ConstantWeight, RampWeight, StepWeight

PROGRESS = (0.0, 0.1, 0.2, 0.4, 1.0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (ConstantWeight(weight=2.0), [2.0, 2.0, 2.0, 2.0, 2.0]),
        (RampWeight(schedule="linear", weight=2.0, ramp_fraction=0.4), [0.0, 0.5, 1.0, 2.0, 2.0]),
        # cosine at a quarter of the rise: (1 - cos(pi/4)) / 2 = 0.1464 of 2.0
        (RampWeight(schedule="cosine", weight=2.0, ramp_fraction=0.4), [0.0, 0.2929, 1.0, 2.0, 2.0]),
        (StepWeight(weight=2.0, start_fraction=0.2), [0.0, 0.0, 2.0, 2.0, 2.0]),
    ],
)
def test_weight_over_training(schedule, expected):
    assert [schedule.at(progress) for progress in PROGRESS] == pytest.approx(expected, abs=1e-4)


def test_adaptive_weight_rises_above_tolerance_falls_below_and_is_projected():
    adaptive = AdaptiveWeight(step_size=10.0, tolerance=0.02, maximum=10.0)
    assert adaptive.updated(1.0, gap=0.05) == pytest.approx(1.3)
    assert adaptive.updated(1.0, gap=0.01) == pytest.approx(0.9)
    assert adaptive.updated(0.0, gap=0.0) == 0.0
    assert adaptive.updated(9.9, gap=1.0) == 10.0


@given(st.floats(0, 10), st.floats(0, 5), st.floats(0.01, 100))
def test_adaptive_weight_stays_in_its_range(weight, gap, step_size):
    assert 0.0 <= AdaptiveWeight(step_size=step_size).updated(weight, gap) <= 10.0
