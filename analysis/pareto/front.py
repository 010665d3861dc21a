"""The Pareto front of W-F1 and gender gap on dev, and its hypervolume."""

from __future__ import annotations

import moocore
import pandas as pd

REFERENCE_POINT = (0.0, 0.5)
"""Reference point of the hypervolume: W-F1 0 and a gap of 50 points. It is fixed so that hypervolumes of different
studies compare; configurations are expected to be better."""

_DEV_COLUMNS = ["config_id", "number", "label", "name", "family", "complete"]


def front(configurations: pd.DataFrame) -> pd.DataFrame:
    """Mark the configurations that no other one dominates on dev W-F1 (higher is better) and dev gap (lower is better).

    Configurations with identical figures are all on the front. A configuration that is not ``complete``, or whose gap
    is undefined, is not on the front and dominates none.

    Args:
        configurations: with the columns ``dev_w_f1``, ``dev_gap`` (fractions) and ``complete``.

    Returns:
        A copy with the boolean column ``on_front``.
    """
    candidate = _is_candidate(configurations)
    on_front = pd.Series(False, index=configurations.index)
    if candidate.any():
        points = configurations.loc[candidate, ["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
        on_front[candidate] = moocore.is_nondominated(points, maximise=[True, False], keep_weakly=True)
    return configurations.assign(on_front=on_front.astype(bool))


def hypervolume(points: pd.DataFrame, reference: tuple[float, float] = REFERENCE_POINT) -> float:
    """Return the area of (W-F1, gap) dominated by the front, bounded by the reference point; larger is better.

    Args:
        points: output of :func:`front`.
        reference: (W-F1, gap) as fractions; a point worse than it contributes nothing.

    Returns:
        An area in squared fractions; 0 without a front.
    """
    chosen = points.loc[points["on_front"], ["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
    return float(moocore.hypervolume(chosen, ref=reference, maximise=[True, False])) if len(chosen) else 0.0


def eligible(configurations: pd.DataFrame) -> pd.DataFrame:
    """Return the configurations that a selection rule may choose, with dev figures and without test figures.

    Args:
        configurations: of :class:`analysis.loading.study.Study`.

    Returns:
        Configurations with all seeds and a dev gap, in the order of the trials: ``config_id, number, label, name,
        family, complete`` and all columns that begin with ``dev_``.
    """
    columns = [*_DEV_COLUMNS, *(column for column in configurations if str(column).startswith("dev_"))]
    chosen = configurations.loc[_is_candidate(configurations), columns]
    return chosen.sort_values("number", kind="stable", ignore_index=True)


def _is_candidate(configurations: pd.DataFrame) -> pd.Series:
    return configurations["complete"] & configurations[["dev_w_f1", "dev_gap"]].notna().all(axis=1)
