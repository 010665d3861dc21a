"""Tables of configurations in points."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from analysis.formatting import formatted
from analysis.loading.study import load_study
from analysis.pareto.front import front
from analysis.tables import configurations
from study.evaluation.metrics import class_rates, evaluate
from tests.analysis import studies
from tests.study.evaluation.test_metrics import BY_HAND, frame


@pytest.fixture
def study(tmp_path: Path):
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    hyperparameters = {"loss.fairness_weight.weight": 0.5, "loss.fairness_weight.schedule": "constant"}
    studies.write_trial(folder, 0, "aa", "ERM", {"loss.method": "erm"})
    studies.write_trial(folder, 1, "bb", None, hyperparameters)
    studies.write_trial(folder, 2, "cc")
    runs = [("aa", 0, 0.6, 0.1), ("aa", 1, 0.62, 0.12), ("bb", 0, 0.5, 0.05), ("bb", 1, 0.5, 0.05)]
    for config_id, seed, w_f1, gap in runs:
        studies.write_run(folder, config_id, seed, studies.figures(w_f1, gap), studies.figures(w_f1 - 0.1, -gap))
    studies.write_run(folder, "cc", 0, studies.figures(0.9, 0.0), studies.figures(0.9, 0.0))
    return load_study(folder)


def test_front_table(study) -> None:
    table = configurations.front_table(front(study.configurations))

    assert table["configuration"].tolist() == ["ERM", "trial 1"]
    assert table["dev W-F1"].tolist() == pytest.approx([61, 50])
    assert table["dev gap"].tolist() == pytest.approx([11, 5])
    assert table["test W-F1"].tolist() == pytest.approx([51, 40])
    assert table["hyperparameters"].tolist() == ["method erm", "fairness weight constant, weight 0.5"]


def test_configurations_table_shows_incomplete_seeds_and_intervals(study) -> None:
    points = front(study.configurations)
    intervals = {"aa": (0.58, 0.64), "bb": (0.45, 0.55), "cc": (float("nan"), float("nan"))}
    table = configurations.configurations_table(points, 2, intervals)

    assert table["configuration"].tolist() == ["trial 2", "ERM", "trial 1"]
    assert table["front"].tolist() == ["", "yes", "yes"]
    assert table["seeds"].tolist() == ["1 of 2, incomplete", "2", "2"]
    assert table["95 % interval"].tolist() == ["–", "58.0 to 64.0", "45.0 to 55.0"]
    assert "95 % interval" not in configurations.configurations_table(points, 2)


def test_cells_table_keeps_order_and_sign(study) -> None:
    table = configurations.cells_table(study, ["bb", "aa"], "test")

    assert table["configuration"].tolist() == ["trial 1", "ERM"]
    assert table[["women", "men", "unknown"]].to_numpy().tolist() == [[30, 28, 2]] * 2
    assert table["F − M ACC"].tolist() == pytest.approx([-5, -11])
    assert formatted(table)["F − M ACC"].tolist() == ["−5.0", "−11.0"]


def test_formatted_has_no_minus_zero_and_a_dash_for_nan() -> None:
    table = pd.DataFrame({"gap": [-0.01, float("nan")], "F − M TPR": [-0.01, 2.04]})
    assert formatted(table).to_numpy().tolist() == [["0.0", "+0.0"], ["–", "+2.0"]]


def test_front_csv_is_readable(study) -> None:
    read = pd.read_csv(io.StringIO(configurations.front_csv(front(study.configurations))))

    assert read["config_id"].tolist() == ["aa", "bb"]
    assert read["dev_gap_points"].tolist() == [11.0, 5.0]
    assert read["hyperparameter.loss.fairness_weight.weight"].tolist()[1] == 0.5


def test_rates_by_emotion_are_averaged_over_seeds(tmp_path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=15, seeds=(0, 1), configurations=1)
    study = load_study(folder)
    config_id = str(study.configurations["config_id"].iloc[0])
    runs = [class_rates(study.predictions(config_id, seed, "test")) for seed in (0, 1)]
    table = configurations.rates_table(runs)
    assert list(table) == ["language", "modality", "emotion", "n F", "n M", "TPR F", "TPR M", "FPR F", "FPR M"]
    assert len(table) == 3 * 7 and table["n F"].sum() == table["n M"].sum() == 45
    row = table[(table["language"] == "de") & (table["emotion"] == "joy")].iloc[0]
    german = [run.query("language == 'de' and emotion == 'joy' and gender == 'male'").iloc[0] for run in runs]
    assert row["n M"] == german[0]["n"]
    assert row["TPR M"] == pytest.approx(50 * (german[0]["tpr"] + german[1]["tpr"]))
    assert row["FPR M"] == pytest.approx(50 * (german[0]["fpr"] + german[1]["fpr"]))


def test_groups_table_by_hand() -> None:
    """Women: joy 3 of 4, anger 2 of 2; men: joy 1 of 2, anger 2 of 4; in Japanese all four are right."""
    fair = frame([(g, e, e) for g in ("female", "male") for e in ("joy", "anger")], language="ja")
    table = configurations.groups_table(evaluate(pd.concat([frame(BY_HAND), fair]))).set_index(["language", "gender"])

    assert table["utterances"].tolist() == [6, 6, 12, 2, 2, 4, 16]
    assert table.loc[("en", "female"), ["accuracy", "UAR", "invalid"]].tolist() == pytest.approx([500 / 6, 87.5, 0])
    assert table.loc[("en", "male"), "UAR"] == pytest.approx(50)
    assert table.loc[("mean", "all"), "UAR"] == pytest.approx((4 / 6 + 4 / 6 + 2) / 4 * 100)
    assert table["gap"].isna().tolist() == [True, True, False, True, True, False, False]
