"""The report of a study whose search objectives are not W-F1 and gap."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.loading.study import load_study
from analysis.pareto.attainment import objectives_history
from analysis.pareto.objectives_front import has_custom_objectives, objectives_front
from analysis.plots.search import objectives_figure
from analysis.report.build import write_report
from analysis.report.html import Picture, Table
from analysis.report.objectives_section import objectives_sections
from analysis.report.questions_section import confirmation_sections
from study.storage.study_state import StudyState
from tests.analysis import studies
from tests.analysis.contexts import report_context

GOALS = {"objectives": [["dev_uar", "max"], ["seconds", "min"]], "constraints": ["dev_gap<=0.1"]}
VALUES = {0: [0.50, 20.0], 1: [0.40, 10.0], 2: [0.90, 5.0], 3: [0.30, 30.0]}


def searched(path: Path, search_objectives=GOALS):
    """Four configurations; the third is the best and violates the constraint by two points."""
    folder = studies.write_whole_study(path, per_cell=12, configurations=4)
    folder.write_json("study.json", folder.read_json("study.json") | search_objectives)
    for number, record in StudyState(folder).trials.items():
        violations = {"dev_gap<=0.1": 0.02 if number == 2 else -0.01}
        record |= {"values": VALUES[number], "by_seed": {"0": VALUES[number]}, "violations": violations}
        folder.write_json(f"trials/{number:05d}.json", record)
    return folder


def test_section_shows_the_front_and_violated_constraints(tmp_path):
    study = load_study(searched(tmp_path / "s"))
    (section,) = objectives_sections(report_context(study))
    assert "dev_uar max, seconds min, with dev_gap<=0.1" in section.text
    assert "1 of 4 configurations violates a constraint" in section.text
    front, missed = (block.frame for block in section.blocks if isinstance(block, Table))
    assert front[["configuration", "dev_uar", "seconds"]].to_numpy().tolist() == [
        ["ERM", "50.0", "20.0"],
        ["paper's setting", "40.0", "10.0"],
    ]
    assert missed.to_numpy().tolist() == [["trial 2", "dev_gap<=0.1, by 2.0"]]
    assert sum(isinstance(block, Picture) for block in section.blocks) == 2


def test_hypervolume_is_scaled_to_the_range_of_the_study(tmp_path):
    study = load_study(searched(tmp_path / "s"))
    points = objectives_front(study.plan, study.trials)
    # uar 0.50, 0.40, 0.30 -> 1, 0.5, 0; seconds 20, 10, 30 -> 0.5, 1, 0; trial 2 is not allowed
    history = objectives_history(points, study.plan)
    assert history["n_trials"].tolist() == [1, 2, 3]
    assert history["hypervolume"].tolist() == pytest.approx([0.5, 0.75, 0.75])


def test_better_is_up_and_right_and_three_objectives_have_two_panels(tmp_path):
    study = load_study(searched(tmp_path / "s"))
    points = objectives_front(study.plan, study.trials)
    (axes,) = objectives_figure(points, study.plan).axes
    assert axes.xaxis.get_inverted() and not axes.yaxis.get_inverted()
    assert axes.get_xlabel() == "seconds (s), min" and axes.get_ylabel() == "dev_uar (points), max"
    three = {"objectives": [*GOALS["objectives"], ["dev_gap", "min"]]}
    assert len(objectives_figure(points.assign(dev_gap=0.1), three).axes) == 2


def test_search_objectives_come_before_w_f1_and_gap(tmp_path):
    folder = searched(tmp_path / "s")
    page = Path(write_report(load_study(folder), 20, 20).html).read_text()
    places = [
        page.index(words) for words in ("Search objectives<", "Pareto front of W", "Configurations on the front of W")
    ]
    assert places == sorted(places)
    assert "2 of 4 configurations are on the Pareto front of the search objectives (dev_uar max, seconds min" in page
    assert "Also: emotion recognition" in Path(folder.path("report", "pareto.svg")).read_text()


def test_confirmation_shows_the_search_objectives(tmp_path):
    folder = searched(tmp_path / "s")
    searched(tmp_path / "s" / "confirm")
    confirmation = load_study(folder.path("confirm"))
    (fresh,) = confirmation_sections(report_context(load_study(folder), confirmation=confirmation))
    table = fresh.blocks[0].frame.set_index("configuration")
    assert table.loc["ERM", ["dev_uar", "seconds"]].tolist() == ["50.0 → 50.0", "20.0 → 20.0"]
    assert table.loc["trial 2", "violations"] == "dev_gap<=0.1 → dev_gap<=0.1"


@pytest.mark.parametrize(
    "objectives", [None, [["dev_w_f1", "max"], ["dev_gap", "min"]], [["dev_gap", "min"], ["dev_w_f1", "max"]]]
)
def test_w_f1_and_gap_are_not_own_objectives(tmp_path, objectives):
    plan = {"objectives": objectives, "constraints": []}
    assert not has_custom_objectives(plan) and has_custom_objectives(plan | {"constraints": ["dev_gap<=0.1"]})
