"""Shared by the tests that interfere with running sweeps: watch a sweep, and compare what it leaves."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psutil
import pytest

from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.conftest import PATIENCE, without_times

T = TypeVar("T")
Run = tuple[str, int]


def marker(config_id: str, seed: int) -> str:
    """Return the name of the file that a run writes last."""
    return f"runs/{config_id}/{seed}/finished.json"


def metrics_of(folder: StudyFolder) -> dict[Run, dict[str, Any]]:
    """Return the metrics of the finished runs."""
    return {run: without_times(folder.read_json(marker(*run))) for run in StudyState(folder).finished_runs}


def markers_of(folder: StudyFolder) -> dict[Run, bytes]:
    """Return the last files of the finished runs. They hold times, so a run that is repeated changes them."""
    return {run: folder.read_bytes(marker(*run)) for run in StudyState(folder).finished_runs}


def values_of(folder: StudyFolder) -> dict[str, list[float]]:
    """Return the search objectives of the finished trials by configuration."""
    trials = StudyState(folder).trials.values()
    return {trial["config_id"]: trial["values"] for trial in trials if trial["state"] == "finished"}


def epochs_of(folder: StudyFolder, config_id: str) -> int | None:
    """Return the epochs in the checkpoint of an unfinished run; None if it is being written."""
    try:
        return len(folder.read_json(f"runs/{config_id}/0/checkpoint.json")["epochs"])
    except FileNotFoundError:
        return 0
    except RecordError:  # the file grew between the request for its size and the read
        return None


def unfinished(folder: StudyFolder, finished: int = 0, started: int = 1) -> list[str]:
    """Return the configurations that are being trained and have more epochs to come.

    Args:
        finished: return none before so many others have finished.
        started: return none before so many, finished ones included, have a checkpoint.
    """
    done = {config_id for config_id, _ in StudyState(folder).finished_runs}
    epochs = {name: epochs_of(folder, name) or 0 for name in folder.names("runs") if name not in done}
    enough = len(done) >= finished and len(done) + sum(map(bool, epochs.values())) >= started
    return [name for name, number in epochs.items() if 1 <= number <= 10] if enough else []


def advanced(folder: StudyFolder, config_id: str, epochs: int) -> bool:
    """Return whether a run has more epochs than ``epochs``; it must never have fewer."""
    if (config_id, 0) in StudyState(folder).finished_runs:
        return True
    if (now := epochs_of(folder, config_id)) is None:
        return False
    assert now >= epochs or (config_id, 0) in StudyState(folder).finished_runs, f"{now} of {epochs} epochs are left"
    return now > epochs


def wait_for(condition: Callable[[], T], process: subprocess.Popen[str] | None = None) -> T:
    """Return the first true value of a condition, which must come while a process runs."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.1)
    return value


def descendants(pid: int, title: str = "") -> list[psutil.Process]:
    """Return the descendants of a process with a text in their title, oldest first."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if title in " ".join(child.cmdline()):
                found.append((child.create_time(), child))
        except psutil.Error:  # it has just exited
            continue
    return [child for _, child in sorted(found, key=lambda item: item[0])]


def output_of(process: subprocess.Popen[str]) -> str:
    """Wait for a sweep to succeed and return what it printed."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    assert "failed" not in out and "Traceback" not in err, out[-3000:] + err[-3000:]
    return out


def assert_nothing_lost(folder: StudyFolder, kept: dict[Run, bytes], expected: dict[str, list[float]]) -> None:
    """Assert that exactly the expected trials finished, with their values, and that no run of ``kept`` was repeated."""
    assert {run: content for run, content in markers_of(folder).items() if run in kept} == kept
    values = values_of(folder)
    assert values.keys() == expected.keys() and len(StudyState(folder).finished_runs) == len(expected)
    for config_id, objectives in expected.items():
        assert values[config_id] == pytest.approx(objectives, abs=1e-6)
