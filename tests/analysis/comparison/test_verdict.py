"""The verdict on a signed gap, from intervals in points."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.comparison.verdict import absolute_gap_verdict, level_verdict, signed_gap_verdict
from analysis.stats.bootstrap import Interval, SeedSpread

UNCERTAIN = "reduced (sign of the remaining gap uncertain)"


def around(estimate: float, half_width: float) -> Interval:
    return Interval(estimate, estimate - half_width, estimate + half_width, 0.5, half_width / 2, SeedSpread(0, 0, 1))


@pytest.mark.parametrize(
    ("reference", "value", "value_width", "total_width", "expected"),
    [
        (8.9, 0.9, 3.0, 11.0, UNCERTAIN),  # 9.8 in all, between -1.2 and 20.8
        (8.9, 0.9, 3.0, 7.0, "smaller"),  # 9.8 in all, surely above 0
        (8.9, 2.0, 1.0, 12.0, "smaller"),  # what remains surely has the reference's direction
        (8.9, -0.9, 3.0, 11.0, UNCERTAIN),
        (8.9, -4.0, 3.0, 7.0, "reversed"),
        (3.0, -4.0, 5.0, 6.0, "changed (sign of the remaining gap uncertain)"),
        (3.0, -14.0, 5.0, 6.0, "reversed and larger"),
        (3.0, 9.0, 5.0, 6.0, "larger"),
    ],
)
def test_verdict_on_a_significant_change(
    reference: float, value: float, value_width: float, total_width: float, expected: str
) -> None:
    remaining, total = around(value, value_width), around(value + reference, total_width)
    assert signed_gap_verdict(reference, value - reference, 0.01, remaining, total) == expected


@pytest.mark.parametrize("p", [0.05, 0.6, np.nan])
def test_p_of_at_least_5_percent_is_not_significant(p: float) -> None:
    verdicts = {signed_gap_verdict(8.9, -8.0, p, around(0.9, 3), around(9.8, 7)), level_verdict(0.3, p)}
    assert verdicts | {absolute_gap_verdict(-0.3, p)} == {"not significant"}


def test_verdict_follows_the_sign_of_the_difference() -> None:
    assert [level_verdict(d, 0.04) for d in (0.1, -0.1)] == ["higher", "lower"]
    assert [absolute_gap_verdict(d, 0.04) for d in (0.1, -0.1)] == ["larger", "smaller"]
