"""Faults of processes, memory and disks on one machine lose no finished trial and change no metric."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from study.cli.sweep import main
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.conftest import PATIENCE
from tests.study.ray_backend.sweeps import (
    descendants,
    marker,
    markers_of,
    metrics_of,
    output_of,
    unfinished,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * PATIENCE)]
FLAGS = ("--sampler", "random", "--space", "schedules", "--epochs", "8", "--set", "optimisation.patience=8")
FOUR_TRIALS = ("--trials", "4", "--num-workers", "2", *FLAGS)  # on two cores, one trial after the other


def test_trial_resumes_after_sigkill_of_its_worker(run_here):
    flags = ("--trials", "1", "--num-workers", "1", *FLAGS)
    assert run_here(main, *flags, "--study", "undisturbed").returncode == 0
    folder = StudyFolder.at(str(run_here.storage), "killed")
    killed = []

    def kill_worker():
        name = wait_for(lambda: unfinished(folder))[0]
        descendants(os.getpid(), "RayTrainWorker")[-1].kill()
        if not folder.exists(marker(name, 0)):
            killed.append(name)

    thread = Thread(target=kill_worker)
    thread.start()
    done = run_here(main, *flags, "--study", "killed")
    thread.join()
    assert killed and done.returncode == 0 and "failed" not in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert metrics_of(folder) == metrics_of(StudyFolder.at(str(run_here.storage), "undisturbed"))


@pytest.fixture
def small_disk(tmp_path):
    """Return a disk of 16 MB, if this process may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_full_disk_is_an_error_at_the_start_and_the_command_works_once_there_is_space(run_here, small_disk):
    flags = ("--study", "full", "--trials", "1", "--num-workers", "1", "--cache", str(run_here.storage / "cache"))
    filler = small_disk / "filler"
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
    done = run_here(main, *flags, storage=str(small_disk))
    assert done.returncode == 2 and "No space left on device" in done.stderr and str(small_disk) in done.stderr
    assert "running on" not in done.stdout
    filler.unlink()
    done = run_here(main, *flags, storage=str(small_disk))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.fixture(scope="module")
def undisturbed(run_sweep):
    """Return the metrics of a sweep without faults."""
    done = run_sweep(*FOUR_TRIALS, "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = metrics_of(StudyFolder.at(str(run_sweep.storage), "undisturbed"))
    assert len(metrics) == 4
    return metrics


def seconds_until_finished(process, folder, config_id):
    began = time.monotonic()
    wait_for(lambda: folder.exists(marker(config_id, 0)), process)
    return round(time.monotonic() - began, 1)


@pytest.mark.faults
def test_killed_worker_killed_driver_and_hanging_worker(run_sweep, start_sweep, undisturbed):
    folder = StudyFolder.at(str(run_sweep.storage), "processes")
    variables = {"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "30"}
    process = start_sweep(*FOUR_TRIALS, "--study", "processes", variables=variables)
    faults = [
        ("RayTrainWorker", psutil.Process.kill),
        ("TrialDriver", psutil.Process.kill),
        ("RayTrainWorker", psutil.Process.suspend),
    ]
    for number, (title, inflict) in enumerate(faults):
        config_id = wait_for(lambda number=number: unfinished(folder, finished=number), process)[0]
        before = markers_of(folder)
        inflict(wait_for(lambda title=title: descendants(process.pid, title), process)[-1])
        seconds = seconds_until_finished(process, folder, config_id)
        print(f"seconds until finished after {inflict.__name__} of {title}: {seconds} s")
        assert before.items() <= markers_of(folder).items()  # no finished run is repeated
    output_of(process)
    assert metrics_of(folder) == undisturbed


@pytest.mark.faults
def test_killed_sweep_resumes(run_sweep, start_sweep, undisturbed):
    folder = StudyFolder.at(str(run_sweep.storage), "killed")
    process = start_sweep(*FOUR_TRIALS, "--study", "killed")
    wait_for(lambda: folder.exists("study.json"), process)
    second = run_sweep(*FOUR_TRIALS, "--study", "killed")
    assert second.returncode == 2
    assert f"is being written by process {process.pid} on {socket.gethostname()}" in second.stderr
    config_id = wait_for(lambda: unfinished(folder, finished=1), process)[0]
    workers = wait_for(lambda: descendants(process.pid, "RayTrainWorker"), process)
    before, others = markers_of(folder), descendants(process.pid)
    assert before and (config_id, 0) not in before
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(others, timeout=60)
    for child in alive:  # Ray's agents may take longer
        child.kill()
    assert not set(workers) & set(alive)  # they end with the sweep
    again = start_sweep(*FOUR_TRIALS, "--study", "killed")
    print(f"seconds until finished after kill of the sweep: {seconds_until_finished(again, folder, config_id)} s")
    output_of(again)
    assert before.items() <= markers_of(folder).items()
    assert metrics_of(folder) == undisturbed


@pytest.mark.faults
def test_trials_that_run_out_of_memory_fail_with_the_reason_and_are_retried(run_sweep):
    flags = ("--study", "starved", "--trials", "2", "--num-workers", "1", "--retries", "0")
    starved = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}  # Ray kills every worker
    folder = StudyFolder.at(str(run_sweep.storage), "starved")
    done = run_sweep(*flags, variables=starved)
    assert done.returncode == 1 and "0 of 2 trials are done, 2 failed" in done.stdout, done.stdout + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    failed = StudyState(folder).trials
    for trial in failed.values():
        assert trial["state"] == "failed" and "killed: " in trial["reason"] and "low on memory" in trial["reason"]
        assert trial["seconds"] >= 0 and Path(trial["log"]).exists()
    storage = JournalStorage(JournalFileBackend(folder.path("journal.log")))
    exported = optuna.load_study(study_name="starved", storage=storage).trials
    assert {trial.number: trial.state.name for trial in exported if trial.state.is_finished()} == {0: "FAIL", 1: "FAIL"}
    again = run_sweep(*flags)
    assert again.returncode == 0 and "failed" not in again.stdout, again.stdout + again.stderr[-3000:]
    finished = {trial["label"] for trial in StudyState(folder).trials.values() if trial["state"] == "finished"}
    assert finished == {"ERM", "paper's setting"}
