"""The figure of the loss over the training steps: its data, and that it can be drawn."""

from __future__ import annotations

import pytest

from analysis.loading.study import load_study
from analysis.plots.steps import MAX_CONFIGURATIONS, steps_figure, steps_info
from analysis.plots.style import render
from study.storage.records import run_directory
from tests.analysis.studies import STEPS_AN_EPOCH, figures, write_plan, write_run, write_trial, write_whole_study


def test_paper_setting_comes_first_then_the_best_penalised(tmp_path):
    study = load_study(write_whole_study(tmp_path / "study", configurations=5))
    info = steps_info(study)
    assert info.names[0] == "paper's setting" and len(info.names) == MAX_CONFIGURATIONS and "ERM" not in info.names
    others = study.runs[study.runs["label"].isna()].nlargest(2, "dev_w_f1")
    assert info.names[1:] == tuple(others["name"])
    steps = info.steps[info.steps["name"] == "paper's setting"]
    assert len(steps) == 2 * STEPS_AN_EPOCH
    assert steps["weight"].tolist() == [0.1] * STEPS_AN_EPOCH + [0.2] * STEPS_AN_EPOCH
    assert info.cells == ("en/speech+text", "de/speech+text") and info.weights.empty


def test_gaps_are_absolute_and_averaged_over_a_tenth_of_the_steps(tmp_path):
    info = steps_info(load_study(write_whole_study(tmp_path / "study", configurations=2)))
    of_en = info.gaps[info.gaps["cell"] == "en/speech+text"].set_index("step")["gap"]
    # 20 steps, so windows of two: |0.2| and |-0.4| take turns
    assert of_en.loc[2:].tolist() == pytest.approx([0.3] * 19)
    of_de = info.gaps[info.gaps["cell"] == "de/speech+text"]
    assert of_de["step"].min() == 2  # absent in the first step


def test_weight_per_cell_is_shown_by_cell(tmp_path):
    folder = write_plan(tmp_path / "study")
    write_trial(folder, 0, "abc", "each")
    write_run(folder, "abc", 0, figures(0.5, 0.1), figures(0.5, 0.1))
    name = f"{run_directory('abc', 0)}/steps.parquet"
    steps = folder.read_parquet(name)
    for cell, factor in (("en/speech+text", 0.5), ("de/speech+text", 1.5)):
        steps[f"fairness_weight/{cell}"] = factor * steps["fairness_weight"]
    folder.write_parquet(name, steps)
    info = steps_info(load_study(folder))
    last = info.weights[info.weights["step"] == 20].set_index("cell")["weight"]
    assert last.to_dict() == pytest.approx({"en/speech+text": 0.1, "de/speech+text": 0.3})
    assert len(steps_figure(info).axes[0].lines) == 3  # a line each cell, and where the second epoch begins


def test_no_figure_without_a_fairness_weight(tmp_path):
    assert steps_info(load_study(write_whole_study(tmp_path / "study", configurations=1))) is None


def test_figure_is_deterministic(tmp_path):
    info = steps_info(load_study(write_whole_study(tmp_path / "study", configurations=3)))
    assert render(steps_figure(info), "svg") == render(steps_figure(info), "svg")
