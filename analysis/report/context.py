"""What the sections of a report share: the study, its front, and the comparisons, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from analysis.comparison.arms import adjusted
from analysis.comparison.paired import Comparison, compare
from analysis.loading.study import Study
from analysis.pareto.uncertainty import Uncertainty

MAX_COMPARED = 32
"""At most this many configurations are compared with ERM: first those with a label, then the front by dev W-F1."""

RESAMPLES_PER_ARM = 40
"""The p value of B permutations is at least 1/(B + 1). With 40 per arm, the smallest p passes Holm at 0.025."""


@dataclass(frozen=True)
class ReportContext:
    """The data of a report.

    Attributes:
        study: the study.
        confirmation: the study that trained its front again on fresh seeds, if there is one.
        points: the configurations with ``on_front``, from :func:`analysis.pareto.front.front`.
        objectives: the configurations over the study's own search objectives, from
            :func:`analysis.pareto.objectives_front.objectives_front`; ``None`` if it searched W-F1 and gap.
        selected: config_ids shown in detail, from :func:`select_configurations`.
        uncertainty: noise floors and intervals on dev.
        pareto: the figure of W-F1 against the gender gap.
        chance: by language, the dev W-F1 of a model that ignores its input.
        comparison: the selected configurations against ERM on test; ``None`` if there is nothing to compare.
        leave_one_out: leave-one-out and add-one-in arms against their reference on test.
        benchmark: by modality, the selected configurations in the benchmark's layout, on test.
        resamples: number of bootstrap resamples and permutations.
        seed: of all random draws.
    """

    study: Study
    confirmation: Study | None
    points: pd.DataFrame
    objectives: pd.DataFrame | None
    selected: list[str]
    uncertainty: Uncertainty
    pareto: Figure
    chance: dict[str, float]
    comparison: Comparison | None
    leave_one_out: list[Comparison]
    benchmark: dict[str, pd.DataFrame]
    resamples: int
    seed: int


def select_configurations(points: pd.DataFrame) -> list[str]:
    """Return the config_ids to show in detail: those with a label in their order, then the front, best W-F1 first.

    Args:
        points: output of :func:`analysis.pareto.front.front`.
    """
    front = points[points["on_front"]].sort_values("dev_w_f1", ascending=False)
    return list(dict.fromkeys([*points.loc[points["label"].notna(), "config_id"], *front["config_id"]]))


def compare_with(
    study: Study, reference: str, config_ids: Sequence[str], resamples: int, seed: int
) -> Comparison | None:
    """Compare configurations with a labelled one on test, with p values adjusted over the configurations.

    Args:
        reference: a label.
        config_ids: the first ``MAX_COMPARED`` that share a seed with the reference are compared.
        resamples: at least; more if there are many configurations.

    Returns:
        ``None`` if the reference or every other configuration has not finished.
    """
    base = study.configuration(reference)
    if base is None:
        return None
    seeds = set(study.seeds_of(base["config_id"]))
    paired = set(study.runs.loc[study.runs["seed"].isin(seeds), "config_id"]) - {base["config_id"]}
    only = [config_id for config_id in config_ids if config_id in paired][:MAX_COMPARED]
    enough = max(resamples, RESAMPLES_PER_ARM * len(only))
    return adjusted(compare(study, reference, "test", resamples=enough, seed=seed, only=only)) if only else None
