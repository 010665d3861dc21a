"""Where the seconds of a study went: training, evaluation, the way to the first step, and the rest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.loading.records import finished_of
from analysis.loading.study import Study
from study.storage.records import read_trials

WAITED = ("workers", "placement", "processes")
"""What new workers cost: their places and processes, in older records together. Those that have served a trial before
wait for none."""


def time_spent(study: Study) -> pd.DataFrame:
    """Seconds of each finished trial, wall clock of its worker group.

    Returns:
        One row a trial: ``number, name, trial, training, evaluation, start`` (from the beginning of the trial to the
        end of its first step), ``new`` (whether its workers were), ``rest``. NaN where a record does not say.
    """
    names = study.configurations.set_index("config_id")["name"]
    rows = []
    for trial in read_trials(study.folder).values():
        if trial["state"] != "finished" or trial["config_id"] not in names.index:
            continue
        own = study.runs[study.runs["config_id"] == trial["config_id"]]
        finished = [finished_of(study.folder, trial["config_id"], seed) for seed in own["seed"]]
        startup = finished[0].get("startup") or {}
        row = {
            "number": trial["number"],
            "name": names[trial["config_id"]],
            "trial": float(trial["seconds"]),
            "training": _sum(finished, "train"),
            "evaluation": _sum(finished, "evaluate"),
            "start": float(sum(startup.values())) if startup else np.nan,
            "new": _new(startup),
        }
        rows.append(row | {"rest": row["trial"] - row["training"] - row["evaluation"] - row["start"]})
    return pd.DataFrame(
        rows, columns=["number", "name", "trial", "training", "evaluation", "start", "new", "rest"]
    ).astype({"new": bool})


def start_parts(study: Study) -> pd.DataFrame:
    """What the way to a first step went to: median seconds of each part, by whose it was.

    Returns:
        One row each of first seeds on new workers, on workers of an earlier trial, and of the seeds that follow in the
        same workers, as far as there are any: ``runs``, then the parts in the order in which records name them.
    """
    rows = []
    for config_id, seeds in study.runs.groupby("config_id", sort=False)["seed"]:
        for i, seed in enumerate(seeds):
            startup = finished_of(study.folder, str(config_id), seed).get("startup")
            if startup:
                earlier = "a following seed" if i else "a first seed on workers of an earlier trial"
                rows.append({"run": "a first seed on new workers" if _new(startup) else earlier, **startup})
    if not rows:
        return pd.DataFrame()
    grouped = pd.DataFrame(rows).fillna(0.0).groupby("run", sort=False)
    parts = grouped.median()
    parts.insert(0, "runs", grouped.size())
    return parts.assign(together=parts.drop(columns="runs").sum(axis=1)).reset_index()


def time_in_words(spent: pd.DataFrame) -> str:
    """The share of training and evaluation, and how long trials took to their first step; empty without records."""
    known = spent.dropna()
    if known.empty:
        return ""
    share = (known["training"] + known["evaluation"]).sum() / known["trial"].sum()
    starts = {
        "on new workers": known.loc[known["new"], "start"].median(),
        "on workers of an earlier trial": known.loc[~known["new"], "start"].median(),
    }
    said = [f"{seconds:.1f} s {where}" for where, seconds in starts.items() if not np.isnan(seconds)]
    return (
        f"{share:.0%} of {len(known)} trials' time was training and evaluation; to the first step {', '.join(said)} "
        "(medians)"
    )


def _new(startup: Mapping[str, float]) -> bool:
    return any(startup.get(part, 0.0) > 0.0 for part in WAITED)


def _sum(finished: list[dict], part: str) -> float:
    return float(sum((run.get("seconds") or {}).get(part, np.nan) for run in finished))
