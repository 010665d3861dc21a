"""Stability of the front on dev: attainment over training seeds, membership in resamples, growth over a search.

Configurations with all seeds and a defined gap enter.
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
    """Compute the empirical attainment surfaces of a study over its training seeds.

    Each seed has a front of the configurations trained with it. The surface of level 50 bounds the region that at least
    half of these fronts attain (Grunert da Fonseca et al. 2001). With S seeds, the surface of level q is attained by at
    least q S / 100 of them, so two seeds have two distinct surfaces and five seeds have three.

    Args:
        study: a study with several seeds.
        levels: percentages of the seeds.

    Returns:
        ``level, gap, w_f1`` (fractions): the corners of each surface, sorted by gap. The surface is the step line that
        keeps W-F1 until the next gap. No rows for fewer than two seeds.
    """
    runs = study.runs[study.runs["config_id"].isin(eligible(study.configurations)["config_id"])]
    return surfaces(runs.rename(columns={"dev_w_f1": "w_f1", "dev_gap": "gap"}), levels)


def surfaces(runs: pd.DataFrame, levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Compute the surfaces of :func:`attainment` from the columns ``seed, w_f1, gap``."""
    if runs["seed"].nunique() < 2:
        return pd.DataFrame(columns=["level", "gap", "w_f1"], dtype=float)
    runs = runs.sort_values("seed", kind="stable")  # moocore expects the points of a set to be contiguous
    points = np.column_stack([runs["gap"], -runs["w_f1"]])  # moocore minimises
    sets = runs["seed"].astype("category").cat.codes.to_numpy()
    corners = moocore.eaf(points, sets, percentiles=list(levels))
    table = pd.DataFrame({"level": corners[:, 2], "gap": corners[:, 0], "w_f1": -corners[:, 1]})
    return table.sort_values(["level", "gap"], ignore_index=True)


def probability_nondominated(
    study: Study, resamples: int = 500, seed: int = 0, by: ClusterBy | None = None, most: int = 100
) -> pd.DataFrame:
    """Estimate the probability that each configuration is on the front under resampling of clusters and seeds.

    In each resample all configurations share the same clusters and the same training seeds, so variation common to them
    does not affect the front. Of S seeds S − 1 are drawn with replacement: their mean has the variance of the mean of S
    new seeds, while that of S drawn seeds would vary too little (Rao and Wu 1988). With one seed only clusters are
    resampled.

    A gap is a mean of absolute values, so it is larger in resamples, whose cells are noisier than the sample, and the
    more so the smaller it is. Uncorrected, this would push fair configurations off the front. The draws of each
    configuration are therefore shifted so that their mean is the observed figure; ``gap_bias`` is the size of the
    shift. This centring is our choice. It does not remove the bias of the observed gap itself, which is of similar size
    and which the noise floor describes (:func:`analysis.stats.permutation.noise_floor`); probabilities of
    configurations with gaps below the floor carry little information.

    Args:
        study: a study with finished runs.
        resamples: number of resamples.
        seed: random seed.
        by: unit of resampling; by default that of the corpus.
        most: largest number of configurations to resample. If there are more, the outermost non-dominated layers are
            taken; the others are left out and dominate none.

    Returns:
        One row per resampled configuration: ``config_id, name, on_front`` (as observed), ``probability`` (share of the
        resamples), ``w_f1_bias, gap_bias`` (mean of the draws minus observed, fractions), ``resamples`` (those in which
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
            defined = of_draws[~np.isnan(of_draws)]  # empty if in every draw some cell lacks a gender
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
    """Compute the hypervolume of the front after each trial, in the order of the trial numbers.

    Failed and unfinished trials and their time are excluded. ``hours`` are worker-hours of training and evaluation,
    which are GPU-hours if workers run on GPUs.

    Returns:
        One row per configuration: ``n_trials`` (1, 2, …), ``hours`` (cumulative) and ``hypervolume`` (squared
        fractions, bounded by :data:`analysis.pareto.front.REFERENCE_POINT`).
    """
    finished = eligible(study.configurations)
    seconds = (
        study.configurations.set_index("config_id")["seconds"].reindex(finished["config_id"]).to_numpy(dtype=float)
    )
    num_workers = int((study.plan.get("parallelism") or {}).get("num_workers", 1))
    volume = moocore.Hypervolume(ref=REFERENCE_POINT, maximise=[True, False])
    points = finished[["dev_w_f1", "dev_gap"]].to_numpy(dtype=float)
    return pd.DataFrame(
        {
            "n_trials": np.arange(1, len(finished) + 1),
            "hours": num_workers * np.cumsum(seconds) / 3600,
            "hypervolume": [float(volume(points[: i + 1])) for i in range(len(finished))],
        }
    )


def objectives_history(points: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """Compute the hypervolume over the search objectives after each trial.

    Each objective is scaled from the worst (0) to the best (1) value among the feasible configurations of the study, so
    hypervolumes of different studies do not compare. An objective with a single value is scaled to 1.

    Args:
        points: output of :func:`analysis.pareto.objectives_front.objectives_front`.
        plan: content of ``study.json``.

    Returns:
        One row per feasible configuration, in the order of the trials: ``n_trials`` and ``hypervolume``, from 0 to 1.
    """
    feasible = points[~points["violations"].astype(bool)].sort_values("number")
    signs = np.array([1.0 if mode == "max" else -1.0 for _, mode in objectives_of(plan)])
    values = signs * feasible[[metric for metric, _ in objectives_of(plan)]].to_numpy(dtype=float)
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    scaled = np.where(span > 0, (values - low) / np.where(span > 0, span, 1.0), 1.0)
    volume = moocore.Hypervolume(ref=np.zeros(len(signs)), maximise=[True] * len(signs))
    volumes = [float(volume(scaled[: i + 1])) for i in range(len(scaled))]
    return pd.DataFrame({"n_trials": np.arange(1, len(scaled) + 1), "hypervolume": volumes})
