"""The benchmark's layout: means over seeds, then over languages, by hand."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from analysis.loading.study import Study, load_study
from analysis.tables.benchmark import MEAN, benchmark, benchmark_csv, benchmark_latex
from tests.analysis import studies


def cell(w_f1: float, gap: float | None) -> dict:
    (made,) = studies.figures(w_f1, gap)["cells"].values()
    return made


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    for number, (config_id, label) in enumerate((("aa", "ERM"), ("bb", "50 % & more"))):
        studies.write_trial(folder, number, config_id, label)
        for seed in (0, 1):
            test = studies.figures(0.5, 0.1)
            test["cells"] = {
                "de/speech": cell(0.30, None),
                "en/speech": cell(0.60 + 0.02 * seed, -0.10),
                "en/speech+text": cell(0.70, 0.02),
            }
            studies.write_run(folder, config_id, seed, test, test)
    return load_study(folder)


def test_benchmark_averages_over_seeds_then_languages(study: Study) -> None:
    tables = benchmark(study, ["bb", "aa"])

    assert list(tables) == ["speech", "speech+text"]
    speech = tables["speech"]
    assert list(speech.index) == ["50 % & more", "ERM"]
    assert list(dict.fromkeys(speech.columns.get_level_values(0))) == ["en", "de", MEAN]
    assert list(speech["en"].columns) == ["W-F1", "ACC", "ΔTPR", "ΔFPR", "ΔW-F1", "ΔACC", "AVG"]
    assert speech.loc["ERM", ("en", "W-F1")] == pytest.approx(61)
    assert speech.loc["ERM", (MEAN, "W-F1")] == pytest.approx((61 + 30) / 2)
    assert pd.isna(speech.loc["ERM", (MEAN, "AVG")])  # one language has no gap: a mean of the rest is another figure


def test_benchmark_csv_is_readable_and_latex_is_escaped(study: Study) -> None:
    tables = benchmark(study, ["aa", "bb"])
    read = pd.read_csv(io.StringIO(benchmark_csv(tables)))
    assert read[["modality", "configuration"]].to_numpy().tolist() == [
        ["speech", "ERM"], ["speech", "50 % & more"], ["speech+text", "ERM"], ["speech+text", "50 % & more"]
    ]  # fmt: skip
    assert read["en W-F1"].tolist() == [61, 61, 70, 70]

    latex = benchmark_latex(tables, "test", ["planted_gaps"])
    assert latex.count(r"\begin{tabular}") == 2 and r"50 \% \& more & 61.00 & 61.00" in latex
    assert r"planted\_gaps" in latex and r"\caption{speech+text, on test" in latex
