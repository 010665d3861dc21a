"""How the wall-clock time of a study divides into training, evaluation, start-up and the rest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.loading.study import Study

WORKER_START = ("workers", "placement", "processes")
"""Start-up phases that only new workers have: placement and processes, which older records sum up as workers."""


def time_spent(study: Study) -> pd.DataFrame:
    """Return the seconds of each finished trial, in wall-clock time of its worker group.

    Returns:
        One row per trial: ``number, name, trial`` (in total), ``training, evaluation, start`` (until the end of the
        first step), ``new`` (whether it started new workers) and ``rest``. NaN where the records lack a time.
    """
    names = study.configurations.set_index("config_id")["name"]
    rows = []
    for trial in study.trials:
        if trial["state"] != "finished" or trial["config_id"] not in names.index:
            continue
        runs = study.runs[study.runs["config_id"] == trial["config_id"]]
        startup = runs["startup"].iloc[0] or {}
        row = {
            "number": trial["number"],
            "name": names[trial["config_id"]],
            "trial": float(trial["seconds"]),
            "training": float(runs["train_seconds"].sum(skipna=False)),
            "evaluation": float(runs["evaluate_seconds"].sum(skipna=False)),
            "start": float(sum(startup.values())) if startup else np.nan,
            "new": _started_workers(startup),
        }
        rows.append(row | {"rest": row["trial"] - row["training"] - row["evaluation"] - row["start"]})
    columns = ["number", "name", "trial", "training", "evaluation", "start", "new", "rest"]
    return pd.DataFrame(rows, columns=columns).astype({"new": bool})


def startup_phases(study: Study) -> pd.DataFrame:
    """Return the median seconds of each phase before the first step.

    Returns:
        Up to three rows, named by ``run``: a first seed on new workers, a first seed on the workers of an earlier
        trial, a later seed on the same workers. Columns: ``runs`` (their number), the phases, and ``together``.
    """
    rows = []
    for _, runs in study.runs.groupby("config_id", sort=False):
        for i, startup in enumerate(runs["startup"]):
            if startup:
                reused = "later seed, same workers" if i else "first seed, reused workers"
                rows.append({"run": "first seed, new workers" if _started_workers(startup) else reused, **startup})
    if not rows:
        return pd.DataFrame()
    grouped = pd.DataFrame(rows).fillna(0.0).groupby("run", sort=False)
    phases = grouped.median()
    phases.insert(0, "runs", grouped.size())
    return phases.assign(together=phases.drop(columns="runs").sum(axis=1)).reset_index()


def summarise_time(spent: pd.DataFrame) -> str:
    """Summarise :func:`time_spent` in one sentence without a full stop; empty if the records lack times."""
    known = spent.dropna()
    if known.empty:
        return ""
    share = (known["training"] + known["evaluation"]).sum() / known["trial"].sum()
    starts = {
        "on new workers": known.loc[known["new"], "start"].median(),
        "on workers of an earlier trial": known.loc[~known["new"], "start"].median(),
    }
    medians = ", ".join(f"{seconds:.1f} s {where}" for where, seconds in starts.items() if not np.isnan(seconds))
    return (
        f"Training and evaluation took {share:.0%} of the time of {len(known)} trials; the median time to the first "
        f"step was {medians}"
    )


def _started_workers(startup: Mapping[str, float]) -> bool:
    return any(startup.get(phase, 0.0) > 0.0 for phase in WORKER_START)
