"""Faults of processes, memory and disks on one machine.

Each fault is injected into a real sweep. No finished trial may be lost, and the sweep must end with the metrics of an
undisturbed one.
"""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.conftest import without_times

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EPOCHS = 8
FLAGS = ("--sampler", "random", "--space", "schedules", "--trials", "4", "--epochs", str(EPOCHS))
FLAGS += ("--set", f"optimisation.patience={EPOCHS}", "--num-workers", "2")  # on two cores, one trial at a time
TIMEOUT = 600  # seconds for each step, also on a busy machine


@pytest.fixture(scope="module")
def undisturbed(sweep):
    """The metrics of each run of a sweep without a fault."""
    done = sweep(*FLAGS, "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = metrics_of(StudyFolder.at(str(sweep.storage), "undisturbed"))
    assert len(metrics) == 4
    return metrics


def metrics_of(folder):
    """Return the ``finished.json`` of each run without its times."""
    return {run: without_times(folder.read_json(finished_json(*run))) for run in StudyState(folder).finished_runs}


def finished_bytes(folder):
    """Return the bytes of each ``finished.json``. They contain seconds, so a repeated run would change them."""
    return {run: folder.read_bytes(finished_json(*run)) for run in StudyState(folder).finished_runs}


def finished_json(config_id, seed):
    return f"runs/{config_id}/{seed}/finished.json"


def wait_for(condition, process, what):
    """Wait until a condition is true while the sweep runs; returns its value."""
    deadline = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert process.poll() is None, f"the sweep ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.1)
    return value


def middle_of_a_trial(process, folder, finished=0):
    """Wait until ``finished`` trials have finished and the next is between two epochs; returns its run."""

    def unfinished_run():
        for config_id in folder.names("runs"):
            if folder.exists(f"runs/{config_id}/0/checkpoint.json") and not folder.exists(finished_json(config_id, 0)):
                return (config_id, 0)
        return None

    wait_for(lambda: len(folder.names("trials")) >= finished, process, f"the end of trial {finished}")
    return wait_for(unfinished_run, process, "the middle of a trial")


def seconds_until_finished(process, folder, run):
    started = time.monotonic()
    wait_for(lambda: folder.exists(finished_json(*run)), process, "the end of the trial")
    return round(time.monotonic() - started, 1)


def descendants(process, title=""):
    """Return the processes that a sweep has started, by a part of their command line."""
    processes = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if title in " ".join(child.cmdline()):
                processes.append(child)
        except psutil.Error:  # it has ended
            continue
    return processes


def output_of(process):
    """Wait for the end of a sweep without errors; returns its output."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and "Traceback" not in err, out[-3000:] + err[-3000:]
    return out


def test_worker_and_driver_are_killed_and_a_worker_hangs(sweep, begin, undisturbed):
    folder = StudyFolder.at(str(sweep.storage), "processes")
    process = begin(*FLAGS, "--study", "processes", variables={"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "30"})
    faults = [
        ("RayTrainWorker", psutil.Process.kill),
        ("ResourceTrainable", psutil.Process.kill),
        ("RayTrainWorker", psutil.Process.suspend),
    ]
    for number, (title, inject) in enumerate(faults):
        run = middle_of_a_trial(process, folder, finished=number)
        before = finished_bytes(folder)
        inject(wait_for(lambda title=title: descendants(process, title), process, f"a {title}")[-1])
        seconds = seconds_until_finished(process, folder, run)
        print(f"seconds until finished after {inject.__name__} of {title}: {seconds} s")
        assert before.items() <= finished_bytes(folder).items()  # no finished run was repeated
    assert "failed" not in output_of(process)
    assert metrics_of(folder) == undisturbed


def test_resume_after_sigkill_gives_same_metrics(sweep, begin, undisturbed):
    folder = StudyFolder.at(str(sweep.storage), "killed")
    process = begin(*FLAGS, "--study", "killed")
    wait_for(lambda: folder.exists("study.json"), process, "the study")
    second = sweep(*FLAGS, "--study", "killed")
    assert second.returncode == 2
    assert f"is being written by process {process.pid} on {socket.gethostname()}" in second.stderr
    run = middle_of_a_trial(process, folder, finished=1)
    workers = wait_for(lambda: descendants(process, "RayTrainWorker"), process, "workers")
    before, children = finished_bytes(folder), descendants(process)
    assert before and run not in before
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    for child in alive:  # Ray's agents take longer
        child.kill()
    assert not set(workers) & set(alive)  # workers end with the sweep
    again = begin(*FLAGS, "--study", "killed")
    print(f"seconds until finished after kill of sweep: {seconds_until_finished(again, folder, run)} s")
    output_of(again)
    assert before.items() <= finished_bytes(folder).items()
    assert metrics_of(folder) == undisturbed


def test_trials_out_of_memory_fail_with_the_reason_and_are_retried(sweep):
    flags = ("--study", "starved", "--trials", "2", "--num-workers", "1", "--retries", "0")
    low_memory = {
        "RAY_memory_usage_threshold": "0.01",
        "RAY_memory_monitor_refresh_ms": "200",
    }  # Ray kills every worker
    folder = StudyFolder.at(str(sweep.storage), "starved")
    done = sweep(*flags, variables=low_memory)
    assert done.returncode == 1 and "0 of 2 trials are done, 2 failed" in done.stdout, done.stdout + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    failed = StudyState(folder).trials
    for trial in failed.values():
        assert trial["state"] == "failed" and "killed: " in trial["reason"] and "low on memory" in trial["reason"]
        assert trial["seconds"] >= 0 and Path(trial["log"]).exists()
    assert states_of(folder) == {0: "FAIL", 1: "FAIL"}
    again = sweep(*flags)
    assert again.returncode == 0 and "failed" not in again.stdout, again.stdout + again.stderr[-3000:]
    finished = {trial["label"] for trial in StudyState(folder).trials.values() if trial["state"] == "finished"}
    assert finished == {"ERM", "paper's setting"}


def states_of(folder):
    """Return the states of the finished trials in the exported Optuna study, by number."""
    storage = JournalStorage(JournalFileBackend(folder.path("journal.log")))
    study = optuna.load_study(study_name=Path(folder.uri).name, storage=storage)
    return {trial.number: trial.state.name for trial in study.trials if trial.state.is_finished()}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MB; skipped where this process may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_full_disk_is_an_error_at_the_start(sweep, small_disk):
    flags = ("--study", "full", "--trials", "1", "--num-workers", "1", "--cache", str(sweep.storage / "cache"))
    filler = small_disk / "filler"
    with suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
    done = sweep(*flags, storage=str(small_disk))
    assert done.returncode == 2 and "No space left on device" in done.stderr and str(small_disk) in done.stderr
    assert "running on" not in done.stdout and "Traceback" not in done.stderr
    filler.unlink()
    done = sweep(*flags, storage=str(small_disk))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_read_only_storage_is_an_error_at_the_start(sweep):
    done = sweep("--study", "x", storage="/sys/studies")
    assert done.returncode == 2 and "cannot write /sys/studies/x" in done.stderr
    assert "Point --storage at a place that can be written" in done.stderr and "running on" not in done.stdout


def test_unreachable_cluster_is_an_error_at_the_start(sweep):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = sweep("--study", "away", variables={"RAY_ADDRESS": address})
    assert done.returncode == 2 and f"RAY_ADDRESS: nothing answers at {address}" in done.stderr
    assert "Traceback" not in done.stderr and "running on" not in done.stdout


def test_finite_space_is_run_whole_and_more_trials_are_an_error(sweep):
    fixed = ("loss.estimator.kind=batch", "loss.temperature=0.1", "loss.reduction=mean")
    flags = (
        "--study",
        "small",
        "--space",
        "penalty",
        *(part for hyperparameter in fixed for part in ("--set", hyperparameter)),
    )
    refused = sweep(*flags, "--trials", "10")
    assert refused.returncode == 2 and "the space penalty has 2 points: at most 5" in refused.stderr
    done = sweep(*flags, "--trials", "5")
    assert done.returncode == 0 and "5 trials" in done.stdout, done.stderr[-3000:]
    trials = StudyState(StudyFolder.at(str(sweep.storage), "small")).trials.values()
    assert len({trial["config_id"] for trial in trials}) == 5  # ERM, ERM balanced, the paper's, and the two points
    assert {trial["hyperparameters"]["loss.power"] for trial in trials if not trial["label"]} <= {1, 2}
