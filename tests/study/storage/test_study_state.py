"""StudyState: each file is read at most once, and what this process writes is current."""

from __future__ import annotations

from collections import Counter

import pytest

from study.common.errors import RecordError
from study.storage.locks import study_lock
from study.storage.records import run_directory, write_trial
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis.studies import write_plan
from tests.study.storage.test_records import TRIAL


@pytest.fixture
def folder(tmp_path):
    return write_plan(tmp_path / "s", seeds=(0, 1))


def test_finished_runs_have_a_marker(folder):
    folder.write_json("runs/abc/0/finished.json", {})
    folder.write_json("runs/abc/1/settings.json", {})
    folder.write_jsonl("runs/abc/1/epochs.jsonl", [{"epoch": 1}])
    folder.write_json("runs/abc/10/attempt.json", {})
    folder.write_bytes("runs/abc/worker-0.log", b"")
    state = StudyState(folder)
    assert list(state.run_files) == [("abc", 0), ("abc", 1), ("abc", 10)]
    assert state.finished_runs == [("abc", 0)] and state.started_runs == [("abc", 1)]


def test_missing_plan_is_none_or_an_error(tmp_path):
    state = StudyState(StudyFolder(str(tmp_path)))
    assert state.plan_if_any is None and state.trials == {} and state.run_files == {}
    with pytest.raises(RecordError, match="no study at"):
        _ = state.plan


def test_missing_seeds_are_of_finished_trials(folder):
    for number, (config_id, outcome) in enumerate({"a": "finished", "b": "finished", "c": "failed"}.items()):
        write_trial(folder, {**TRIAL, "number": number, "config_id": config_id, "state": outcome})
    for run in (("a", 0), ("a", 1), ("b", 1), ("c", 0)):
        folder.write_json(f"{run_directory(*run)}/finished.json", {})
    state = StudyState(folder)
    assert state.missing_seeds((0, 1)) == {"b": [0]} and state.missing_seeds((1,)) == {}
    assert state.trials_done == 2 and [trial["config_id"] for trial in state.finished_trials] == ["a", "b"]


def count_requests(monkeypatch, requests):
    """Count the requests to study folders by (method, path)."""
    for method in ("read_bytes", "exists", "names", "version", "versions"):
        original = getattr(StudyFolder, method)

        def count(self, name, method=method, original=original):
            requests[method, self.path(name)] += 1
            return original(self, name)

        monkeypatch.setattr(StudyFolder, method, count)


def test_refresh_reads_only_changed_files(folder, monkeypatch):
    state = StudyState(folder)
    for number in range(3):
        state.write_trial({**TRIAL, "number": number})
        folder.write_jsonl(f"runs/abc/{number}/epochs.jsonl", [{"epoch": 1}])
    assert state.plan and len(state.trials) == 3 and [state.epochs(*run) for run in state.started_runs]
    write_trial(folder, {**TRIAL, "number": 1, "label": "ERM"})
    write_trial(folder, {**TRIAL, "number": 3})
    folder.write_jsonl("runs/abc/0/epochs.jsonl", [{"epoch": 1}, {"epoch": 2}])
    requests = Counter()
    count_requests(monkeypatch, requests)
    state.refresh()
    assert state.plan and [trial["label"] for trial in state.trials.values()] == [None, "ERM", None, None]
    assert [len(state.epochs(*run)) for run in state.started_runs] == [2, 1, 1]
    read = [path.removeprefix(f"{folder.uri}/") for method, path in requests if method == "read_bytes"]
    assert read == ["trials/00001.json", "trials/00003.json", "runs/abc/0/epochs.jsonl"]


@pytest.mark.parametrize("trials", [1, 5])
def test_each_file_is_read_once(folder, monkeypatch, trials):
    for number in range(trials):
        write_trial(folder, {**TRIAL, "number": number, "config_id": f"c{number}"})
        folder.write_json(f"runs/c{number}/0/finished.json", {"seed": 0})
        folder.write_jsonl(f"runs/c{number}/0/epochs.jsonl", [{"epoch": 1}])
    requests = Counter()
    count_requests(monkeypatch, requests)
    state = StudyState(folder)
    for _ in range(3):
        assert state.plan["seeds"] == [0, 1] and len(state.trials) == trials
        assert [state.finished(*run) for run in state.finished_runs] == [{"seed": 0}] * trials
        assert [state.epochs(*run) for run in state.started_runs] == [[{"epoch": 1}]] * trials
        assert state.holder is None
    assert set(requests.values()) == {1}
    reads = sum(method == "read_bytes" for method, _ in requests)
    assert reads == 1 + 3 * trials and len(requests) - reads == 4  # the plan, the lock, trials and runs


def test_own_writes_are_current_and_others_need_a_refresh(folder):
    state = StudyState(folder)
    assert state.trials == {} and state.finished_runs == [] and state.holder is None
    state.write_trial(TRIAL)
    state.write_trial({**TRIAL, "number": 1})
    state.write_plan({**state.plan, "trials": 99})
    assert list(state.trials) == [1, 3] and state.plan["trials"] == 99
    assert StudyState(folder).trials == state.trials and StudyState(folder).plan == state.plan
    write_trial(folder, {**TRIAL, "number": 2})
    folder.write_json("runs/abc/0/finished.json", {})
    with study_lock(folder):
        assert list(state.trials) == [1, 3] and state.finished_runs == [] and state.holder is None
        state.refresh()
        assert list(state.trials) == [1, 2, 3] and state.finished_runs == [("abc", 0)]
        assert state.holder.startswith("process ")
