"""Intervals, seed spread and Holm on numbers worked by hand; test_calibration.py measures error rates."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.stats.bootstrap import SeedSpread, bootstrap, holm, interval
from study.common.groups import Cell
from tests.analysis.simulations import Design, simulate, truth


def test_one_seed_is_a_t_interval_of_the_bootstrap_variance() -> None:
    # resamples 0.1, 0.2, 0.3: variance 0.01, times 11/10 for eleven clusters
    result = interval(np.array([0.2]), np.array([[0.1, 0.2, 0.3]]), clusters=11)

    assert result.standard_error == pytest.approx(np.sqrt(0.011))
    assert result.high - result.estimate == pytest.approx(2.2281 * np.sqrt(0.011), rel=1e-4)  # t of 10 degrees
    assert result.low == pytest.approx(0.4 - result.high)
    assert result.p == pytest.approx(2 * stats.t.sf(0.2 / np.sqrt(0.011), 10))


def test_seeds_add_the_variance_that_clusters_do_not_explain() -> None:
    # three seeds at 0.1, 0.2, 0.3 (variance 0.01) with identical deviations of their resamples: nothing is explained
    points = np.array([0.1, 0.2, 0.3])
    together = points[:, None] + np.array([-0.02, 0.0, 0.02])
    result = interval(points, together, clusters=1001)

    assert result.seeds.observed == pytest.approx(0.01)
    assert result.seeds.explained == pytest.approx(0.0, abs=1e-15)
    cluster_variance = 1.001 * 0.0004
    assert result.standard_error == pytest.approx(np.sqrt(cluster_variance + 0.01 / 3))

    # the same points with resamples of variance 0.01 and covariance -0.005 between seeds: 0.015 is explained
    alone = points[:, None] + 0.1 * np.sqrt(3) * np.eye(3)
    result = interval(points, alone, clusters=1001)
    assert result.seeds.explained == pytest.approx(0.015 * 1.001)
    # seeds add nothing and resamples cancel in the mean, but the variance is at least observed / 3
    assert result.standard_error == pytest.approx(np.sqrt(0.01 / 3))


def test_degrees_of_freedom_with_seed_variance() -> None:
    spread = SeedSpread(observed=0.05, explained=0.0, n_seeds=5)
    assert spread.total_variance(0.0, 39) == (pytest.approx(0.01), pytest.approx(4))
    assert spread.total_variance(0.01, 4) == (pytest.approx(0.02), pytest.approx(8))
    assert SeedSpread(0.0, 0.0, 1).total_variance(0.01, 39) == (0.01, 39)


def test_degrees_of_freedom_are_at_least_1() -> None:
    """Clusters explain more than is observed: 0.002 alone would have 0.16 degrees of freedom, and t = 31 million."""
    assert SeedSpread(observed=0.05, explained=0.06, n_seeds=5).total_variance(0.002, 39) == (
        pytest.approx(0.05 / 5),
        1.0,
    )


@pytest.mark.parametrize(("shared", "of_seed"), [(0.0, 0.0), (0.0, 0.3), (1.0, 0.0), (1.0, 0.2)])
def test_three_seeds_of_ten_clusters_hold_the_level_with_bounded_intervals(shared: float, of_seed: float) -> None:
    """Simulate normal effects of clusters (shared by seeds and not) and of seeds; the true value is 0."""
    rng, n, seeds, clusters = np.random.default_rng(0), 4000, 3, 10
    figures = rng.normal(0, 1, (n, seeds, clusters)) + rng.normal(0, of_seed, (n, seeds, 1))
    figures += rng.normal(0, shared, (n, 1, clusters))
    points = figures.mean(2)
    cluster_variance = figures.mean(1).var(1, ddof=1) / clusters
    apart = (figures - figures.mean(1, keepdims=True)).var(2, ddof=1).sum(1) / clusters / (seeds - 1)
    half_width = np.empty(n)
    for i in range(n):
        spread = SeedSpread(points[i].var(ddof=1), apart[i], seeds)
        variance, freedom = spread.total_variance(cluster_variance[i], clusters - 1)
        half_width[i] = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert 0.005 < np.mean(np.abs(points.mean(1)) > half_width) < 0.07
    known = np.sqrt((shared**2 + 1 / seeds) / clusters + of_seed**2 / seeds)
    assert np.quantile(half_width, 0.95) < 24 * known  # the t quantile of one degree of freedom is 12.7


def test_undefined_figure_has_no_interval_and_undefined_resamples_are_dropped() -> None:
    assert np.isnan(interval(np.array([np.nan]), np.array([[0.1, 0.2]]), 20).p)
    assert np.isnan(interval(np.array([0.1]), np.array([[0.1, 0.2]]), 1).low)
    with_nan = interval(np.array([0.2]), np.array([[0.1, np.nan, 0.2, 0.3]]), 11)
    assert with_nan == interval(np.array([0.2]), np.array([[0.1, 0.2, 0.3]]), 11)
    nothing_varies = interval(np.array([0.0]), np.zeros((1, 5)), 11)
    assert (nothing_varies.low, nothing_varies.high, nothing_varies.p) == (0.0, 0.0, 1.0)


def test_interval_width_falls_with_the_square_root_of_the_clusters() -> None:
    widths = []
    for clusters in (40, 640):
        draws = bootstrap(simulate(0, Design(clusters=(clusters,)))[0], ("w_f1",), 400)
        result = interval(*draws.of("w_f1", [0]), draws.clusters("w_f1", [0]))
        assert result.low < truth(0.0, ("w_f1",))["w_f1"] < result.high
        widths.append(result.high - result.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_clusters_are_counted_in_cells_where_the_figure_is_defined() -> None:
    """English has dialogues 0 to 39 with both genders, German dialogues 0 to 4 with women only, so it has no gap."""
    english = simulate(0, Design())[0]
    german = english.counts.copy()
    german[:, 5:] = german[:, :, :, 1] = 0.0
    both = replace(
        english, cells=(Cell("en", "speech"), Cell("de", "speech")), counts=np.concatenate([english.counts, german], 2)
    )
    draws = bootstrap(both, ("w_f1", "w_f1_female", "w_f1_male", "signed_tpr", "avg"), 20)
    assert [draws.clusters(name, [0, 1]) for name in draws.names] == [5, 5, 40, 40, 40]
    assert draws.used("signed_tpr", [0, 1]) == [0] and draws.used("w_f1_female", [0, 1]) == [0, 1]
    assert draws.clusters("avg", [1]) == 0
    gap = draws.of("signed_tpr", [0, 1])[0]
    assert gap == pytest.approx(bootstrap(english, ("signed_tpr",), 20).of("signed_tpr", [0])[0])


def test_pairing_removes_shared_variation() -> None:
    """Compare a system with a copy that answers one dialogue wrongly: only this dialogue differs."""
    counts = simulate(3, Design())[0]
    worse = counts.counts.copy()
    worse[:, 0] = 0.0
    worse[:, 0, ..., -1] = counts.counts[:, 0].sum(-1)
    copy = replace(counts, counts=worse)
    a, b, other = (bootstrap(c, ("w_f1",), 400, seed) for c, seed in ((counts, 0), (copy, 0), (copy, 1)))
    (x, x_draws), (y, y_draws), (_, apart) = (draws.of("w_f1", [0]) for draws in (a, b, other))

    drawn = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=400)[:, 0]
    assert ((x_draws - y_draws)[0] == 0.0).tolist() == (drawn == 0).tolist()
    paired, unpaired = (interval(x - y, x_draws - z, 40).standard_error for z in (y_draws, apart))
    assert paired < 0.6 * unpaired


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p: list[float], random: Random) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-12).all() and (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert adjusted[int(np.argmin(p))] == pytest.approx(min(1, len(p) * min(p)))
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == pytest.approx(adjusted[order])


def test_holm_ignores_nan() -> None:
    adjusted = holm([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]].tolist() == [0.02, 0.04] and np.isnan(adjusted[1])
