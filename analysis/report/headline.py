"""A study in words: its answer in one sentence, and what a reader must know before believing it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.pareto.uncertainty import Uncertainty
from analysis.stats.cluster_counts import FEW_CLUSTERS

NAMED = 12
COLLAPSED = 0.5
"""Below this share of the best W-F1 on the front, a configuration hardly tells emotions apart."""


def answer(points: pd.DataFrame) -> str:
    """The study in one sentence: the size of the front, and its two ends on dev."""
    chosen = points[points["on_front"]]
    if chosen.empty:
        return "No configuration is complete and has a gender gap, so there is no front."
    best, fairest = chosen.nlargest(1, "dev_w_f1").iloc[0], chosen.nsmallest(1, "dev_gap").iloc[0]
    n, of = len(chosen), len(points)
    if n == 1:
        return (
            f"One of {of} configurations beats all others on both: {best['name']}, with W-F1 "
            f"{POINTS * best['dev_w_f1']:.1f} and a gender gap of {POINTS * best['dev_gap']:.1f} points on dev."
        )
    return (
        f"{n} of {of} configurations are on the front: from W-F1 {POINTS * best['dev_w_f1']:.1f} at a gender gap of "
        f"{POINTS * best['dev_gap']:.1f} points ({best['name']}) to a gap of {POINTS * fairest['dev_gap']:.1f} at W-F1 "
        f"{POINTS * fairest['dev_w_f1']:.1f} ({fairest['name']}), on dev."
    )


def warnings_of(study: Study, points: pd.DataFrame, uncertainty: Uncertainty) -> list[str]:
    """What a reader must know before believing the figures, one sentence or two each."""
    notes = study.notes
    if len(study.seeds) == 1:
        notes.append("One seed each: differences between configurations may be those between seeds.")
    dev = study.cells[study.cells["split"] == "dev"]
    smallest = dev.iloc[int(dev[["n_female", "n_male"]].min(axis=1).argmin())]
    size = (
        f"The smallest cell ({smallest['language']}, {smallest['modality']}) has {smallest['n_female']} utterances of "
        f"women and {smallest['n_male']} of men on dev."
    )
    floor = uncertainty.floor
    if floor is None and points["dev_gap"].isna().all():
        notes.append(f"{size} No cell has both genders, so there is no gap to report.")
    elif floor is None:
        notes.append(
            f"{size} No noise floor: in some cell too few {uncertainty.by}s can exchange their genders, so the "
            "gap expected without any bias is not known."
        )
    else:
        inside = points[points["dev_gap"] <= floor.high]["name"].tolist()
        which = f"the dev gaps of {some(inside)} are not above it" if inside else "every dev gap is above it"
        notes.append(
            f"{size} At these sizes a model blind to gender would show a gap of {POINTS * floor.mean:.1f} points on "
            f"average and up to {POINTS * floor.high:.1f} in 95 % of draws (noise floor, from "
            f"{uncertainty.reference}, the genders' label priors kept; another configuration has another floor): "
            f"{which}. A difference between two gaps can be noise too, wherever they lie."
        )
    if 0 < uncertainty.fewest_clusters < FEW_CLUSTERS:
        notes.append(
            f"A gender of one cell has only {uncertainty.fewest_clusters} {uncertainty.by}s on dev: no claim about "
            f"a population of {uncertainty.by}s can be made, and neither floor nor intervals can be relied on."
        )
    chosen = points[points["on_front"]]
    collapsed = chosen[chosen["dev_w_f1"] < COLLAPSED * chosen["dev_w_f1"].max()]["name"].tolist()
    if collapsed:
        notes.append(
            f"On the front with less than half of its best W-F1: {some(collapsed)}. A model that tells few emotions "
            "apart shows little gap: it is no fair model."
        )
    skipped = study.plan["corpus"].get("skipped", 0)
    if skipped and not any("skipped" in note for note in notes):  # some readers say it themselves
        notes.append(f"{skipped} clips were missing or unreadable and were skipped; study.json names them.")
    few = points["n_seeds"] < len(study.seeds)
    incomplete, elsewhere = (points[~points["complete"] & where]["name"].tolist() for where in (few, ~few))
    if incomplete:
        notes.append(f"Incomplete, so kept out of the front: {some(incomplete)} (not every seed has finished).")
    if elsewhere:
        notes.append(
            f"Trained on some of the study's modalities only, so kept out of the front: {some(elsewhere)}. Their "
            "figures are means over fewer cells; they are compared there, cell by cell."
        )
    without = points[points["dev_gap"].isna()]["name"].tolist()
    if without and floor is not None:
        notes.append(f"Without a gender gap, so kept out of the front: {some(without)}.")
    planned = study.plan.get("trials")
    seen = len(points) + len(study.failed) + len(study.pruned)
    if planned and seen < planned:
        notes.append(f"{planned} trials were planned, {seen} are here: the study has not ended.")
    if len(study.pruned):
        notes.append(f"Stopped early, so kept out of the front: {len(study.pruned)} trials (trials/*.json say where).")
    failed = [f"Trial {row.number} failed and is left out: {row.reason}" for row in study.failed.itertuples()]
    notes += failed[:NAMED]
    if len(failed) > NAMED:
        notes.append(f"{len(failed) - NAMED} more trials failed; their reasons are in trials/.")
    return notes


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are.

    >>> some(["ERM, balanced", "trial 1"])
    'ERM, balanced; trial 1'
    >>> some([f"trial {i}" for i in range(1000)]).endswith("trial 11 and 988 more")
    True
    """
    left = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f" and {left} more" if left > 0 else "")
