"""What chance alone could do in a study, on dev: the noise floors and the intervals of W-F1."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.loading.study import ERM, Study
from analysis.pareto.front import front
from analysis.stats.bootstrap import bootstrap, interval
from analysis.stats.cluster_counts import ClusterBy, cluster_by, counts_of
from analysis.stats.permutation import NoiseFloor, noise_floor

INTERVALS_OF_ALL = 64
"""Up to this many configurations each has its interval; of more, only those with a label and the front."""


@dataclass(frozen=True)
class Uncertainty:
    """What chance alone could do in a study, on dev.

    Attributes:
        reference: the name of the configuration whose predictions gave the floors.
        by: what was resampled as a whole.
        floor: its noise floor, ``None`` where no cell has both genders or too few clusters can exchange theirs.
        floors: by cell (``en/speech``), its noise floor there; cells without both genders are absent.
        intervals: by config_id, the interval of W-F1 as fractions, see ``INTERVALS_OF_ALL``.
        fewest_clusters: clusters with the rarer gender, in the cell with a gap that has fewest; 0 where none has one.
    """

    reference: str
    by: ClusterBy
    floor: NoiseFloor | None
    floors: dict[str, NoiseFloor]
    intervals: dict[str, tuple[float, float]]
    fewest_clusters: int


def uncertainty_of(study: Study, permutations: int = 200, resamples: int = 300, seed: int = 0) -> Uncertainty:
    """The noise floors of the reference configuration, and W-F1 intervals.

    The reference is ERM, whose gap nothing was done about; without it, the complete configuration of the best dev
    W-F1.

    Args:
        permutations: draws of a floor.
        resamples: draws of an interval.
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
        everywhere = range(len(counts.cells))
        made = interval(*draws.of("w_f1", everywhere), draws.clusters("w_f1", everywhere)).within(0.0, 1.0)
        intervals[config_id] = (made.low, made.high)
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
