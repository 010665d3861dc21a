"""The Pareto front: chosen on dev alone, test figures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import moocore
import pandas as pd

from analysis.goals import own_goals
from analysis.load import COMPARISON, ERM, PAPER, Study
from analysis.nulls import NoiseFloor

REFERENCE_POINT = (0.0, 0.5)
"""W-F1 0 and a gap of 50 points: worse than anything that a study is expected to hold, so hypervolumes compare."""

MANY = 16
"""Above this many configurations a figure shows less of each."""


def front(configurations: pd.DataFrame) -> pd.DataFrame:
    """Mark the configurations that no other one beats on dev W-F1 (higher) and dev gap (lower) at once.

    Two configurations with the same two figures are both on the front. A configuration that is not ``complete``, or
    whose gap is undefined, neither enters the front nor keeps another one out.

    Args:
        configurations: has ``dev_w_f1``, ``dev_gap`` (fractions) and ``complete``.

    Returns:
        A copy with the boolean column ``on_front``; no other column is used or changed.
    """
    eligible = configurations["complete"] & configurations[["dev_w_f1", "dev_gap"]].notna().all(axis=1)
    on_front = pd.Series(False, index=configurations.index)
    if eligible.any():
        points = configurations.loc[eligible, ["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
        on_front[eligible] = moocore.is_nondominated(points, maximise=[True, False], keep_weakly=True)
    return configurations.assign(on_front=on_front.astype(bool))


def hypervolume(points: pd.DataFrame, reference: tuple[float, float] = REFERENCE_POINT) -> float:
    """The area of (W-F1, gap) that the front dominates, up to the reference point; bigger is better.

    Args:
        points: output of :func:`front`; dev figures of its front are used.
        reference: (W-F1, gap) as fractions; a point beyond it adds nothing.

    Returns:
        An area in squared fractions; 0 without a front.
    """
    chosen = points.loc[points["on_front"], ["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
    return float(moocore.hypervolume(chosen, ref=reference, maximise=[True, False])) if len(chosen) else 0.0


@dataclass(frozen=True)
class ParetoInfo:
    """What the Pareto figure shows, in points, with every word of it.

    Attributes:
        points: one row a configuration: ``name, label, family, complete, on_front, named, dev_w_f1, dev_gap,
            test_w_f1, test_gap``. Configurations without a dev gap are left out; ``named`` are the front, ERM, the
            paper's setting and comparison methods that have a label.
        test_of_named_only: whether test points are drawn for the named ones alone, there being many.
        floor: 5 %, mean and 95 % of the noise floor of the gap, if it could be computed.
        title, subtitle, caption: sentences.
    """

    points: pd.DataFrame
    test_of_named_only: bool
    floor: tuple[float, float, float] | None
    title: str
    subtitle: str
    caption: str


def pareto_info(study: Study, floor: NoiseFloor | None = None) -> ParetoInfo:
    """The data and the words of the Pareto figure.

    Args:
        floor: the noise floor of the reference configuration on dev.
    """
    figures = ["dev_w_f1", "dev_gap", "test_w_f1", "test_gap"]
    points = front(study.configurations)
    points = points[["name", "label", "family", "complete", "on_front", *figures]].dropna(subset=["dev_gap"])
    points = points.assign(
        named=_named(points),
        **{figure: 100 * points[figure] for figure in figures},
    ).reset_index(drop=True)
    many = len(points) > MANY
    plan = study.plan
    n, n_seeds = len(study.configurations), len(study.seeds)
    seeds = "one seed each: differences of this size may be noise" if n_seeds == 1 else f"means of {n_seeds} seeds"
    sentences = [
        "Filled markers: development figures, on which the front (line) is chosen.",
        f"Hollow markers: {'front, ERM, paper and comparison methods' if many else 'the same configurations'} on test.",
    ]
    if many:
        sentences.append("Small markers: all other configurations.")
    if not points["complete"].all():
        sentences.append("Faded markers: not every seed has finished, or not every modality was heard.")
    if floor is not None:
        sentences.append(
            f"Shaded: noise floor, the development gap that a model blind to gender would show by chance "
            f"(mean {100 * floor.mean:.1f}, {100 * floor.low:.1f} to {100 * floor.high:.1f} in 90 % of "
            f"{floor.permutations} deals of the genders, cluster by cluster, their label priors kept)."
        )
    also = "Also: e" if own_goals(plan) else "E"
    return ParetoInfo(
        points=points,
        test_of_named_only=many,
        floor=None if floor is None else (100 * floor.low, 100 * floor.mean, 100 * floor.high),
        title=f"{also}motion recognition against gender gap ({plan['corpus']['name']} corpus)",
        subtitle=f"{n} configuration{'s' if n != 1 else ''}, backbone {plan['backbone']['spec']}, "
        f"{' and '.join(plan['modalities'])}; {seeds}",
        caption=" ".join([*sentences, *study.notes]),
    )


@dataclass(frozen=True)
class CellsInfo:
    """What the small multiples show: dev W-F1 against the AVG gap of each cell, in points.

    Attributes:
        points: one row a (configuration, cell): ``cell, name, label, family, complete, on_front, named, dev_w_f1,
            dev_gap``. ``on_front`` is that of the study, over all cells; ``best_here`` that of the cell alone.
        sizes: by cell, its dev utterances of women and of men.
        floors: by cell, 5 %, mean and 95 % of its noise floor, where it could be computed.
        title, subtitle, caption: sentences.
    """

    points: pd.DataFrame
    sizes: dict[str, tuple[int, int]]
    floors: dict[str, tuple[float, float, float]]
    title: str
    subtitle: str
    caption: str


def cells_info(study: Study, floors: Mapping[str, NoiseFloor]) -> CellsInfo:
    """The data and the words of the Pareto figure by language and modality.

    Args:
        floors: by cell, the noise floor of the reference configuration on dev.
    """
    dev = study.cells[study.cells["split"] == "dev"]
    dev = dev.assign(cell=dev["language"] + "/" + dev["modality"])
    figures = {"w_f1": "dev_w_f1", "gap": "dev_gap"}
    grouped = dev.astype(dict.fromkeys(figures, float)).groupby(["cell", "config_id"], sort=False)
    means = grouped[list(figures)].mean(skipna=False).rename(columns=figures).reset_index()
    chosen = front(study.configurations)[["config_id", "name", "label", "family", "complete", "on_front"]]
    points = means.merge(chosen, on="config_id").dropna(subset=["dev_gap"])
    best = [front(rows)["on_front"] for _, rows in points.groupby("cell", sort=False)]
    points = points.assign(
        best_here=pd.concat(best) if best else False,
        named=_named(points),
        dev_w_f1=100 * points["dev_w_f1"],
        dev_gap=100 * points["dev_gap"],
    )
    sizes = dev.groupby("cell", sort=False)[["n_female", "n_male"]].first()
    return CellsInfo(
        points=points.drop(columns="config_id").reset_index(drop=True),
        sizes={str(cell): (int(row["n_female"]), int(row["n_male"])) for cell, row in sizes.iterrows()},
        floors={cell: (100 * floor.low, 100 * floor.mean, 100 * floor.high) for cell, floor in floors.items()},
        title="By language and modality",
        subtitle="development figures; black rims: the study's front, over all cells",
        caption="Line: what would be the front if this cell alone counted. Shaded: the noise floor of this cell. "
        "F and M: its utterances of women and of men.",
    )


def _named(points: pd.DataFrame) -> pd.Series:
    return points["on_front"] | points["label"].notna() & points["family"].isin([ERM, PAPER, COMPARISON])
