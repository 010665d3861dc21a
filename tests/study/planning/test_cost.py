"""The estimated cost of a study, and its budget."""

from __future__ import annotations

import pytest

from study.common.errors import SettingsError
from study.planning.cost import Pace, measured_pace, require_budget
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis.studies import write_plan
from tests.study.storage.test_status import trial


class Lines:
    """A console that records what is printed."""

    def __init__(self):
        self.text = ""

    def print(self, line):
        self.text += line + "\n"


def check(plan):
    """Check the budget of a plan, and return what is printed."""
    console = Lines()
    require_budget(plan, StudyState(plan.request.folder), console)
    return console.text


def plan_like(plan, **changes):
    """The parts of a ``study.json`` that make a study similar to a plan."""
    settings = plan.request.settings.model_dump(mode="json")
    corpus = {"spec": settings["corpus"]["spec"], "hash": plan.corpus.content_hash}
    similar = {"settings": settings, "corpus": corpus, "backbone": {"spec": "tiny", "hash": "x"}}
    return {**similar, "parallelism": {"num_workers": 2, "zero_stage": 2}, **changes}


@pytest.fixture
def measured(planned, tmp_path):
    """A similar study with one run: 10 s to start and 20 s per epoch."""
    folder = write_plan(tmp_path / "other", **plan_like(planned()))
    folder.write_json("runs/a/0/finished.json", {"epochs_run": 3, "seconds": {"setup": 10.0, "total": 70.0}})


def test_cost_is_estimated_from_similar_runs(planned, tmp_path):
    plan = planned("--study", "new", "--trials", "10", "--seeds", "0,1")
    assert "2 worker groups at a time; unknown, since no similar run has finished" in check(plan)
    for name, spec in (("similar", "tiny"), ("different", "other")):
        folder = write_plan(tmp_path / name, **plan_like(plan, backbone={"spec": spec, "hash": "x"}))
        trial(folder, 0, "a", seconds=75.0)
        # 10 s to start and two epochs of 20 s, then 15 s and one epoch of 20 s; the trial took 75 s, overhead below 0
        for seed, setup, epochs in ((0, 10.0, 2), (1, 15.0, 1)):
            seconds = {"setup": setup, "total": (setup + 20.0 * epochs) * (1 if name == "similar" else 100)}
            folder.write_json(f"runs/a/{seed}/finished.json", {"epochs_run": epochs, "seconds": seconds})
    damaged = write_plan(tmp_path / "damaged", **plan_like(plan))
    damaged.write_json("trials/00000.json", [])  # does not concern the new study
    pace = measured_pace(plan, StudyState(plan.request.folder))
    assert pace == Pace(setup=12.5, epoch=20.0, overhead=0.0, runs=2, studies=("similar",))
    # a trial of 2 seeds and 3 epochs: 2 (12.5 + 60) = 145 s on 2 workers = 0.0806 worker-hours; 5 rounds of 2 trials
    assert "10 trials at 0.0806 worker-hours each: at most 0.806 worker-hours, about 12 min" in check(plan)
    assert "medians over 2 runs of similar" in check(plan)
    budget = ("--study", "new", "--seeds", "0,1", "--budget", "0.5")
    with pytest.raises(SettingsError, match=r"--budget: 10 trials .* need up to 0\.806 .* is 0\.5; use --trials 6"):
        check(planned(*budget, "--trials", "10"))
    assert "budget     0.5 worker-hours are enough for a study of 6 trials" in check(planned(*budget, "--trials", "6"))


def test_singular_in_the_cost_of_one_trial(planned, measured):
    printed = check(planned("--study", "new", "--trials", "1"))
    assert "1 worker group at a time; 1 trial at 0.0389 worker-hours each" in printed
    assert "medians over 1 run of other" in printed


def test_missing_seeds_of_finished_trials_are_part_of_the_cost(planned, measured, tmp_path):
    folder = StudyFolder(str(tmp_path / "grown"))
    for number, config_id in enumerate(("a", "b", "b")):  # b was proposed twice
        trial(folder, number, config_id)
        folder.write_json(f"runs/{config_id}/0/finished.json", {"epochs_run": 3, "seconds": {"total": 70.0}})
    folder.write_json("runs/a/1/finished.json", {"epochs_run": 3, "seconds": {"total": 70.0}})
    grown = ("--study", "grown", "--trials", "3", "--seeds", "0,1,2")
    # seed 2 of a, and seeds 1 and 2 of b: three runs of 70 s on 2 workers = 0.117 worker-hours
    printed = check(planned(*grown))
    assert "more seeds for 2 finished trials at 0.117 worker-hours: at most 0.117 worker-hours" in printed
    with pytest.raises(SettingsError, match=r"need up to 0\.117 .* is 0\.1; use fewer --seeds or fewer --epochs"):
        check(planned(*grown, "--budget", "0.1"))
    assert "are enough for a study of 3 trials" in check(planned(*grown, "--budget", "0.12"))


def test_too_small_budget_recommends_no_number_of_trials(planned, measured):
    with pytest.raises(SettingsError, match=r"the budget is 0\.01; use fewer --seeds"):
        check(planned("--study", "new", "--budget", "0.01"))


def test_budget_needs_a_finished_run_to_estimate_from(planned):
    with pytest.raises(SettingsError, match="no finished run to estimate from; run one trial first"):
        check(planned("--study", "new", "--budget", "5"))


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_budget_must_be_a_positive_number(planned, hours):
    with pytest.raises(SettingsError, match="--budget: Input should be (greater than 0|a finite number)"):
        planned("--budget", hours)


def test_size_of_a_grid_counts_the_papers_setting_once(planned):
    # two powers, one of them the paper's setting, and ERM with two kinds of batches
    fixed = ("--set", "loss.reduction=max", "--set", "loss.estimator.kind=batch")
    grid = ("--space", "penalty", "--sampler", "grid", *fixed)
    assert len(planned(*grid, "--trials", "4").space.baselines) == 3
    with pytest.raises(SettingsError, match="5 requested, but the grid has 2 points, .* use at most 4"):
        planned(*grid, "--trials", "5")
