"""The Pareto front over the search objectives of a study, subject to its constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moocore
import pandas as pd

from analysis.formatting import POINTS, format_hyperparameters
from study.storage.schemas import OBJECTIVES, objectives_of

COLUMNS = ("number", "name", "config_id", "hyperparameters", "violations", "spread")


def has_custom_objectives(plan: dict[str, Any]) -> bool:
    """Check whether a study has search objectives other than W-F1 and gap, or constraints."""
    return bool(plan.get("constraints")) or set(objectives_of(plan)) != set(OBJECTIVES)


def describe_objectives(plan: dict[str, Any]) -> str:
    """Describe the search objectives and constraints of a study.

    >>> plan = {"objectives": [["dev_uar", "max"], ["seconds", "min"]], "constraints": ["dev_gap<=0.1"]}
    >>> describe_objectives(plan)
    'dev_uar max, seconds min, with dev_gap<=0.1'
    """
    constraints = f", with {' and '.join(plan['constraints'])}" if plan.get("constraints") else ""
    return ", ".join(f"{metric} {mode}" for metric, mode in objectives_of(plan)) + constraints


def display_scale(metric: str) -> float:
    """Return the factor from a value of a metric, or a bound on it, to its display: points for rates, or seconds."""
    return 1.0 if metric.startswith("seconds") else POINTS


def objectives_front(plan: dict[str, Any], trials: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """List the finished trials and mark those that no other one dominates on all search objectives.

    A trial that violates a constraint or lacks seeds of the plan is not on the front and dominates none. A
    configuration of several trials is listed once, under its label if it has one.

    Args:
        plan: content of ``study.json``.
        trials: trial records.

    Returns:
        One row per configuration: ``number, name, config_id, hyperparameters``, ``violations`` (amount by violated
        constraint), ``spread`` (standard deviation of each objective over seeds; None for a single seed), one column
        per objective (fractions or seconds) and ``on_front``.
    """
    objectives = objectives_of(plan)
    names = [metric for metric, _ in objectives]
    rows: dict[str, dict[str, Any]] = {}
    for trial in sorted(trials, key=lambda trial: (trial["label"] is None, trial["number"])):
        if trial["state"] != "finished" or len(trial.get("by_seed", plan["seeds"])) < len(plan["seeds"]):
            continue
        violations = {constraint: by for constraint, by in trial.get("violations", {}).items() if by > 0}
        row = {key: trial[key] for key in ("number", "config_id", "hyperparameters")} | {"violations": violations}
        row |= {"name": trial["label"] or f"trial {trial['number']}", "spread": trial.get("spread")}
        row |= dict(zip(names, trial["values"], strict=True))
        rows.setdefault(trial["config_id"], row)
    frame = pd.DataFrame(list(rows.values()), columns=[*COLUMNS, *names])
    feasible = frame["violations"].map(lambda violations: not violations).astype(bool)
    frame["on_front"] = False
    if feasible.any():
        points = frame.loc[feasible, names].to_numpy(dtype=float)
        maximise = [mode == "max" for _, mode in objectives]
        frame.loc[feasible, "on_front"] = moocore.is_nondominated(points, maximise=maximise, keep_weakly=True)
    return frame


def objectives_table(front: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """Return the front as a table for display, best value of the first objective first.

    Rates and gaps are in points, with their standard deviation over seeds if there are several.
    """
    objectives = objectives_of(plan)
    names = [metric for metric, _ in objectives]
    chosen = front[front["on_front"]].sort_values(names[0], ascending=objectives[0][1] == "min")
    table = pd.DataFrame({"configuration": chosen["name"]})
    for i, name in enumerate(names):
        scale = display_scale(name)
        table[name] = [
            f"{scale * value:.1f}" + (f" ± {scale * spread[i]:.1f}" if spread else "")
            for value, spread in zip(chosen[name], chosen["spread"], strict=True)
        ]
    table["hyperparameters"] = [format_hyperparameters(values) for values in chosen["hyperparameters"]]
    return table
