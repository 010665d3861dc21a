"""Simulate predictions of a model with a known gap, as counts by cluster, for tests of calibration.

There is one cell per language. Women and men have different label priors, as in MELD. A prediction is correct with the
recall of its emotion, plus an effect of its cluster that all systems share, an effect of the cluster on this system, an
effect of the training seed, and half of the gap for men or minus half for women. Otherwise it is one of the other
emotions. Effects are uniform around 0 and small enough that no probability is clipped at 0 or 1, so the expected counts
are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from analysis.stats.cluster_counts import ClusterCounts
from analysis.stats.figures import figures
from study.common.groups import LANGUAGES, Cell
from study.evaluation.metrics import Counts

K = 7
Priors = Mapping[str, Sequence[float]]
PRIORS: Priors = {
    "female": [0.40, 0.17, 0.13, 0.12, 0.10, 0.04, 0.04],
    "male": [0.50, 0.15, 0.10, 0.10, 0.08, 0.04, 0.03],
}
ALIKE: Priors = dict.fromkeys(("female", "male"), [0.45, 0.16, 0.12, 0.11, 0.08, 0.04, 0.04])
FAR_APART: Priors = {
    "female": [0.28, 0.22, 0.16, 0.14, 0.10, 0.05, 0.05],
    "male": [0.58, 0.12, 0.08, 0.08, 0.06, 0.04, 0.04],
}
RECALL = np.array([0.62, 0.55, 0.50, 0.50, 0.42, 0.38, 0.38])


@dataclass(frozen=True)
class Design:
    """The design of a simulated sample.

    Attributes:
        kind: the clusters. A dialogue has both genders, and occurs in each language with enough dialogues. A speaker
            belongs to one language; the first half of its speakers are women.
        clusters: their number in each language.
        size: number of utterances of a cluster in a language.
        priors: label distribution of each gender.
    """

    kind: Literal["dialogue", "speaker"] = "dialogue"
    clusters: tuple[int, ...] = (40,)
    size: int = 25
    priors: Priors = field(default_factory=lambda: PRIORS)


def simulate(
    seed: int,
    design: Design,
    gaps: Sequence[float] = (0.0,),
    n_seeds: int = 1,
    of_cluster: float = 0.15,
    of_seed: float = 0.0,
) -> list[ClusterCounts]:
    """Simulate one sample of utterances and return the counts of one system per gap (recall of men minus women).

    Args:
        of_cluster, of_seed: half widths of the effects; a seed has one effect on the recall and one on the gap.
    """
    rng = np.random.default_rng(seed)
    within = np.concatenate([np.repeat(np.arange(n), design.size) for n in design.clusters])
    cell = np.repeat(np.arange(len(design.clusters)), np.multiply(design.clusters, design.size))
    n = len(within)
    if design.kind == "dialogue":
        cluster, of_all = within, max(design.clusters)
        gender = rng.integers(0, 2, n)
    else:
        cluster, of_all = within + np.concatenate([[0], np.cumsum(design.clusters)])[cell], sum(design.clusters)
        gender = (within >= np.array(design.clusters)[cell] // 2).astype(int)
    priors = np.array(list(design.priors.values()))
    true = (rng.random(n)[:, None] > priors.cumsum(1)[gender][:, :-1]).sum(1)
    side = np.where(gender == 1, 0.5, -0.5)
    shared = rng.uniform(-of_cluster / 2, of_cluster / 2, of_all)[cluster]
    hard = rng.random(n)
    systems = []
    for gap in gaps:
        own = rng.uniform(-of_cluster / 2, of_cluster / 2, of_all)[cluster]
        counts = np.zeros((n_seeds, of_all, len(design.clusters), 3, K, K + 1))
        for run in range(n_seeds):
            of_recall, of_gap = rng.uniform(-of_seed, of_seed, 2)
            chance = RECALL[true] + shared + own + of_recall + (gap + of_gap) * side
            # half of the utterances are equally hard for all runs
            hit = np.where(rng.random(n) < 0.5, hard, rng.random(n)) < chance
            predicted = np.where(hit, true, (true + rng.integers(1, K, n)) % K)
            np.add.at(counts, (run, cluster, cell, gender, true, predicted), 1.0)
        cells = tuple(Cell(language, "speech") for language in LANGUAGES[: len(design.clusters)])
        systems.append(ClusterCounts(cells, tuple(map(str, range(of_all))), tuple(range(n_seeds)), counts))
    return systems


def truth(gap: float, which: Sequence[str], priors: Priors = PRIORS) -> dict[str, float]:
    """Return the figures of the expected counts: those of a system with this gap on infinitely many clusters."""
    expected: Counts = np.zeros((3, K, K + 1))
    for g, side in enumerate((-0.5, 0.5)):
        hit = RECALL + gap * side
        rows = np.repeat(((1 - hit) / (K - 1))[:, None], K, axis=1)
        np.fill_diagonal(rows, hit)
        expected[g, :, :K] = np.array(list(priors.values()))[g][:, None] * rows
    return {name: float(value) for name, value in figures(expected, which).items()}
