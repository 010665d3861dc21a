"""The Pareto front: chosen on dev alone, test figures beside it."""

from __future__ import annotations

import moocore
import pandas as pd

REFERENCE_POINT = (0.0, 0.5)
"""W-F1 0 and a gap of 50 points: worse than anything that a study is expected to hold, so hypervolumes compare."""


def front(configurations: pd.DataFrame) -> pd.DataFrame:
    """Mark the configurations that no other one beats on dev W-F1 (higher) and dev gap (lower) at once.

    Two configurations with the same two figures are both on the front. A configuration that is not ``complete``, or
    whose gap is undefined, neither enters the front nor keeps another one out.

    Args:
        configurations: has ``dev_w_f1``, ``dev_gap`` (fractions) and ``complete``.

    Returns:
        A copy with the boolean column ``on_front``; no other column is used or changed.
    """
    eligible = configurations["complete"] & configurations[["dev_w_f1", "dev_gap"]].notna().all(axis=1)
    on_front = pd.Series(False, index=configurations.index)
    if eligible.any():
        points = configurations.loc[eligible, ["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
        on_front[eligible] = moocore.is_nondominated(points, maximise=[True, False], keep_weakly=True)
    return configurations.assign(on_front=on_front.astype(bool))


def hypervolume(points: pd.DataFrame, reference: tuple[float, float] = REFERENCE_POINT) -> float:
    """The area of (W-F1, gap) that the front dominates, up to the reference point; bigger is better.

    Args:
        points: output of :func:`front`; dev figures of its front are used.
        reference: (W-F1, gap) as fractions; a point beyond it adds nothing.

    Returns:
        An area in squared fractions; 0 without a front.
    """
    chosen = points.loc[points["on_front"], ["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
    return float(moocore.hypervolume(chosen, ref=reference, maximise=[True, False])) if len(chosen) else 0.0


KNOWN = ("config_id", "number", "label", "name", "family", "complete")


def eligible(configurations: pd.DataFrame) -> pd.DataFrame:
    """What a rule may see: configurations with every seed and a dev gap, their dev figures, nothing of test.

    Args:
        configurations: of :class:`analysis.loading.study.Study`.

    Returns:
        ``KNOWN`` and the columns that begin with ``dev_``, in the order of the trials.
    """
    usable = configurations["complete"] & configurations[["dev_w_f1", "dev_gap"]].notna().all(axis=1)
    columns = [*KNOWN, *(column for column in configurations if str(column).startswith("dev_"))]
    return configurations.loc[usable, columns].sort_values("number", kind="stable", ignore_index=True)
