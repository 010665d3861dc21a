"""Intervals, seeds and Holm: numbers worked by hand. How often intervals are right is in test_calibration.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.stats.bootstrap import SeedSpread, bootstrap, holm, interval
from analysis.stats.cluster_counts import SIGNED, figures
from study.common.groups import Cell
from study.evaluation.metrics import GAP_KINDS
from tests.analysis.simulations import Design, simulate, truth


def test_one_seed_is_a_t_interval_of_the_bootstrap_variance() -> None:
    # resamples 0.1, 0.2, 0.3: variance 0.01, times 11/10 for eleven clusters
    made = interval(np.array([0.2]), np.array([[0.1, 0.2, 0.3]]), clusters=11)

    assert made.standard_error == pytest.approx(np.sqrt(0.011))
    assert made.high - made.estimate == pytest.approx(2.2281 * np.sqrt(0.011), rel=1e-4)  # t of 10 degrees
    assert made.low == pytest.approx(0.4 - made.high)
    assert made.p == pytest.approx(2 * stats.t.sf(0.2 / np.sqrt(0.011), 10))


def test_seeds_add_what_clusters_do_not_explain() -> None:
    # three seeds at 0.1, 0.2, 0.3 (variance 0.01), whose resamples move together: nothing is explained
    points = np.array([0.1, 0.2, 0.3])
    together = points[:, None] + np.array([-0.02, 0.0, 0.02])
    made = interval(points, together, clusters=1001)

    assert made.seeds.observed == pytest.approx(0.01)
    assert made.seeds.explained == pytest.approx(0.0, abs=1e-15)
    of_clusters = 1.001 * 0.0004
    assert made.standard_error == pytest.approx(np.sqrt(of_clusters + 0.01 / 3))

    # the same points, but each seed's resamples move alone: variance 0.01, covariance -0.005, so 0.015 is explained
    alone = points[:, None] + 0.1 * np.sqrt(3) * np.eye(3)
    made = interval(points, alone, clusters=1001)
    assert made.seeds.explained == pytest.approx(0.015 * 1.001)
    # nothing is left to the seeds and their resamples cancel in the mean, which is still no surer than three seeds say
    assert made.standard_error == pytest.approx(np.sqrt(0.01 / 3))


def test_degrees_of_freedom_fall_to_those_of_the_seeds() -> None:
    spread = SeedSpread(observed=0.05, explained=0.0, n_seeds=5)
    assert spread.added_to(0.0, 39) == (pytest.approx(0.01), pytest.approx(4))
    assert spread.added_to(0.01, 4) == (pytest.approx(0.02), pytest.approx(8))
    assert SeedSpread(0.0, 0.0, 1).added_to(0.01, 39) == (0.01, 39)


def test_degrees_of_freedom_fall_no_further() -> None:
    """Clusters explain more than is observed: 0.002 alone would have 0.16 degrees of freedom, and t = 31 million."""
    assert SeedSpread(observed=0.05, explained=0.06, n_seeds=5).added_to(0.002, 39) == (pytest.approx(0.05 / 5), 1.0)


@pytest.mark.parametrize(("shared", "of_seed"), [(0.0, 0.0), (0.0, 0.3), (1.0, 0.0), (1.0, 0.2)])
def test_three_seeds_of_ten_clusters_keep_their_level_without_endless_intervals(shared: float, of_seed: float) -> None:
    """Normal effects of clusters (shared by seeds, and own), and of seeds; the truth is 0."""
    rng, n, seeds, clusters = np.random.default_rng(0), 4000, 3, 10
    figures = rng.normal(0, 1, (n, seeds, clusters)) + rng.normal(0, of_seed, (n, seeds, 1))
    figures += rng.normal(0, shared, (n, 1, clusters))
    points = figures.mean(2)
    of_clusters = figures.mean(1).var(1, ddof=1) / clusters
    apart = (figures - figures.mean(1, keepdims=True)).var(2, ddof=1).sum(1) / clusters / (seeds - 1)
    reach = np.empty(n)
    for i in range(n):
        spread = SeedSpread(points[i].var(ddof=1), apart[i], seeds)
        variance, freedom = spread.added_to(of_clusters[i], clusters - 1)
        reach[i] = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert 0.005 < np.mean(np.abs(points.mean(1)) > reach) < 0.07
    known = np.sqrt((shared**2 + 1 / seeds) / clusters + of_seed**2 / seeds)
    assert np.quantile(reach, 0.95) < 24 * known  # of one degree of freedom t is 12.7


def test_an_undefined_figure_has_no_interval_and_bad_resamples_are_left_out() -> None:
    assert np.isnan(interval(np.array([np.nan]), np.array([[0.1, 0.2]]), 20).p)
    assert np.isnan(interval(np.array([0.1]), np.array([[0.1, 0.2]]), 1).low)
    with_nan = interval(np.array([0.2]), np.array([[0.1, np.nan, 0.2, 0.3]]), 11)
    assert with_nan == interval(np.array([0.2]), np.array([[0.1, 0.2, 0.3]]), 11)
    nothing_varies = interval(np.array([0.0]), np.zeros((1, 5)), 11)
    assert (nothing_varies.low, nothing_varies.high, nothing_varies.p) == (0.0, 0.0, 1.0)


def test_the_interval_narrows_with_the_root_of_the_clusters() -> None:
    widths = []
    for clusters in (40, 640):
        draws = bootstrap(simulate(0, Design(clusters=(clusters,)))[0], ("w_f1",), 400)
        made = interval(*draws.of("w_f1", [0]), draws.clusters("w_f1", [0]))
        assert made.low < truth(0.0, ("w_f1",))["w_f1"] < made.high
        widths.append(made.high - made.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_clusters_of_a_mean_are_those_of_the_cells_that_have_the_figure() -> None:
    """English dialogues 0 to 39, of both genders; German ones 0 to 4, of women alone: no gap, and no men there."""
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
    made = draws.of("signed_tpr", [0, 1])[0]
    assert made == pytest.approx(bootstrap(english, ("signed_tpr",), 20).of("signed_tpr", [0])[0])


def test_pairing_takes_away_what_systems_share() -> None:
    """A system and a copy of it with one dialogue gone wrong: all their difference is in that dialogue."""
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


def test_resamples_are_those_of_a_plain_loop() -> None:
    counts = simulate(1, Design(clusters=(6,)), n_seeds=2)[0]
    draws = bootstrap(counts, SIGNED, 3, seed=5)
    weights = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=3)
    for b in range(3):
        chosen = np.repeat(np.arange(6), weights[b])
        expected = figures(counts.counts[:, chosen].sum(1), SIGNED)
        for q, name in enumerate(SIGNED):
            np.testing.assert_allclose(draws.draws[:, b, :, q], expected[name], atol=1e-12)


def test_the_simulation_shows_its_own_truth() -> None:
    """Otherwise calibration would be measured against a wrong number."""
    names = (*SIGNED, "w_f1")
    counts = simulate(0, Design(clusters=(4000,), size=50), gaps=(0.2,))[0].counts[0].sum(0)
    observed, known = figures(counts[0], names), truth(0.2, names)
    assert {name: float(observed[name]) for name in names} == pytest.approx(known, abs=0.012)
    assert known["signed_tpr"] == pytest.approx(-0.2) and known["standardised_accuracy"] == pytest.approx(-0.2)
    blind = truth(0.0, SIGNED)
    assert blind["signed_accuracy"] < -0.005  # label priors alone: men say more of what is easy
    assert all(abs(blind[name]) < 1e-12 for name in SIGNED if name.startswith("standardised_"))
    assert {name.split("_", 1)[1] for name in SIGNED} == set(GAP_KINDS)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_holm_keeps_order_and_lies_between_p_and_bonferroni(p: list[float], random) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-12).all() and (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert adjusted[int(np.argmin(p))] == pytest.approx(min(1, len(p) * min(p)))
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == pytest.approx(adjusted[order])


def test_holm_leaves_out_what_was_not_tested() -> None:
    adjusted = holm([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]].tolist() == [0.02, 0.04] and np.isnan(adjusted[1])
