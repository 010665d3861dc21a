"""What chance alone does to absolute gaps: the noise floor of one configuration, and paired swaps of two.

AVG is a mean of absolute values: it is above 0 with no gap at all, the more so the smaller the cells. So it is
compared with what it would be if gender, or the choice between two systems, meant nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.stats.bootstrap import ALPHA, SeedSpread
from analysis.stats.cluster_counts import ABSOLUTE, ClusterCounts, figures, weighted
from study.evaluation.metrics import Counts, average_gap

LEAST_DEALT = 0.5
"""The share of a cell's utterances of known gender that deals must be able to change for a floor; a choice of ours."""


@dataclass(frozen=True)
class NoiseFloor:
    """AVG gaps that a model with these errors would show if it were blind to gender (fractions).

    Attributes:
        mean, low, high: the mean and the 5 % and 95 % points over the permutations.
        permutations, seed: how they were drawn.
        p: the share of permutations with a gap as large as the observed one (the observed one counted among them).
    """

    mean: float
    low: float
    high: float
    permutations: int
    seed: int
    p: float


def noise_floor(counts: ClusterCounts, permutations: int = 200, seed: int = 0) -> NoiseFloor | None:
    """The AVG gap that predictions like these would show if they were blind to gender.

    The link between gender and error is cut cluster by cluster: a cluster that holds women and men keeps its genders
    or swaps them, by the toss of a coin; among clusters of one gender that occur in the same languages, the genders
    are permuted. One deal holds for all seeds, languages and modalities of a cluster, so whatever makes errors alike
    within a cluster or between seeds is kept. A deal mixes the genders' label priors too, and with them a raw gap of
    W-F1 and accuracy that a blind model does have; so each row P(answer | true emotion) of a dealt gender is given
    back the number of utterances of that emotion that the gender really has. Where a deal leaves a gender without an
    emotion, its row is that of both genders together.

    This is ours, and calibrated on simulated models blind to gender with unequal label priors: 3 to 7 % of them are
    above the 95 % point. Only cells whose gap counts are dealt, so what is heard elsewhere changes nothing. What it
    leaves out: where one gender has many times the other's utterances of an emotion,
    dealt groups are more even than the real ones and the floor is a little low; where a real gap is large beside the
    spread of the clusters, it stays among them as spread and the floor is high. It is the floor of the configuration
    given: a more accurate one has a lower floor. Few clusters have few deals.

    Args:
        permutations: how many to draw.
        seed: of the draws.

    Returns:
        ``None`` where no cell has both genders, and where most of a cell cannot be dealt (``LEAST_DEALT``): its
        permutations would show the observed gap again, whatever it is.
    """
    known = counts.counts[..., :2, :, :]
    gaps = average_gap(known.sum(1)[:, :, 0], known.sum(1)[:, :, 1], counts.class_average)
    used = [int(c) for c in np.flatnonzero(~np.isnan(gaps).any(0))]
    if not used:
        return None
    sizes = counts.labels[:, used, :2].sum(-1)  # (U, C in use, 2)
    strata = _strata(sizes, [counts.cells[c].language for c in used])
    if not _can_deal(sizes, strata):
        return None
    keeps = _deals(sizes, strata, permutations, np.random.default_rng(seed))
    labels = counts.labels[:, used, :2].sum(0)
    draws = np.empty((len(known), permutations))
    for run, of_run in enumerate(known[:, :, used]):
        women, both = of_run[..., 0, :, :], of_run.sum(-3)
        men = both - women
        for chosen, change in weighted(keeps, women - men):
            female = men.sum(0) + change
            male = both.sum(0) - female
            draws[run, chosen] = average_gap(
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
    """Differences between two systems, first minus second, if which is which meant nothing.

    In every draw each cluster's predictions, in all cells and seeds, are exchanged between the systems by the toss of
    a coin. The hypothesis is that the systems are interchangeable cluster by cluster, not only that a gap is equal.

    Args:
        first, second: paired (:func:`analysis.stats.cluster_counts.same_utterances`), with the same seeds.

    Returns:
        (draws, C, len(which)), means over seeds.
    """
    swaps = np.random.default_rng(seed).integers(0, 2, (draws, len(first.clusters))).astype(np.float64)
    out = np.zeros((draws, len(first.cells), len(which)))
    for a, b in zip(first.counts, second.counts, strict=True):
        for chosen, moved in weighted(swaps, a - b):
            of_first = figures(a.sum(0) - moved, which, first.class_average)
            of_second = figures(b.sum(0) + moved, which, second.class_average)
            out[chosen] += np.stack([of_first[name] - of_second[name] for name in which], axis=-1)
    return out / len(first.counts)


class PermutationTest(NamedTuple):
    """A difference against its paired swaps.

    Attributes:
        p: two-sided, at least 1 / (B + 1); NaN where the difference is undefined.
        null_range: the size that 95 % of the swaps stay within, counted as p counts: the difference plus and minus the
            range contains 0 exactly where p is at least 0.05. Infinite for fewer than 20 swaps, which cannot say so.
    """

    p: float
    null_range: float


def permutation_test(
    difference: float, draws: NDArray[np.float64], seeds: SeedSpread, rng: np.random.Generator
) -> PermutationTest:
    """Test a difference against its paired swaps.

    Swaps of clusters know nothing of other training seeds. With several seeds the draws are therefore widened to the
    variance of clusters and seeds together, and divided by the root of a chi-squared deviate, as a t deviate is, for
    the few degrees of freedom of that variance.

    Args:
        draws: (B,) differences under swaps; NaN ones are left out.
        seeds: the spread of the difference between seeds.
    """
    draws = draws[~np.isnan(draws)]
    if np.isnan(difference) or not len(draws):
        return PermutationTest(np.nan, np.nan)
    permutation = float((draws**2).mean())
    variance, freedom = seeds.added_to(permutation, np.inf)
    if permutation > 0 and np.isfinite(freedom):
        draws = draws * np.sqrt(variance / permutation * freedom / rng.chisquare(freedom, len(draws)))
    reached = np.sort(np.abs(draws) + 1e-12)[::-1]  # differences that only rounding tells apart are equal
    possible = np.arange(1, len(draws) + 2) / (1 + len(draws))  # p if none, one, ... of the draws are as large
    p = float(possible[int((reached >= abs(difference)).sum())])
    needed = int(np.argmax(possible >= ALPHA))  # draws as large that p needs to be at least ALPHA
    return PermutationTest(p, float(reached[needed - 1]) if needed else np.inf)


def _strata(sizes: Counts, languages: Sequence[str]) -> NDArray[np.intp]:
    """(U,): which clusters of one gender are permuted with each other, those heard in the same languages.

    Args:
        sizes: (U, C, 2) utterances of women and of men by cell in use.
        languages: of the C cells.
    """
    of_language = [[i for i, name in enumerate(languages) if name == language] for language in sorted(set(languages))]
    heard = np.stack([(sizes[:, members] > 0).any((1, 2)) for members in of_language], axis=1)
    return np.unique(heard, axis=0, return_inverse=True)[1].reshape(-1)


def _can_deal(sizes: Counts, strata: NDArray[np.intp]) -> bool:
    """Whether, in every cell, clusters that deals can change hold ``LEAST_DEALT`` of the utterances, two at least."""
    has = sizes.sum(1) > 0
    changes = has.all(1)
    for stratum in np.unique(strata[has.sum(1) == 1]):
        members = (strata == stratum) & (has.sum(1) == 1)
        changes[members] = has[members].any(0).all()
    of_cell = sizes.sum(-1)
    enough = of_cell[changes].sum(0) >= LEAST_DEALT * of_cell.sum(0)
    return bool((enough & ((of_cell[changes] > 0).sum(0) >= 2)).all())  # one dialogue alone only has a mirror


def _deals(sizes: Counts, strata: NDArray[np.intp], permutations: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(permutations, U): 1 where a cluster keeps its genders in a deal, 0 where they are swapped."""
    has = sizes.sum(1) > 0
    keeps = rng.integers(0, 2, (permutations, len(has))).astype(np.float64)
    one_gender = has.sum(1) == 1
    for stratum in np.unique(strata[one_gender]):
        members = np.flatnonzero(one_gender & (strata == stratum))
        is_female = has[members, 0]
        dealt = rng.permuted(np.tile(is_female, (permutations, 1)), axis=1)
        keeps[:, members] = dealt == is_female
    return keeps


def _with_labels(dealt: Counts, both: Counts, labels: Counts) -> Counts:
    """Dealt counts with as many utterances of each emotion as ``labels`` says.

    Args:
        dealt: (B, C, K, P) counts of a dealt gender; rows that are empty become those of ``both``.
        both: (C, K, P) counts of both genders.
        labels: (C, K) true emotions of the gender as observed.
    """
    rows = np.where(dealt.sum(-1, keepdims=True) > 0.5, dealt, both)
    n = rows.sum(-1, keepdims=True)
    return np.asarray(rows * np.divide(labels[..., None], n, out=np.zeros_like(n), where=n > 0))
