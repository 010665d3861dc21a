"""How sure a front is: what it attains over training seeds, who is on it in resamples, how it grew over a search.

All on dev, of configurations that have finished every seed and have a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
import pandas as pd

from analysis.loading.study import Study
from analysis.pareto.front import REFERENCE_POINT, eligible, front
from analysis.stats.bootstrap import bootstrap
from analysis.stats.cluster_counts import ClusterBy, cluster_by, counts_of
from study.storage.schemas import objectives_of

LEVELS = (25.0, 50.0, 75.0)


def attainment(study: Study, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """The empirical attainment surfaces of a study over its training seeds.

    Each seed gives a front of its own, of all configurations trained with it. The surface of level 50 is the edge of
    what at least half of these fronts attain (Grunert da Fonseca et al. 2001); of S seeds, that of level q is attained
    by at least q S / 100 of them, so two seeds have two different surfaces and five seeds three.

    Args:
        levels: per cent of the seeds.

    Returns:
        ``level, gap, w_f1``, fractions: the corners of each surface, the gap rising. A step line through them that
        keeps W-F1 until the next gap is the surface. No rows where there are fewer than two seeds.
    """
    runs = study.runs[study.runs["config_id"].isin(eligible(study.configurations)["config_id"])]
    return surfaces(runs.rename(columns={"dev_w_f1": "w_f1", "dev_gap": "gap"}), levels)


def surfaces(runs: pd.DataFrame, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """The surfaces of :func:`attainment`, of any ``seed, w_f1, gap``."""
    if runs["seed"].nunique() < 2:
        return pd.DataFrame(columns=["level", "gap", "w_f1"], dtype=float)
    runs = runs.sort_values("seed", kind="stable")  # moocore wants each set in one piece
    points = np.column_stack([runs["gap"], -runs["w_f1"]])  # and minimises both
    sets = runs["seed"].astype("category").cat.codes.to_numpy()
    corners = moocore.eaf(points, sets, percentiles=list(levels))
    made = pd.DataFrame({"level": corners[:, 2], "gap": corners[:, 0], "w_f1": -corners[:, 1]})
    return made.sort_values(["level", "gap"], ignore_index=True)


def probability_nondominated(
    study: Study, resamples: int = 500, seed: int = 0, by: ClusterBy | None = None, most: int = 100
) -> pd.DataFrame:
    """How often each configuration is on the front, had other clusters and other training seeds been drawn.

    In every draw the same clusters and the same training seeds are taken for all configurations, so what they share
    does not blur the front. Of S seeds S - 1 are drawn with replacement: the mean of so many varies as that of S new
    seeds does, where S of S would vary too little (Rao and Wu 1988). With one seed the draws are of clusters alone.

    A gap is a mean of absolute values, so a resample, whose cells are noisier than the sample, shows a larger one; the
    more so, the smaller the gap. Left alone that would push fair configurations off the front. So the draws of a
    configuration are moved until their mean is the observed figure; ``gap_bias`` is by how much they had to be. What
    stays is the bias of the observed gap itself, of about the same size: it is the noise floor's business
    (:func:`analysis.stats.permutation.noise_floor`), and where gaps lie within it the shares say little. This centring
    is ours.

    Args:
        resamples: how many draws.
        seed: of the draws.
        by: what is resampled as a whole; by default what suits the corpus.
        most: configurations to draw. Where there are more, they are those of the outermost layers: the front, then
            the front without it, and so on; the rest are left out and keep nobody off the front.

    Returns:
        One row a configuration that was drawn: ``config_id, name, on_front`` (as observed), ``probability`` (the share
        of draws), ``w_f1_bias, gap_bias`` (mean of the draws minus observed, fractions), ``resamples`` (those in which
        every gap is defined).
    """
    marked = front(eligible(study.configurations)).reset_index(drop=True)
    table = marked[["config_id", "name", "on_front"]]
    if len(table) > most:
        layers = moocore.pareto_rank(marked[["dev_w_f1", "dev_gap"]].to_numpy(dtype=float), maximise=[True, False])
        table = table.iloc[np.sort(np.argsort(layers, kind="stable")[:most])].reset_index(drop=True)
    if table.empty:
        return table.assign(probability=np.nan, w_f1_bias=np.nan, gap_bias=np.nan, resamples=0)
    by = cluster_by(study.plan, by)
    n_seeds = len(study.seeds)
    drawn_seeds = np.random.default_rng([seed, 1]).integers(0, n_seeds, (resamples, max(n_seeds - 1, 1)))
    shares = np.stack([(drawn_seeds == s).mean(1) for s in range(n_seeds)])  # (S, B)
    figures = np.empty((len(table), resamples, 2))
    bias = np.empty((len(table), 2))
    for row, config_id in enumerate(table["config_id"]):
        counts = counts_of(study, config_id, "dev", by).of_seeds(study.seeds)
        draws = bootstrap(counts, ("w_f1", "avg"), resamples, seed)
        for axis, name in enumerate(draws.names):
            points, resampled = draws.of(name, range(len(counts.cells)))
            of_draws = (shares * resampled).sum(0)
            defined = of_draws[~np.isnan(of_draws)]  # none, where every draw leaves a cell without a gender
            bias[row, axis] = (defined.mean() if defined.size else np.nan) - points.mean()
            figures[row, :, axis] = of_draws - bias[row, axis]
    figures = figures[:, ~np.isnan(figures).any((0, 2))]
    on_front = [
        moocore.is_nondominated(points, maximise=[True, False], keep_weakly=True) for points in figures.swapaxes(0, 1)
    ]
    return table.assign(
        probability=np.mean(on_front, axis=0) if on_front else np.nan,
        w_f1_bias=bias[:, 0],
        gap_bias=bias[:, 1],
        resamples=len(on_front),
    )


def hypervolume_history(study: Study) -> pd.DataFrame:
    """How the hypervolume of the front grew, trial by trial, in the order of the trials' numbers.

    Failed and unfinished trials have no place in it, nor has their time. ``hours`` are those of training and scoring
    times the ranks of a run: GPU-hours where a rank is a GPU, else hours of a rank on a CPU.

    Returns:
        One row a configuration: ``n_trials`` (1, 2, …), ``hours`` (of these trials, together) and ``hypervolume``
        (squared fractions, up to :data:`analysis.pareto.front.REFERENCE_POINT`).
    """
    done = eligible(study.configurations)
    seconds = study.configurations.set_index("config_id")["seconds"].reindex(done["config_id"]).to_numpy(dtype=float)
    num_workers = int((study.plan.get("parallelism") or {}).get("num_workers", 1))
    volume = moocore.Hypervolume(ref=REFERENCE_POINT, maximise=[True, False])
    points = done[["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
    return pd.DataFrame(
        {
            "n_trials": np.arange(1, len(done) + 1),
            "hours": num_workers * np.cumsum(seconds) / 3600,
            "hypervolume": [float(volume(points[: i + 1])) for i in range(len(done))],
        }
    )


def objectives_history(points: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """How the hypervolume over the study's own objectives grew, trial by trial.

    Each objective runs from the worst (0) to the best (1) that any allowed configuration of the study has, so that the
    figure compares nothing but the study with itself; one that all have alike counts as 1.

    Args:
        points: from :func:`analysis.pareto.objectives_front.goals_front`.

    Returns:
        One row an allowed configuration, in the order of the trials: ``n_trials`` and ``hypervolume``, from 0 to 1.
    """
    allowed = points[~points["missed"].astype(bool)].sort_values("number")
    signs = np.array([1.0 if mode == "max" else -1.0 for _, mode in objectives_of(plan)])
    values = signs * allowed[[metric for metric, _ in objectives_of(plan)]].to_numpy(dtype=float)
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    scaled = np.where(span > 0, (values - low) / np.where(span > 0, span, 1.0), 1.0)
    volume = moocore.Hypervolume(ref=np.zeros(len(signs)), maximise=[True] * len(signs))
    volumes = [float(volume(scaled[: i + 1])) for i in range(len(scaled))]
    return pd.DataFrame({"n_trials": np.arange(1, len(scaled) + 1), "hypervolume": volumes})
