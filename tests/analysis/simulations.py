"""Predictions by a model whose gap is known, straight as counts by cluster: what calibration is tested on.

One cell. Women and men have other label priors, as in MELD. A prediction hits with the recall of its emotion, plus the
effect of its cluster (shared by all systems), of the cluster for this system, of the training seed, and half of the
gap for men or minus half for women; else it is any other emotion. Effects are uniform around 0 and small enough that no
probability is cut off at 0 or 1, so the expected counts are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from analysis.clusters import ClusterCounts, figures
from study.groups import Cell
from study.metrics import Counts

K = 7
PRIORS = {"female": [0.40, 0.17, 0.13, 0.12, 0.10, 0.04, 0.04], "male": [0.50, 0.15, 0.10, 0.10, 0.08, 0.04, 0.03]}
RECALL = np.array([0.62, 0.55, 0.50, 0.50, 0.42, 0.38, 0.38])


def simulate(
    seed: int,
    clusters: int = 40,
    size: int = 25,
    kind: Literal["dialogue", "speaker"] = "dialogue",
    gaps: Sequence[float] = (0.0,),
    n_seeds: int = 1,
    of_cluster: float = 0.15,
    of_seed: float = 0.0,
) -> list[ClusterCounts]:
    """One sample of utterances, and the counts of a system for each of ``gaps`` (recall of men minus of women).

    Args:
        kind: a dialogue holds both genders; of speakers, the first half are women.
        of_cluster, of_seed: half widths of the effects; that of a seed is one of recall and one of the gap.
    """
    rng = np.random.default_rng(seed)
    n = clusters * size
    cluster = np.repeat(np.arange(clusters), size)
    gender = rng.integers(0, 2, n) if kind == "dialogue" else (cluster >= clusters // 2).astype(int)
    priors = np.array(list(PRIORS.values()))
    true = (rng.random(n)[:, None] > priors.cumsum(1)[gender][:, :-1]).sum(1)
    side = np.where(gender == 1, 0.5, -0.5)
    shared = rng.uniform(-of_cluster / 2, of_cluster / 2, clusters)[cluster]
    hard = rng.random(n)
    systems = []
    for gap in gaps:
        own = rng.uniform(-of_cluster / 2, of_cluster / 2, clusters)[cluster]
        counts = np.zeros((n_seeds, clusters, 1, 3, K, K + 1))
        for run in range(n_seeds):
            of_recall, of_gap = rng.uniform(-of_seed, of_seed, 2)
            chance = RECALL[true] + shared + own + of_recall + (gap + of_gap) * side
            # half of the utterances are as hard for one run as for another
            hit = np.where(rng.random(n) < 0.5, hard, rng.random(n)) < chance
            predicted = np.where(hit, true, (true + rng.integers(1, K, n)) % K)
            np.add.at(counts, (run, cluster, 0, gender, true, predicted), 1.0)
        names = tuple(map(str, range(clusters)))
        systems.append(ClusterCounts((Cell("en", "speech"),), names, tuple(range(n_seeds)), counts))
    return systems


def truth(gap: float, which: Sequence[str]) -> dict[str, float]:
    """The figures of the expected counts: what a system with this gap shows on endlessly many clusters."""
    expected: Counts = np.zeros((3, K, K + 1))
    for g, side in enumerate((-0.5, 0.5)):
        hit = RECALL + gap * side
        rows = np.repeat(((1 - hit) / (K - 1))[:, None], K, axis=1)
        np.fill_diagonal(rows, hit)
        expected[g, :, :K] = np.array(list(PRIORS.values()))[g][:, None] * rows
    return {name: float(value) for name, value in figures(expected, which).items()}
