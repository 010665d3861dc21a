"""The published results are consistent and labelled."""

from __future__ import annotations

import pytest

from analysis.loading.published import FIGURES, LABEL, published
from study.common.groups import LANGUAGES, MODALITIES


def test_published_rows_are_labelled_fractions() -> None:
    rows = published()
    assert (rows["label"] == LABEL).all() and rows["source"].str.contains("2603.21050").all()
    assert set(rows["modality"]) == set(MODALITIES)
    for name in FIGURES:
        assert rows[name].dropna().between(0.01, 0.99).all()
    assert not rows.duplicated(["system", "modality", "language"]).any()


def test_multilingual_figure_is_the_mean_over_languages() -> None:
    method = published().query("system == 'ERM-MinMaxGAP' and modality == 'speech+text'").set_index("language")
    assert method.loc[list(LANGUAGES), "w_f1"].mean() == pytest.approx(method.loc["multilingual", "w_f1"], abs=5e-5)
    assert method.loc["multilingual", ["w_f1", "accuracy", "gap"]].tolist() == pytest.approx([0.5768, 0.5865, 0.0353])


def test_published_headline_compares_with_one_system() -> None:
    """The paper's "gap -0.1 / -1.4" is the speech / speech+text difference from gpt-4o-mini-audio, not the fairest."""
    gaps = published().query("language == 'multilingual'").pivot(index="system", columns="modality", values="gap")
    change = gaps.loc["ERM-MinMaxGAP"] - gaps.loc["gpt-4o-mini-audio"]
    assert (change["speech"], change["speech+text"]) == pytest.approx((-0.0009, -0.0142))
    assert gaps["speech"].idxmin() == "Ultravox-0.4"
