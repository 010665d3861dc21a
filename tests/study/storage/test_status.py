"""The status of a study, from records written by hand."""

from __future__ import annotations

import pytest

from study.storage.locks import study_lock
from study.storage.records import write_trial
from study.storage.status import read_status
from study.storage.study_state import StudyState
from tests.analysis.studies import write_plan


def trial(folder, number, config_id, state="finished", seconds=60.0, **more):
    record = {"number": number, "label": None, "config_id": config_id, "hyperparameters": {"loss.power": 1}}
    record |= {"values": [0.4, 0.1], "state": state, "seconds": seconds}
    write_trial(folder, record | more)


def test_status_counts_finished_open_and_remaining_trials(tmp_path):
    folder = write_plan(tmp_path / "s", seeds=(0, 1), parallelism={"num_workers": 2, "zero_stage": 2})
    trial(folder, 0, "a")
    for seed in (0, 1):
        folder.write_json(f"runs/a/{seed}/finished.json", {})
    trial(folder, 1, "b", "failed", 30.0)
    trial(folder, 2, "c", "pruned", 30.0)
    folder.write_json("runs/d/0/finished.json", {})
    folder.write_jsonl("runs/d/1/epochs.jsonl", [{"epoch": 1}, {"epoch": 2}])
    status = read_status(StudyState(folder))
    assert status.counts == {"finished": 1, "failed": 1, "pruned": 1}
    assert status.open == {"d": "seed 0: finished, seed 1: epoch 2"} and status.holder is None
    assert status.worker_hours == pytest.approx(2 * 120 / 3600)
    assert status.remaining == 6 * 60  # 6 of 8 trials, one at a time, one minute each
    with study_lock(folder):
        assert "process" in (read_status(StudyState(folder)).holder or "")


def test_status_counts_missing_seeds_of_finished_trials(tmp_path):
    folder = write_plan(tmp_path / "s", seeds=(0, 1, 2), trials=2)
    for number, config_id in enumerate(("a", "b")):
        trial(folder, number, config_id, by_seed={"0": [0.4, 0.1]})
        folder.write_json(f"runs/{config_id}/0/finished.json", {})
    folder.write_jsonl("runs/a/1/epochs.jsonl", [{"epoch": 1}])
    status = read_status(StudyState(folder))
    assert status.open == {"a": "seed 0: finished, seed 1: epoch 1, seed 2: not started"}
    assert status.counts == {"finished": 2} and status.missing_runs == 4
    assert status.remaining == 4 * 60  # one minute per run, one at a time


def test_failed_trial_that_was_retried_is_not_counted(tmp_path):
    folder = write_plan(tmp_path / "s")
    for number, config_id in enumerate(("succeeded", "running", "failed twice")):
        trial(folder, number, config_id, "failed", retried=True)
        folder.write_json(f"runs/{config_id}/0/settings.json", {})
    folder.write_json("runs/succeeded/0/finished.json", {})
    trial(folder, 3, "succeeded")
    trial(folder, 4, "failed twice", "failed")
    status = read_status(StudyState(folder))
    assert status.counts == {"finished": 1, "failed": 2}  # the two attempts of one configuration
    assert status.open == {"running": "seed 0: not started"}
