"""Search objectives and constraints: parsing, and their values for a run."""

from __future__ import annotations

import pandas as pd
import pytest

from study.common.groups import EMOTIONS, cells
from study.evaluation.metrics import evaluate
from study.search.objectives import (
    Constraint,
    SearchObjectives,
    available_metrics,
    mean_metrics,
    metric_value,
    objective_errors,
    parse_search_objectives,
)

CELLS = cells(["en", "de"], ["speech", "speech+text"])


@pytest.fixture(scope="module")
def finished():
    """The record of a run: every prediction for German women is wrong, all others are right, in both modalities."""
    rows = [
        {
            "utterance_id": f"{language}{gender}{emotion}",
            "language": language,
            "modality": modality,
            "gender": gender,
            "emotion": emotion,
            "predicted": EMOTIONS[(i + 1) % 7] if (language, gender) == ("de", "female") else emotion,
        }
        for language in ("en", "de")
        for modality in ("speech", "speech+text")
        for gender in ("female", "male")
        for i, emotion in enumerate(EMOTIONS)
    ]
    return {"seed": 0, "dev": evaluate(pd.DataFrame(rows)), "seconds": {"total": 12.0}}


def test_every_available_metric_has_a_value(finished):
    for metric in available_metrics(CELLS):
        assert isinstance(metric_value(metric, finished), float), metric


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("seconds", 12.0),
        ("dev_accuracy", 0.75),
        ("dev_accuracy@en", 1.0),
        ("dev_accuracy@de", 0.5),
        ("dev_accuracy@speech", 0.75),
        ("dev_gap_tpr@de/speech+text", 1.0),
        ("dev_gap_tpr@de", 1.0),
        ("dev_gap_tpr@speech+text", 0.5),
        ("dev_gap@en", 0.0),
        ("dev_worst_group_w_f1", 0.0),
    ],
)
def test_metrics_of_a_language_a_modality_and_a_cell(finished, metric, value):
    assert metric_value(metric, finished) == pytest.approx(value)


def test_mean_over_seeds_raises_for_undefined_metrics(finished):
    other = {**finished, "seconds": {"total": 14.0}}
    assert mean_metrics(["seconds"], [finished, other]) == {"seconds": 13.0}
    undefined = {**finished, "dev": {**finished["dev"], "gap": None}}
    with pytest.raises(ValueError, match="dev_gap is undefined"):
        mean_metrics(["dev_gap"], [finished, undefined])


@pytest.mark.parametrize(
    ("objectives", "constraints", "message"),
    [
        ("dev_w_f1", [], "'dev_w_f1' is not METRIC:max"),
        ("dev_w_f1:up,dev_gap:min", [], "'dev_w_f1:up'"),
        ("dev_w_f1:max", [], "must name 2 or 3"),
        ("w_f1:max,dev_w_f1:max", [], "must name 2 or 3 different"),
        ("a:max,b:max,c:max,d:max", [], "must name 2 or 3"),
        ("w_f1:max,gap:min", ["gap<0.03"], "'gap<0.03' is not METRIC<=NUMBER"),
        ("w_f1:max,gap:min", ["gap<=small"], "gap<=small"),
        ("w_f1:max,gap:min", ["gap<=1e999"], "'gap<=1e999' is not METRIC<=NUMBER"),
        (
            "w_f1:max,gap:min",
            ["gap@de<=3"],
            "'gap@de<=3' is not between 0 and 1; gaps and rates are fractions, so 3 points are 0.03",
        ),
        ("w_f1:max,gap:min", ["gap<=-0.01"], "'gap<=-0.01' is not between 0 and 1"),
    ],
)
def test_invalid_objectives_and_constraints_are_errors(objectives, constraints, message):
    _, errors = parse_search_objectives(objectives, constraints)
    assert len(errors) == 1 and message in errors[0]


def test_constraint_on_seconds_is_not_a_fraction():
    search_objectives, errors = parse_search_objectives("w_f1:max,gap:min", ["seconds<=90"])
    assert errors == [] and search_objectives.constraints == (Constraint("seconds", "<=", 90.0),)


def test_error_about_an_unknown_metric_lists_the_available_ones():
    search_objectives, errors = parse_search_objectives("w_f1@ja:max,test_gap:min", ["uar@de>=0.4", "uar@ja>=0.4"])
    assert errors == []
    messages = objective_errors(search_objectives, CELLS)
    assert [message.split(";")[0] for message in messages] == [
        "--objectives: there is no metric dev_w_f1@ja",
        "--objectives: there is no metric dev_test_gap",
        "--constraint: there is no metric dev_uar@ja",
    ]
    assert (
        "dev_gap_tpr@de/speech" in messages[0] and "seconds" in messages[0] and "test" not in messages[0].split(";")[1]
    )


def test_violations_of_constraints():
    search_objectives = SearchObjectives(
        constraints=(Constraint("dev_gap", "<=", 0.03), Constraint("dev_w_f1", ">=", 0.5))
    )
    assert search_objectives.metrics == ("dev_w_f1", "dev_gap")
    assert search_objectives.violations({"dev_gap": 0.02, "dev_w_f1": 0.45}) == {
        "dev_gap<=0.03": -0.01,
        "dev_w_f1>=0.5": 0.05,
    }
