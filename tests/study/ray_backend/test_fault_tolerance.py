"""What a sweep loses when processes, memory or disks fail on one machine: no trial that has finished, and no figure.

Each fault is inflicted on a real sweep. One that goes on afterwards has to end with the figures of one left alone.
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

from study.storage.records import finished_runs, read_trials
from study.storage.study_folder import StudyFolder
from tests.conftest import without_times

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
EPOCHS = 8
FLAGS = ("--sampler", "random", "--space", "schedules", "--trials", "4", "--epochs", str(EPOCHS))
FLAGS += (
    "--set",
    f"optimisation.patience={EPOCHS}",
    "--num-workers",
    "2",
)  # so on two cores, one trial after the other
PATIENCE = 600  # seconds that anything may take on a busy machine


@pytest.fixture(scope="module")
def undisturbed(sweep):
    """Figures of the runs of a sweep that nothing happened to, by run."""
    done = sweep(*FLAGS, "--study", "undisturbed")
    assert done.returncode == 0, done.stderr[-3000:]
    figures = figures_of(StudyFolder.at(str(sweep.storage), "undisturbed"))
    assert len(figures) == 4
    return figures


def figures_of(folder):
    return {run: without_times(folder.read_json(marker(*run))) for run in finished_runs(folder)}


def kept(folder):
    """The bytes of the markers of finished runs; they hold how long each took, so no second run repeats them."""
    return {run: folder.read_bytes(marker(*run)) for run in finished_runs(folder)}


def marker(config_id, seed):
    return f"runs/{config_id}/{seed}/finished.json"


def wait_for(condition, process, what):
    """The first true value of a condition, while the sweep lives."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert process.poll() is None, f"the sweep ended before {what}: {process.communicate()}"
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)
    return value


def middle_of_a_trial(process, folder, finished=0):
    """Wait until so many trials have finished and the next has an epoch behind it and more to come; its run."""

    def halfway():
        for config_id in folder.names("runs"):
            if folder.exists(f"runs/{config_id}/0/checkpoint.json") and not folder.exists(marker(config_id, 0)):
                return (config_id, 0)
        return None

    wait_for(lambda: len(folder.names("trials")) >= finished, process, f"the end of trial {finished}")
    return wait_for(halfway, process, "the middle of a trial")


def seconds_until_finished(process, folder, run):
    began = time.monotonic()
    wait_for(lambda: folder.exists(marker(*run)), process, "the end of the trial")
    return round(time.monotonic() - began, 1)


def descendants(process, title=""):
    """Processes that a sweep has started, by a part of their title."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if title in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def ended(process):
    """What a sweep printed that ended well."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in err, out[-3000:] + err[-3000:]
    return out


def test_a_worker_is_killed_then_a_trials_driver_then_a_worker_hangs(sweep, begin, undisturbed):
    folder = StudyFolder.at(str(sweep.storage), "processes")
    process = begin(*FLAGS, "--study", "processes", variables={"RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "30"})
    errors = [
        ("RayTrainWorker", psutil.Process.kill),
        ("ResourceTrainable", psutil.Process.kill),
        ("RayTrainWorker", psutil.Process.suspend),
    ]
    for number, (title, inflict) in enumerate(errors):
        run = middle_of_a_trial(process, folder, finished=number)
        before = kept(folder)
        inflict(wait_for(lambda title=title: descendants(process, title), process, f"a {title}")[-1])
        seconds = seconds_until_finished(process, folder, run)
        print(f"seconds until finished after {inflict.__name__} of {title}: {seconds} s")
        assert before.items() <= kept(folder).items()  # no finished run again
    assert "failed" not in ended(process)
    assert figures_of(folder) == undisturbed


def test_the_sweep_is_killed_and_goes_on(sweep, begin, undisturbed):
    folder = StudyFolder.at(str(sweep.storage), "killed")
    process = begin(*FLAGS, "--study", "killed")
    wait_for(lambda: folder.exists("study.json"), process, "the study")
    second = sweep(*FLAGS, "--study", "killed")
    assert second.returncode == 2
    assert f"is being written by process {process.pid} on {socket.gethostname()}" in second.stderr
    run = middle_of_a_trial(process, folder, finished=1)
    workers = wait_for(lambda: descendants(process, "RayTrainWorker"), process, "workers")
    before, others = kept(folder), descendants(process)
    assert before and run not in before
    process.kill()
    process.communicate()
    _, living = psutil.wait_procs(others, timeout=60)
    for child in living:  # Ray's agents may take longer
        child.kill()
    assert not set(workers) & set(living)  # they end with the sweep
    again = begin(*FLAGS, "--study", "killed")
    print(f"seconds until finished after kill of sweep: {seconds_until_finished(again, folder, run)} s")
    ended(again)
    assert before.items() <= kept(folder).items()
    assert figures_of(folder) == undisturbed


def test_trials_that_run_out_of_memory_say_so_and_are_tried_again(sweep):
    flags = ("--study", "starved", "--trials", "2", "--num-workers", "1", "--retries", "0")
    starved = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}  # Ray ends every worker
    folder = StudyFolder.at(str(sweep.storage), "starved")
    done = sweep(*flags, variables=starved)
    assert done.returncode == 1 and "0 of 2 trials are done, 2 failed" in done.stdout, done.stdout + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    failed = read_trials(folder)
    for trial in failed.values():
        assert trial["state"] == "failed" and "killed: " in trial["reason"] and "low on memory" in trial["reason"]
        assert trial["seconds"] >= 0 and Path(trial["log"]).exists()
    assert states_of(folder) == {0: "FAIL", 1: "FAIL"}
    again = sweep(*flags)
    assert again.returncode == 0 and "failed" not in again.stdout, again.stdout + again.stderr[-3000:]
    finished = {trial["label"] for trial in read_trials(folder).values() if trial["state"] == "finished"}
    assert finished == {"ERM", "paper's setting"}


def states_of(folder):
    """Optuna's states of the trials that have ended, by number."""
    storage = JournalStorage(JournalFileBackend(folder.path("journal.log")))
    study = optuna.load_study(study_name=Path(folder.uri).name, storage=storage)
    return {trial.number: trial.state.name for trial in study.trials if trial.state.is_finished()}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MB of its own, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_told_at_the_start_and_with_room_the_same_command_works(sweep, small_disk):
    flags = ("--study", "full", "--trials", "1", "--num-workers", "1", "--cache", str(sweep.storage / "cache"))
    rest = small_disk / "rest"
    with suppress(OSError), open(rest, "wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass
    done = sweep(*flags, storage=str(small_disk))
    assert done.returncode == 2 and "No space left on device" in done.stderr and str(small_disk) in done.stderr
    assert "running on" not in done.stdout and "Traceback" not in done.stderr
    rest.unlink()
    done = sweep(*flags, storage=str(small_disk))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_a_storage_that_cannot_be_written_is_told_at_the_start(sweep):
    done = sweep("--study", "x", storage="/sys/studies")
    assert done.returncode == 2 and "cannot write /sys/studies/x" in done.stderr
    assert "Point --storage at a place that can be written" in done.stderr and "running on" not in done.stdout


def test_a_cluster_that_does_not_answer_is_told_at_the_start(sweep):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = sweep("--study", "away", variables={"RAY_ADDRESS": address})
    assert done.returncode == 2 and f"RAY_ADDRESS: nothing answers at {address}" in done.stderr
    assert "Traceback" not in done.stderr and "running on" not in done.stdout


def test_a_space_that_comes_to_its_end_is_told_before_and_run_whole(sweep):
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
    trials = read_trials(StudyFolder.at(str(sweep.storage), "small")).values()
    assert len({trial["config_id"] for trial in trials}) == 5  # ERM, ERM balanced, the paper's, and the two points
    assert {trial["hyperparameters"]["loss.power"] for trial in trials if not trial["label"]} <= {1, 2}
