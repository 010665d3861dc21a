"""Permutation nulls of absolute gaps: the noise floor of one configuration and the paired test of two.

An absolute gap is positive even for a model without any gap, and larger the fewer utterances a cell has. It is
therefore compared with its distribution under a null: gender has no effect on the errors (noise floor), or two systems
are exchangeable (paired permutation null).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.stats.bootstrap import ALPHA, SeedSpread
from analysis.stats.cluster_counts import ClusterCounts
from analysis.stats.figures import ABSOLUTE, figures, resampled_counts
from study.evaluation.metrics import Counts, average_gap

MIN_EXCHANGEABLE = 0.5
"""Smallest share of a cell's utterances of known gender whose clusters must be exchangeable for a noise floor. The
value is our choice."""


@dataclass(frozen=True)
class NoiseFloor:
    """The distribution of the AVG gap of a model with the same errors that is blind to gender (fractions).

    Attributes:
        mean, low, high: mean, 5 % and 95 % quantiles over the permutations.
        permutations, seed: number and seed of the permutations.
        p: p value of the observed gap, (1 + number of permutations with a gap at least as large) / (1 + permutations).
    """

    mean: float
    low: float
    high: float
    permutations: int
    seed: int
    p: float


def noise_floor(counts: ClusterCounts, permutations: int = 200, seed: int = 0) -> NoiseFloor | None:
    """Estimate the AVG gap that predictions like these would show if they were blind to gender.

    Genders are permuted by cluster. A cluster with both genders keeps or exchanges them with probability 1/2. Clusters
    with one gender that occur in the same languages permute their genders among each other. One permutation applies to
    all seeds, languages and modalities of a cluster, so correlations within clusters and between seeds are preserved.

    A permutation also mixes the label priors of the genders, which cause a gap of W-F1 and accuracy even in a model
    blind to gender. Each row P(answer | true emotion) of a permuted gender is therefore rescaled to the number of
    utterances of that emotion that this gender has in the data. Where a permutation leaves a gender without utterances
    of an emotion, the row of both genders together is used.

    The procedure is ours. On simulated models blind to gender with unequal label priors, 3 to 7 % exceed the 95 %
    quantile. Only cells with a defined gap are permuted, so utterances of other cells have no effect. Limitations:
    where one gender has many times the other's utterances of an emotion, permuted groups are more balanced than the
    real ones and the floor is slightly low; where a real gap is large relative to the spread of the clusters, it adds
    to this spread and the floor is high. The floor belongs to the given configuration: a more accurate one has a
    lower floor. Few clusters allow few distinct permutations.

    Args:
        permutations: number of permutations.
        seed: random seed of the permutations.

    Returns:
        ``None`` if no cell has both genders, or if in some cell less than ``MIN_EXCHANGEABLE`` of the utterances are in
        exchangeable clusters: permutations would then reproduce the observed gap.
    """
    known = counts.counts[..., :2, :, :]
    gaps = average_gap(known.sum(1)[:, :, 0], known.sum(1)[:, :, 1], counts.class_average)
    used = [int(c) for c in np.flatnonzero(~np.isnan(gaps).any(0))]
    if not used:
        return None
    sizes = counts.labels[:, used, :2].sum(-1)  # (U, C in use, 2)
    strata = _strata(sizes, [counts.cells[c].language for c in used])
    if not _is_exchangeable(sizes, strata):
        return None
    keeps = _permutations(sizes, strata, permutations, np.random.default_rng(seed))
    labels = counts.labels[:, used, :2].sum(0)
    draws = np.empty((len(known), permutations))
    for run, of_run in enumerate(known[:, :, used]):
        women, both = of_run[..., 0, :, :], of_run.sum(-3)
        men = both - women
        for rows, change in resampled_counts(keeps, women - men):
            female = men.sum(0) + change
            male = both.sum(0) - female
            draws[run, rows] = average_gap(
                _with_labels(female, both.sum(0), labels[:, 0]),
                _with_labels(male, both.sum(0), labels[:, 1]),
                counts.class_average,
            ).mean(-1)
    means, observed = draws.mean(0), float(gaps[:, used].mean())
    low, high = np.quantile(means, [0.05, 0.95])
    p = (1 + int((means >= observed - 1e-12).sum())) / (1 + permutations)
    return NoiseFloor(float(means.mean()), float(low), float(high), permutations, seed, p)


def permuted_differences(
    first: ClusterCounts, second: ClusterCounts, draws: int = 2000, seed: int = 0, which: Sequence[str] = ABSOLUTE
) -> Counts:
    """Draw the paired permutation null of the difference between two systems, first minus second.

    Each draw exchanges the two systems' predictions of each cluster, in all cells and seeds, with probability 1/2. The
    null hypothesis is that the systems are exchangeable cluster by cluster, which is stronger than equality of a gap.

    Args:
        first, second: paired (:func:`analysis.stats.cluster_counts.same_utterances`), with the same seeds.
        draws: number of permutations B.
        seed: random seed.
        which: names of figures, see :func:`analysis.stats.cluster_counts.figures`.

    Returns:
        (B, C, len(which)) differences, means over seeds.
    """
    exchanged = np.random.default_rng(seed).integers(0, 2, (draws, len(first.clusters))).astype(np.float64)
    out = np.zeros((draws, len(first.cells), len(which)))
    for a, b in zip(first.counts, second.counts, strict=True):
        for rows, moved in resampled_counts(exchanged, a - b):
            of_first = figures(a.sum(0) - moved, which, first.class_average)
            of_second = figures(b.sum(0) + moved, which, second.class_average)
            out[rows] += np.stack([of_first[name] - of_second[name] for name in which], axis=-1)
    return out / len(first.counts)


class PermutationTest(NamedTuple):
    """The result of a paired permutation test.

    Attributes:
        p: two-sided p value, at least 1 / (B + 1); NaN where the difference is undefined.
        null_range: half width of the 95 % range of the null, which is centred on 0. ``abs(difference) > null_range`` if
            and only if p < 0.05. Infinite for fewer than 20 draws, where no p value is below 0.05.
    """

    p: float
    null_range: float


def permutation_test(
    difference: float, draws: NDArray[np.float64], seeds: SeedSpread, rng: np.random.Generator
) -> PermutationTest:
    """Test a difference of two systems against its paired permutation null.

    Permutations of clusters do not reflect variation between training seeds. With several seeds the draws are therefore
    rescaled to the variance of clusters and seeds together. They are also divided by the square root of a chi-squared
    deviate over its degrees of freedom, which gives them the heavier tails of a t distribution.

    Args:
        difference: the observed difference.
        draws: (B,) differences under permutation; NaN values are dropped.
        seeds: spread of the difference between seeds.
        rng: source of the chi-squared deviates.
    """
    draws = draws[~np.isnan(draws)]
    if np.isnan(difference) or not len(draws):
        return PermutationTest(np.nan, np.nan)
    cluster_variance = float((draws**2).mean())
    variance, freedom = seeds.total_variance(cluster_variance, np.inf)
    if cluster_variance > 0 and np.isfinite(freedom):
        draws = draws * np.sqrt(variance / cluster_variance * freedom / rng.chisquare(freedom, len(draws)))
    sizes = np.sort(np.abs(draws) + 1e-12)[::-1]  # the tolerance makes differences equal that differ by rounding only
    possible = np.arange(1, len(draws) + 2) / (1 + len(draws))  # p if 0, 1, ... of the draws are at least as large
    p = float(possible[int((sizes >= abs(difference)).sum())])
    needed = int(np.argmax(possible >= ALPHA))  # number of draws at least as large for which p reaches ALPHA
    return PermutationTest(p, float(sizes[needed - 1]) if needed else np.inf)


def _strata(sizes: Counts, languages: Sequence[str]) -> NDArray[np.intp]:
    """Return (U,) the stratum of each cluster; clusters that occur in the same languages share one.

    Args:
        sizes: (U, C, 2) utterances of women and of men by cell in use.
        languages: of the C cells.
    """
    by_language = [[i for i, name in enumerate(languages) if name == language] for language in sorted(set(languages))]
    occurs = np.stack([(sizes[:, members] > 0).any((1, 2)) for members in by_language], axis=1)
    return np.unique(occurs, axis=0, return_inverse=True)[1].reshape(-1)


def _is_exchangeable(sizes: Counts, strata: NDArray[np.intp]) -> bool:
    """Check that exchangeable clusters hold ``MIN_EXCHANGEABLE`` of the utterances of each cell and are at least two.

    A single cluster is not enough: exchanging its genders only mirrors the gap.
    """
    has = sizes.sum(1) > 0
    exchangeable = has.all(1)
    for stratum in np.unique(strata[has.sum(1) == 1]):
        members = (strata == stratum) & (has.sum(1) == 1)
        exchangeable[members] = has[members].any(0).all()
    by_cell = sizes.sum(-1)
    enough = by_cell[exchangeable].sum(0) >= MIN_EXCHANGEABLE * by_cell.sum(0)
    return bool((enough & ((by_cell[exchangeable] > 0).sum(0) >= 2)).all())


def _permutations(
    sizes: Counts, strata: NDArray[np.intp], permutations: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw (permutations, U): 1 where a cluster keeps its genders, 0 where they are exchanged."""
    has = sizes.sum(1) > 0
    keeps = rng.integers(0, 2, (permutations, len(has))).astype(np.float64)
    one_gender = has.sum(1) == 1
    for stratum in np.unique(strata[one_gender]):
        members = np.flatnonzero(one_gender & (strata == stratum))
        is_female = has[members, 0]
        permuted = rng.permuted(np.tile(is_female, (permutations, 1)), axis=1)
        keeps[:, members] = permuted == is_female
    return keeps


def _with_labels(permuted: Counts, both: Counts, labels: Counts) -> Counts:
    """Rescale the rows of permuted counts to the given numbers of utterances by emotion.

    Args:
        permuted: (B, C, K, P) counts of a permuted gender; empty rows are replaced by those of ``both``.
        both: (C, K, P) counts of both genders.
        labels: (C, K) true emotions of the gender as observed.
    """
    rows = np.where(permuted.sum(-1, keepdims=True) > 0.5, permuted, both)
    n = rows.sum(-1, keepdims=True)
    return np.asarray(rows * np.divide(labels[..., None], n, out=np.zeros_like(n), where=n > 0))
