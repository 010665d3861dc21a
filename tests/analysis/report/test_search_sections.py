"""The sections about the search, and their figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.loading.published import LABEL
from analysis.loading.study import load_study
from analysis.plots.search import attainment_figure, hypervolume_figure, published_figure
from analysis.plots.style import render
from analysis.report.html import Picture, Table
from analysis.report.search_sections import (
    importance_sections,
    published_sections,
    selection_sections,
    stability_sections,
)
from analysis.tables.benchmark import benchmark
from tests.analysis import studies
from tests.analysis.contexts import report_context


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("made") / "s"
    return load_study(studies.write_whole_study(path, per_cell=15, seeds=(0, 1), configurations=3))


def tables(section) -> list[pd.DataFrame]:
    return [block.frame for block in section.blocks if isinstance(block, Table)]


def test_selection_stability_and_importance_sections(study) -> None:
    (choices,) = tables(selection_sections(report_context(study))[0])
    assert choices["dev W-F1"].max() == pytest.approx(100 * study.configurations["dev_w_f1"].max())

    (stability,) = stability_sections(report_context(study, resamples=30))
    assert "30 bootstrap draws" in stability.text
    (likely,) = tables(stability)
    shares = likely["on the front, % of draws"]
    assert shares.between(0, 100).all() and shares.is_monotonic_decreasing and len(shares) == 3
    assert sum(isinstance(block, Picture) for block in stability.blocks) == 2  # attainment and growth

    (importance,) = importance_sections(report_context(study))
    assert not importance.blocks
    assert importance.text == (
        "Importance cannot be estimated: it takes 20 trials with the same hyperparameter, and no hyperparameter has "
        "more than 0."
    )


def test_one_seed_has_no_surfaces_and_undefined_gaps_no_front(tmp_path: Path) -> None:
    one = load_study(studies.write_whole_study(tmp_path / "one", per_cell=10, configurations=2))
    (section,) = stability_sections(report_context(one))
    assert sum(isinstance(block, Picture) for block in section.blocks) == 1

    folder = studies.write_plan(tmp_path / "none")
    studies.write_trial(folder, 0, "aa", "ERM")
    studies.write_run(folder, "aa", 0, studies.figures(0.5, None), studies.figures(0.5, None))
    none = load_study(folder)
    assert stability_sections(report_context(none)) == []
    (choices,) = tables(selection_sections(report_context(none))[0])
    assert choices["configuration"].str.startswith("none: ").all()


def test_published_results_are_labelled_and_folded_for_another_corpus(study) -> None:
    layout = benchmark(study, study.configurations["config_id"].tolist())
    (section,) = published_sections(report_context(study, benchmark=layout))
    (table,) = tables(section)

    assert all(block.fold for block in section.blocks) and "another corpus" in section.text
    source = table.set_index("system")["source"]
    assert source["ERM-MinMaxGAP"] == LABEL and source["ERM"] == "this study, test"
    gap = table.set_index("system").loc["ERM-MinMaxGAP", "AVG gap"]
    assert gap == pytest.approx(3.53)
    ours = study.configurations.set_index("name").loc["ERM", "test_w_f1"]
    assert table.set_index("system").loc["ERM", "W-F1"] == pytest.approx(100 * ours)


def test_better_is_to_the_right_and_lines_differ_by_dash() -> None:
    surfaces = pd.DataFrame(
        {"level": [25.0, 25.0, 50.0, 75.0], "gap": [0.02, 0.05, 0.06, 0.08], "w_f1": [0.4, 0.5, 0.45, 0.4]}
    )
    figure = attainment_figure(surfaces, 4)
    (axes,) = figure.axes
    assert axes.get_xlim()[0] > 8 > 2 > axes.get_xlim()[1]
    assert len({line.get_linestyle() for line in axes.get_lines()}) == 3
    assert "50 % of seeds" in [text.get_text() for text in figure.legends[0].get_texts()]

    history = pd.DataFrame({"n_trials": [1, 2], "hours": [0.5, 1.0], "hypervolume": [0.1, 0.2]})
    trials, hours = hypervolume_figure(history).axes
    assert trials.get_lines()[0].get_ydata().tolist() == [1000, 2000] and "trials" in trials.get_xlabel()
    assert hours.get_lines()[0].get_xdata().tolist() == [0.5, 1.0] and "GPU-hours" in hours.get_xlabel()

    rows = pd.DataFrame(
        {"modality": "speech", "name": ["A", "$B_1$"], "ours": [False, True], "w_f1": [50.0, 40.0], "gap": [4.0, 6.0]}
    )
    drawn = published_figure(rows)
    assert drawn.axes[0].xaxis.get_inverted() and render(drawn, "svg") == render(published_figure(rows), "svg")
