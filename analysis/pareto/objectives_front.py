"""The front of a study over its own objectives, whatever they are, with its requirements kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moocore
import pandas as pd

from analysis.formatting import format_hyperparameters
from study.storage.schemas import OBJECTIVES, objectives_of

POINTS = 100
COLUMNS = ("number", "name", "config_id", "hyperparameters", "missed", "spread")


def own_objectives(plan: dict[str, Any]) -> bool:
    """Whether a study searched for anything but W-F1 and gap: other objectives, or requirements beside them."""
    return bool(plan.get("constraints")) or set(objectives_of(plan)) != set(OBJECTIVES)


def in_words(plan: dict[str, Any]) -> str:
    """What a study searched for.

    >>> in_words({"objectives": [["dev_uar", "max"], ["seconds", "min"]], "constraints": ["dev_gap<=0.1"]})
    'dev_uar max, seconds min, with dev_gap<=0.1'
    """
    required = f", with {' and '.join(plan['constraints'])}" if plan.get("constraints") else ""
    return ", ".join(f"{metric} {mode}" for metric, mode in objectives_of(plan)) + required


def scale_of(metric: str) -> int:
    """From a value, or a bound on it, to what a reader is shown: points for rates and gaps, seconds as they are."""
    return 1 if metric.startswith("seconds") else POINTS


def objectives_front(plan: dict[str, Any], trials: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The finished trials, and which of them no other one beats on every objective at once.

    A trial that misses a requirement, or has not all seeds of the plan yet, neither enters the front nor keeps another
    out. A configuration that was proposed twice counts once, under the label that it has, if any.

    Args:
        plan: ``study.json``.
        trials: its records.

    Returns:
        One row a configuration: ``number, name, config_id, knobs``, ``missed`` (the requirements that it misses, with
        by how much), ``spread`` (the standard deviation of each objective over seeds; None of a single seed), a column
        for each objective (fractions; seconds) and ``on_front``.
    """
    objectives = objectives_of(plan)
    names = [metric for metric, _ in objectives]
    rows: dict[str, dict[str, Any]] = {}
    for trial in sorted(trials, key=lambda trial: (trial["label"] is None, trial["number"])):
        if trial["state"] != "finished" or len(trial.get("by_seed", plan["seeds"])) < len(plan["seeds"]):
            continue
        missed = {words: by for words, by in trial.get("violations", {}).items() if by > 0}
        row = {key: trial[key] for key in ("number", "config_id", "hyperparameters")} | {"missed": missed}
        row |= {"name": trial["label"] or f"trial {trial['number']}", "spread": trial.get("spread")}
        row |= dict(zip(names, trial["values"], strict=True))
        rows.setdefault(trial["config_id"], row)
    frame = pd.DataFrame(list(rows.values()), columns=[*COLUMNS, *names])
    able = frame["missed"].map(lambda missed: not missed).astype(bool)
    frame["on_front"] = False
    if able.any():
        points = frame.loc[able, names].to_numpy(dtype=float)
        maximise = [mode == "max" for _, mode in objectives]
        frame.loc[able, "on_front"] = moocore.is_nondominated(points, maximise=maximise, keep_weakly=True)
    return frame


def objectives_table(front: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """The front for a reader, best first by the first objective; rates and gaps in points, of several seeds with their
    standard deviation."""
    objectives = objectives_of(plan)
    names = [metric for metric, _ in objectives]
    chosen = front[front["on_front"]].sort_values(names[0], ascending=objectives[0][1] == "min")
    table = pd.DataFrame({"configuration": chosen["name"]})
    for i, name in enumerate(names):
        table[name] = [
            f"{scale_of(name) * value:.1f}" + (f" ± {scale_of(name) * spread[i]:.1f}" if spread else "")
            for value, spread in zip(chosen[name], chosen["spread"], strict=True)
        ]
    table["hyperparameters"] = [
        format_hyperparameters(hyperparameters) for hyperparameters in chosen["hyperparameters"]
    ]
    return table
