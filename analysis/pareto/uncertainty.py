"""Uncertainty of a study's dev figures: noise floors of the gap and confidence intervals of W-F1."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.constants import ERM
from analysis.loading.study import Study
from analysis.pareto.front import front
from analysis.stats.bootstrap import bootstrap, interval
from analysis.stats.cluster_counts import ClusterBy, cluster_by, counts_of
from analysis.stats.permutation import NoiseFloor, noise_floor

INTERVALS_OF_ALL = 64
"""Up to this many configurations all have an interval; with more, only labelled ones and the front have one."""


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of a study's dev figures.

    Attributes:
        reference: name of the configuration whose predictions the noise floors are computed from.
        by: unit of resampling.
        floor: noise floor of the mean gap over cells; ``None`` if no cell has both genders or too few clusters are
            exchangeable.
        floors: noise floor by cell (such as ``en/speech``); cells without one are absent.
        intervals: by config_id, the 95 % interval of W-F1 as fractions; see ``INTERVALS_OF_ALL``.
        fewest_clusters: number of clusters with the rarer gender, smallest over the cells with a gap; 0 without any.
    """

    reference: str
    by: ClusterBy
    floor: NoiseFloor | None
    floors: dict[str, NoiseFloor]
    intervals: dict[str, tuple[float, float]]
    fewest_clusters: int


def uncertainty_of(study: Study, permutations: int = 200, resamples: int = 300, seed: int = 0) -> Uncertainty:
    """Compute noise floors of the reference configuration and intervals of W-F1 on dev.

    The reference is ERM, which is trained without a fairness term; if it is incomplete, the complete configuration with
    the best dev W-F1.

    Args:
        study: with at least one finished run.
        permutations: number of permutations of each floor.
        resamples: number of resamples of each interval.
        seed: random seed.
    """
    reference = study.configuration(ERM)
    if reference is None or not reference["complete"]:
        complete = study.configurations[study.configurations["complete"]]
        pool = study.configurations if complete.empty else complete
        reference = pool.nlargest(1, "dev_w_f1").iloc[0]
    by = cluster_by(study.plan)
    intervals = {}
    for config_id in _with_interval(study.configurations):
        counts = counts_of(study, config_id, "dev", by)
        draws = bootstrap(counts, ("w_f1",), resamples, seed)
        all_cells = range(len(counts.cells))
        of_w_f1 = interval(*draws.of("w_f1", all_cells), draws.clusters("w_f1", all_cells)).within(0.0, 1.0)
        intervals[config_id] = (of_w_f1.low, of_w_f1.high)
    of_reference = counts_of(study, str(reference["config_id"]), "dev", by)
    by_cell = {str(cell): noise_floor(of_reference.of_cells([cell]), permutations, seed) for cell in of_reference.cells}
    return Uncertainty(
        reference=str(reference["name"]),
        by=by,
        floor=noise_floor(of_reference, permutations, seed),
        floors={cell: floor for cell, floor in by_cell.items() if floor is not None},
        intervals=intervals,
        fewest_clusters=bootstrap(of_reference, ("avg",), 0).clusters("avg", range(len(of_reference.cells))),
    )


def _with_interval(configurations: pd.DataFrame) -> list[str]:
    points = front(configurations)
    if len(points) > INTERVALS_OF_ALL:
        points = points[points["on_front"] | points["label"].notna()]
    return [str(config_id) for config_id in points["config_id"]]
