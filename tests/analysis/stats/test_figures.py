"""Figures of confusion counts, against the metrics of single runs, a plain loop and known truths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.bootstrap import bootstrap
from analysis.stats.cluster_counts import ClusterBy, cluster_counts
from analysis.stats.figures import ABSOLUTE, LEVELS, SIGNED, figures, scopes
from study.common.groups import cells
from study.evaluation.metrics import GAP_KINDS, evaluate
from tests.analysis.simulations import Design, simulate, truth
from tests.analysis.stats.test_cluster_counts import predictions


@pytest.mark.parametrize("by", ["dialogue", "speaker"])
def test_figures_agree_with_evaluate(by: ClusterBy) -> None:
    frame = pd.concat([predictions(), predictions(1, "speech+text")])
    counts = cluster_counts({0: frame}, by)
    computed, expected = figures(counts.counts[0].sum(0)), evaluate(frame)

    assert set(computed) == {*LEVELS, *SIGNED, *ABSOLUTE}
    for i, cell in enumerate(counts.cells):
        of_cell = expected["cells"][str(cell)]
        assert computed["w_f1"][i] == pytest.approx(of_cell["w_f1"])
        assert computed["w_f1_male"][i] == pytest.approx(of_cell["by_group"]["male"]["w_f1"])
        assert computed["avg"][i] == pytest.approx(of_cell["gap"])
        for name in SIGNED:
            source, _, kind = name.partition("_")
            assert computed[name][i] == pytest.approx(of_cell[source][kind])


def test_scopes_of_two_languages_and_modalities() -> None:
    members = scopes(cells(["en", "de"], ["speech", "speech+text"]))  # cells: en and de of speech, then of speech+text
    assert members["de"] == (1, 3) and members["multilingual/speech+text"] == (2, 3) and members["all"] == (0, 1, 2, 3)
    assert list(scopes(cells(["en"], ["speech"]))) == ["en/speech"]


def test_resampled_figures_agree_with_a_plain_loop() -> None:
    counts = simulate(1, Design(clusters=(6,)), n_seeds=2)[0]
    draws = bootstrap(counts, SIGNED, 3, seed=5)
    weights = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), size=3)
    for b in range(3):
        chosen = np.repeat(np.arange(6), weights[b])
        expected = figures(counts.counts[:, chosen].sum(1), SIGNED)
        for q, name in enumerate(SIGNED):
            np.testing.assert_allclose(draws.draws[:, b, :, q], expected[name], atol=1e-12)


def test_simulation_agrees_with_its_truth() -> None:
    """Check the reference values of the calibration tests."""
    names = (*SIGNED, "w_f1")
    counts = simulate(0, Design(clusters=(4000,), size=50), gaps=(0.2,))[0].counts[0].sum(0)
    observed, known = figures(counts[0], names), truth(0.2, names)
    assert {name: float(observed[name]) for name in names} == pytest.approx(known, abs=0.012)
    assert known["signed_tpr"] == pytest.approx(-0.2) and known["standardised_accuracy"] == pytest.approx(-0.2)
    blind = truth(0.0, SIGNED)
    assert blind["signed_accuracy"] < -0.005  # from label priors alone: men have more of the easy emotions
    assert all(abs(blind[name]) < 1e-12 for name in SIGNED if name.startswith("standardised_"))
    assert {name.split("_", 1)[1] for name in SIGNED} == set(GAP_KINDS)
