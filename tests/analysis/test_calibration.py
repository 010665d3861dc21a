"""How often intervals and tests are right, over a thousand seeded simulations each: slow, so run by make test-all.

Forty clusters of 25 utterances and label priors that differ by gender. Of a true 5 % or 95 %, a thousand draws show
3.6 to 6.4 or 93.6 to 96.4 in 95 of 100 cases; the bounds are 3 to 7 and 93 to 97.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.clusters import ClusterCounts
from analysis.nulls import noise_floor, swap_test, swapped_differences
from analysis.uncertainty import Draws, Interval, bootstrap, interval
from study.metrics import average_gap
from tests.analysis.simulations import simulate, truth

pytestmark = pytest.mark.slow

DRAWS, RESAMPLES = 1000, 150
COMMON = ("signed_tpr", "standardised_fpr", "standardised_w_f1", "standardised_accuracy")
RAW = ("signed_fpr", "signed_w_f1", "signed_accuracy")


def drawn(counts: ClusterCounts, seed: int, which: tuple[str, ...]) -> Draws:
    return bootstrap(counts, which, RESAMPLES, seed)


def single(draws: Draws, name: str) -> Interval:
    return interval(*draws.of(name, [0]), draws.clusters(name, [0]))


def paired(first: Draws, second: Draws, name: str) -> Interval:
    (a, a_draws), (b, b_draws) = first.of(name, [0]), second.of(name, [0])
    return interval(a - b, a_draws - b_draws, first.clusters(name, [0]))


@pytest.mark.parametrize("kind", ["dialogue", "speaker"])
def test_without_a_gap_one_test_in_twenty_rejects(kind: Any) -> None:
    rejected = dict.fromkeys(COMMON, 0)
    for seed in range(DRAWS):
        draws = drawn(simulate(seed, kind=kind)[0], seed, COMMON)
        for name in COMMON:
            rejected[name] += single(draws, name).p < 0.05
    assert all(0.03 <= n / DRAWS <= 0.07 for n in rejected.values()), rejected


@pytest.mark.parametrize("kind", ["dialogue", "speaker"])
def test_with_a_known_gap_the_interval_covers_it(kind: Any) -> None:
    names = (*COMMON, *RAW)
    known, covered = truth(0.15, names), dict.fromkeys(names, 0)
    for seed in range(DRAWS):
        draws = drawn(simulate(seed, kind=kind, gaps=(0.15,))[0], seed, names)
        for name in names:
            made = single(draws, name)
            covered[name] += made.low <= known[name] <= made.high
    assert all(0.93 <= n / DRAWS <= 0.97 for n in covered.values()), covered


@pytest.mark.parametrize(("kind", "gap"), [("dialogue", 0.0), ("speaker", 0.1)])
def test_two_systems_alike_are_told_apart_one_time_in_twenty(kind: Any, gap: float) -> None:
    names = ("w_f1", *COMMON, "signed_w_f1", "avg")
    rejected = dict.fromkeys(names, 0)
    for seed in range(DRAWS):
        first, second = simulate(seed, kind=kind, gaps=(gap, gap))
        draws = drawn(first, seed, names), drawn(second, seed, names)
        made = {name: paired(*draws, name) for name in names}
        swaps = swapped_differences(first, second, RESAMPLES, seed, ("avg",))[:, 0, 0]
        avg, rng = made["avg"], np.random.default_rng(seed)
        rejected["avg"] += swap_test(avg.estimate, swaps, avg.seeds, rng).p <= 0.05
        for name in names[:-1]:
            rejected[name] += made[name].p < 0.05
    assert all(0.03 <= n / DRAWS <= 0.07 for n in rejected.values()), rejected


@pytest.mark.parametrize("kind", ["dialogue", "speaker"])
def test_a_known_difference_of_gaps_is_covered(kind: Any) -> None:
    names = (*COMMON, *RAW)
    wide, narrow = truth(0.2, names), truth(0.05, names)
    covered = dict.fromkeys(names, 0)
    for seed in range(DRAWS):
        first, second = simulate(seed, kind=kind, gaps=(0.05, 0.2))
        draws = drawn(first, seed, names), drawn(second, seed, names)
        for name in names:
            made = paired(*draws, name)
            covered[name] += made.low <= narrow[name] - wide[name] <= made.high
    assert all(0.93 <= n / DRAWS <= 0.97 for n in covered.values()), covered


@pytest.mark.parametrize(("of_seed", "without"), [(0.0, 0.0), (0.1, 0.1)])
def test_five_seeds_are_counted(of_seed: float, without: float) -> None:
    """Two systems alike, of five seeds each: the test may be careful, but not bold as clusters alone would be."""
    names, n = ("w_f1", "signed_tpr", "standardised_w_f1", "avg"), 400
    rejected, ignoring = dict.fromkeys(names, 0), 0
    for seed in range(n):
        first, second = simulate(seed, gaps=(0.0, 0.0), n_seeds=5, of_seed=of_seed)
        draws = drawn(first, seed, names), drawn(second, seed, names)
        made = {name: paired(*draws, name) for name in names}
        swaps = swapped_differences(first, second, RESAMPLES, seed, ("avg",))[:, 0, 0]
        avg, rng = made["avg"], np.random.default_rng(seed)
        rejected["avg"] += swap_test(avg.estimate, swaps, avg.seeds, rng).p <= 0.05
        for name in names[:-1]:
            rejected[name] += made[name].p < 0.05
        (a, a_draws), (b, b_draws) = (of.of("signed_tpr", [0]) for of in draws)
        ignoring += interval((a - b).mean(keepdims=True), (a_draws - b_draws).mean(0, keepdims=True), 40).p < 0.05
    assert all(0.01 <= x / n <= 0.07 for x in rejected.values()), rejected
    assert ignoring / n >= without, ignoring


@pytest.mark.parametrize("kind", ["dialogue", "speaker"])
def test_the_noise_floor_is_what_models_blind_to_gender_show(kind: Any) -> None:
    above, observed, floors = 0, [], []
    for seed in range(DRAWS):
        counts = simulate(seed, kind=kind)[0]
        floor = noise_floor(counts, 100, seed)
        assert floor is not None
        whole = counts.counts.sum(1)
        observed.append(float(average_gap(whole[:, :, 0], whole[:, :, 1]).mean()))
        above += floor.p <= 0.05
        floors.append(floor.mean)
    assert 0.03 <= above / DRAWS <= 0.07, above
    assert np.mean(floors) == pytest.approx(np.mean(observed), rel=0.04)
