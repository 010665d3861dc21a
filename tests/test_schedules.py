"""The schedules of the fairness weight, point by point."""

from __future__ import annotations

import pytest

from study.schedules import adaptive, constant, ramp


def test_constant():
    assert constant(0.7) == 0.7


@pytest.mark.parametrize(
    ("shape", "expected"), [("linear", [0.0, 0.5, 1.0, 2.0, 2.0]), ("cosine", [0.0, 0.2929, 1.0, 2.0, 2.0])]
)
def test_ramps_reach_the_weight_at_the_end_of_the_ramp(shape, expected):
    # cosine at a quarter of the rise: (1 - cos(pi/4)) / 2 = 0.1464 of 2.0
    values = [ramp(shape, 2.0, progress, 0.4) for progress in (0.0, 0.1, 0.2, 0.4, 1.0)]
    assert values == pytest.approx(expected, abs=1e-4)


def test_adaptive_rises_above_the_tolerance_falls_below_and_is_projected():
    assert adaptive(1.0, dev_gap=0.05, step_size=10.0, tolerance=0.02, maximum=10.0) == pytest.approx(1.3)
    assert adaptive(1.0, dev_gap=0.01, step_size=10.0, tolerance=0.02, maximum=10.0) == pytest.approx(0.9)
    assert adaptive(0.0, dev_gap=0.0, step_size=10.0, tolerance=0.02, maximum=10.0) == 0.0
    assert adaptive(9.9, dev_gap=1.0, step_size=10.0, tolerance=0.02, maximum=10.0) == 10.0
