"""The first lines of a report: its result in a sentence or two, and the caveats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.pareto.objectives_front import describe_objectives
from analysis.pareto.uncertainty import Uncertainty
from analysis.report.context import ReportContext
from analysis.stats.cluster_counts import FEW_CLUSTERS

MAX_NAMED = 12
CHANCE_MARGIN = 0.02
"""A configuration whose W-F1 exceeds chance by at most this fraction counts as no better than chance."""


def headline(context: ReportContext) -> str:
    """Return the result of a study: its Pareto front on dev, first over the study's own search objectives."""
    result = front_headline(context.points)
    if context.objectives is None:
        return result
    n_front, n_all = int(context.objectives["on_front"].sum()), len(context.objectives)
    return (
        f"{n_front} of {n_all} configurations {_are(n_front)} on the Pareto front of the search objectives "
        f"({describe_objectives(context.study.plan)}), on dev. For W-F1 and the gender gap: {result}"
    )


def front_headline(points: pd.DataFrame) -> str:
    """Return the size of the front of W-F1 and gender gap, and its two ends.

    Args:
        points: output of :func:`analysis.pareto.front.front`.
    """
    front = points[points["on_front"]]
    if front.empty:
        return "There is no Pareto front: no configuration has finished every seed with a defined gender gap."
    best, fairest = front.nlargest(1, "dev_w_f1").iloc[0], front.nsmallest(1, "dev_gap").iloc[0]
    first, last = _figures(best), _figures(fairest)
    if len(points) == 1:
        return f"The only configuration, {best['name']}, has {first} on dev."
    if len(front) == 1:
        return f"{best['name']} is the best of {len(points)} configurations on both objectives: {first}, on dev."
    share = f"{len(front)} of {len(points)} configurations are on the Pareto front"
    if first == last:
        return f"{share}, all with {first} on dev: {join_names(front['name'].tolist())}."
    return f"{share}. On dev they range from {first} ({best['name']}) to {last} ({fairest['name']})."


def caveats(context: ReportContext) -> list[str]:
    """Return what a reader must know before trusting the figures, one to four sentences each."""
    study, points = context.study, context.points
    notes = study.notes
    if len(study.seeds) == 1:
        notes.append(
            "Each configuration was trained with one seed, so a difference between two configurations may be a "
            "difference between seeds."
        )
    notes.append(sample_size_caveat(study, points, context.uncertainty))
    few = context.uncertainty.fewest_clusters
    if 0 < few < FEW_CLUSTERS:
        by = context.uncertainty.by
        notes.append(
            f"In one cell, one gender has only {few} {by}s on dev. The report makes no claim about other {by}s, and "
            "the noise floor and the intervals are not reliable."
        )
    if chance := chance_caveat(study, context.chance):
        notes.append(chance)
    skipped = study.plan["corpus"].get("skipped", 0)
    if skipped and not any("skipped" in note for note in notes):  # some corpus readers note it themselves
        notes.append(f"{skipped} clips were missing or unreadable and were skipped; study.json lists them.")
    return [*notes, *_left_out(study, points)]


def sample_size_caveat(study: Study, points: pd.DataFrame, uncertainty: Uncertainty) -> str:
    """Describe the smallest cell, and the gap that chance alone produces in samples of this size."""
    dev = study.cells[study.cells["split"] == "dev"]
    smallest = dev.iloc[int(dev[["n_female", "n_male"]].min(axis=1).argmin())]
    size = (
        f"The smallest cell on dev ({smallest['language']}, {smallest['modality']}) has {smallest['n_female']} "
        f"utterances by women and {smallest['n_male']} by men."
    )
    floor = uncertainty.floor
    if floor is None and points["dev_gap"].isna().all():
        return f"{size} No cell has utterances by both genders, so there is no gender gap to report."
    if floor is None:
        return (
            f"{size} There is no noise floor: in some cell too few {uncertainty.by}s can swap genders, so the gap "
            "expected by chance is unknown."
        )
    within = points[points["dev_gap"] <= floor.high]["name"].tolist()
    which = f"Dev gaps within the noise floor: {join_names(within)}." if within else "Every dev gap is above it."
    return (
        f"{size} In samples of this size, a model that treats both genders alike shows a gap of "
        f"{POINTS * floor.mean:.1f} points on average, and of at most {POINTS * floor.high:.1f} in 95 % of "
        f"permutations. This noise floor uses the predictions of {uncertainty.reference} and keeps the label "
        f"distribution of each gender; another configuration has another floor. {which} A difference between two gaps "
        "can be noise even if both are above the floor."
    )


def chance_caveat(study: Study, chance: Mapping[str, float]) -> str:
    """Name the configurations whose dev W-F1 in a language is no better than chance; empty if there are none.

    Args:
        chance: by language, the W-F1 of a model that ignores its input
            (:func:`analysis.stats.chance.chance_w_f1`).
    """
    dev = study.cells[study.cells["split"] == "dev"].astype({"w_f1": float})
    means = dev.groupby(["config_id", "language"], sort=False)["w_f1"].mean().unstack("language")
    names = study.configurations.set_index("config_id")["name"]
    languages: dict[tuple[str, ...], list[str]] = {}
    for language, level in chance.items():
        if language in means:
            at_chance = tuple(names[names.index.isin(means.index[means[language] <= level + CHANCE_MARGIN])])
            languages.setdefault(at_chance, []).append(f"{language} (chance level {POINTS * level:.1f})")
    languages.pop((), None)
    if not languages:
        return ""
    collapsed = ". ".join(f"In {', '.join(where)}: {join_names(who)}" for who, where in languages.items())
    return (
        f"Some models are no better than chance: their dev W-F1 is at most {POINTS * CHANCE_MARGIN:.0f} points above "
        f"chance level. {collapsed}. Chance level is the W-F1 of always answering the most frequent emotion, or of "
        "drawing answers from the label distribution if that is higher. A model that ignores its input has almost no "
        "gap, so a small gap in these languages is not evidence of fairness."
    )


def join_names(names: Sequence[str]) -> str:
    """Join the first ``MAX_NAMED`` names, and count the rest.

    >>> join_names(["ERM, balanced", "trial 1"])
    'ERM, balanced; trial 1'
    >>> join_names([f"trial {i}" for i in range(1000)]).endswith("trial 11 and 988 more")
    True
    """
    rest = len(names) - MAX_NAMED
    return "; ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _left_out(study: Study, points: pd.DataFrame) -> list[str]:
    """Name what is not on the front although it was planned or trained, and why."""
    notes = []
    few_seeds = points["n_seeds"] < len(study.seeds)
    unfinished, other_cells = (points[~points["complete"] & rows]["name"].tolist() for rows in (few_seeds, ~few_seeds))
    if unfinished:
        notes.append(f"Not on the front because some seeds have not finished: {join_names(unfinished)}.")
    if other_cells:
        notes.append(
            "Not on the front because they were trained on only some of the study's modalities: "
            f"{join_names(other_cells)}. Their figures are means over fewer cells, and they are compared with the "
            "reference on these cells only."
        )
    without_gap = points[points["dev_gap"].isna()]["name"].tolist()
    if 0 < len(without_gap) < len(points):
        notes.append(f"Not on the front because their gender gap is undefined: {join_names(without_gap)}.")
    planned = study.plan.get("trials")
    ended = len(points) + len(study.failed) + len(study.pruned)
    if planned and ended < planned:
        notes.append(f"The study has not finished: {ended} of {planned} planned trials have ended.")
    if len(study.pruned):
        notes.append(f"Trials stopped early, which are not on the front: {len(study.pruned)} (see trials/*.json).")
    failed = [f"Trial {row.number} failed and is not in the report: {row.reason}" for row in study.failed.itertuples()]
    notes += failed[:MAX_NAMED]
    if len(failed) > MAX_NAMED:
        notes.append(f"{len(failed) - MAX_NAMED} more trials failed (see trials/*.json).")
    return notes


def _figures(point: pd.Series) -> str:
    return f"W-F1 {POINTS * point['dev_w_f1']:.1f} and a gender gap of {POINTS * point['dev_gap']:.1f} points"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
