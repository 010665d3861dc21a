"""The verdict on a comparison: one phrase that states what the data support at the 5 % level."""

from __future__ import annotations

from analysis.stats.bootstrap import ALPHA, Interval

TOO_FEW_CLUSTERS = "too few clusters"
NOT_SIGNIFICANT = "not significant"
HIGHER, LOWER = "higher", "lower"
LARGER, SMALLER = "larger", "smaller"
REVERSED_LARGER, REVERSED = "reversed and larger", "reversed"
SIGN_UNCERTAIN = "reduced (sign of the remaining gap uncertain)"
CHANGED = "changed (sign of the remaining gap uncertain)"
SIGN_UNCERTAIN_NOTE = (
    f"“{SIGN_UNCERTAIN.capitalize()}”: the gap differs significantly and its estimate is closer to 0, but the "
    "remaining gap may be in either direction, and an equally large one in the opposite direction is not excluded."
)


def level_verdict(difference: float, p: float) -> str:
    """Return the verdict on a difference of W-F1."""
    if not p < ALPHA:
        return NOT_SIGNIFICANT
    return HIGHER if difference > 0 else LOWER


def absolute_gap_verdict(difference: float, p: float) -> str:
    """Return the verdict on a difference of absolute gaps."""
    if not p < ALPHA:
        return NOT_SIGNIFICANT
    return LARGER if difference > 0 else SMALLER


def signed_gap_verdict(reference: float, difference: float, p: float, remaining: Interval, total: Interval) -> str:
    """Return the verdict on a signed gap.

    All gaps are measured in the direction of the reference's gap, so ``reference`` is at least 0. A significant
    decrease leaves four possibilities. The remaining gap is smaller if it still has the reference's direction or if
    ``total`` is positive. It is reversed if it has the opposite direction, and larger as well if ``total`` is negative.
    Where the intervals of both include 0, neither is known.

    Args:
        reference: the reference's gap.
        difference: the remaining gap minus the reference's.
        p: of the hypothesis that the two gaps are equal; NaN counts as not significant.
        remaining: the remaining gap.
        total: the sum of both gaps; it is positive if and only if the remaining gap is the smaller one, given that it
            is below the reference's.
    """
    if not p < ALPHA:
        return NOT_SIGNIFICANT
    if difference > 0:
        return LARGER
    if total.low > 0 or remaining.low > 0:
        return SMALLER
    if total.high < 0:
        return REVERSED_LARGER
    if remaining.high < 0:
        return REVERSED
    return SIGN_UNCERTAIN if abs(remaining.estimate) < reference else CHANGED
