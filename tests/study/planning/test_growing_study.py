"""A study that gets more seeds: what a seed that fails does to the record of a trial that had finished."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from analysis.pareto.objectives_front import objectives_front, objectives_table
from study.common.groups import cells
from study.config.presets import TINY
from study.config.settings import Parallelism, Settings
from study.planning.study_json import plan_with_results
from study.ray_backend import tuner
from study.ray_backend.tuner import FailureRecorder, TrialDriver
from study.search.objectives import SearchObjectives
from study.search.trial_records import (
    TrialTemplate,
    read_finished_runs,
    result_record,
    trial_record,
    trials_with_missing_seeds,
)
from study.storage.records import read_trial, write_trial
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies

HYPERPARAMETERS = {"loss.power": 1}
SUGGESTION = {**HYPERPARAMETERS, "number": 3, "label": None}


@pytest.fixture
def template(tmp_path):
    settings = Settings().with_overrides(TINY)
    return TrialTemplate(
        settings=settings,
        parallelism=Parallelism(),
        seeds=(0, 1, 2),
        features=tmp_path,
        backbone="tiny",
        cells=cells(["en"], settings.modalities),
        corpus_hash="c",
        backbone_hash="b",
        folder=StudyFolder(str(tmp_path / "s")),
        use_gpu=False,
    )


def fail(template, tmp_path):
    error = tmp_path / "error.txt"
    error.write_text("Traceback\nFloatingPointError: epoch 2: the objective is nan\n")
    trial = SimpleNamespace(trial_id="t", config=SUGGESTION, error_file=str(error), path="there/TrialDriver_3")
    FailureRecorder(template).on_trial_error(1, [], trial)
    return read_trial(template.folder, 3)


def test_a_seed_that_fails_leaves_a_finished_trial_as_it_was(template, tmp_path):
    outcome = {"state": "finished", "reason": None, "seconds": 7.0, "values": [0.4, 0.1], "by_seed": {"0": [0.4, 0.1]}}
    before = {**trial_record(SUGGESTION, template), **outcome}
    write_trial(template.folder, before)
    template.folder.write_json(f"runs/{before['config_id']}/0/finished.json", {})
    after = fail(template, tmp_path)
    assert after == {**before, "failed_seeds": {"1": "FloatingPointError: epoch 2: the objective is nan"}}
    assert trials_with_missing_seeds(template, StudyState(template.folder)) == [after]  # the next call tries again
    plan = {"objectives": [["dev_w_f1", "max"], ["dev_gap", "min"]], "seeds": [0, 1, 2]}
    assert objectives_front(plan, [after]).empty  # incomplete, so in no front


def test_a_record_keeps_every_seed_and_their_spread(template):
    for seed, (w_f1, gap) in {0: (0.4, 0.1), 1: (0.5, 0.1), 2: (0.6, 0.4)}.items():
        finished = {"seed": seed, "dev": {"w_f1": w_f1, "gap": gap}}
        template.folder.write_json(f"runs/aa/{seed}/finished.json", finished)
    outcome = result_record(template.search_objectives, read_finished_runs(template, "aa"))
    assert outcome["values"] == pytest.approx([0.5, 0.2]) and outcome["spread"] == pytest.approx([0.1, 0.03**0.5])
    assert outcome["by_seed"] == {"0": [0.4, 0.1], "1": [0.5, 0.1], "2": [0.6, 0.4]}
    record = {**trial_record(SUGGESTION, template), "state": "finished", "seconds": 7.0, **outcome}
    write_trial(template.folder, record)
    plan = {"objectives": [["dev_w_f1", "max"], ["dev_gap", "min"]], "seeds": [0, 1, 2]}
    table = objectives_table(objectives_front(plan, [read_trial(template.folder, 3)]), plan)
    assert table[["dev_w_f1", "dev_gap"]].to_numpy().tolist() == [["50.0 ± 10.0", "20.0 ± 17.3"]]
    one_seed = read_finished_runs(replace(template, seeds=(0,)), "aa")
    assert result_record(template.search_objectives, one_seed)["spread"] is None


def test_a_trial_that_never_finished_is_failed(template, tmp_path):
    record = fail(template, tmp_path)
    assert record["state"] == "failed" and "the objective is nan" in record["reason"]
    folder = template.folder
    assert record["seconds"] == 0.0  # no driver lived, and no worker has a log
    assert record["log"] == folder.path("ray", "tune", "TrialDriver_3", "error.txt")
    folder.write_bytes(f"runs/{record['config_id']}/worker-0.log", b"...")
    assert fail(template, tmp_path)["log"] == folder.path("runs", record["config_id"])


def test_a_driver_begins_with_its_first_step(template, monkeypatch):
    """Tune may set one up for a trial and then give that to another; both would train the same run."""
    started = []
    row = {"seed": 0, "epoch": 1, "config_id": "aa", "dev": studies.figures(0.4, 0.1)}
    workers = SimpleNamespace(start=lambda *job: started.append(job), next_row=lambda: row)
    monkeypatch.setattr(tuner, "WorkerGroup", lambda template: workers)
    driver = TrialDriver.__new__(TrialDriver)
    driver.setup({"number": 3, "label": None}, template)
    assert not started
    assert driver.step()["epoch"] == driver.step()["epoch"] == 1
    ((_, config_id, seeds),) = started
    assert config_id == driver.record["config_id"] and seeds == template.seeds


def test_a_trial_reports_its_own_goals_after_every_epoch(template):
    """Rungs rank by them; ``seconds``, which are known at the end of a run only, are left out."""
    driver = TrialDriver.__new__(TrialDriver)
    search_objectives = SearchObjectives((("dev_worst_group_w_f1", "max"), ("dev_gap@en", "min"), ("seconds", "min")))
    driver.template = replace(template, search_objectives=search_objectives)
    dev = {**studies.figures(0.4, 0.1), "worst_group_w_f1": 0.25}
    row = {"seed": 1, "epoch": 2, "config_id": "aa", "dev": dev}
    driver.workers, driver.record = SimpleNamespace(next_row=lambda: row), {"number": 3}
    driver.started = driver.training = True
    shown = {"dev_w_f1": 0.4, "dev_gap": 0.1, "dev_worst_group_w_f1": 0.25, "dev_gap@en": 0.1}
    assert driver.step() == {"seed": 1, "epoch": 2, "config_id": "aa", "number": 3, "complete": False, **shown}


def test_study_without_a_finished_epoch_may_be_replaced(tmp_path):
    """If all its trials failed because of a broken backbone, for instance: once repaired, it has another hash."""
    folder = studies.write_whole_study(tmp_path / "s", configurations=2)
    assert plan_with_results(StudyState(folder))["name"] == folder.read_json("study.json")["name"]
    folder.remove("runs")
    assert plan_with_results(StudyState(folder))
    for number, record in StudyState(folder).trials.items():
        write_trial(folder, {**record, "state": "failed"})
        folder.write_bytes(f"runs/{record['config_id']}/worker-0.log", b"safetensors: ...")
        folder.write_json(f"runs/{record['config_id']}/{number}/attempt.json", {})
    assert plan_with_results(StudyState(folder)) is None
    folder.write_jsonl(f"runs/{record['config_id']}/0/epochs.jsonl", [])
    assert plan_with_results(StudyState(folder))
    folder.remove("study.json")
    assert plan_with_results(StudyState(folder)) is None
