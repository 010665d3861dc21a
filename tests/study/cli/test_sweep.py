"""The sweep, from its command to the figures of its report, through real Ray, DeepSpeed and Optuna."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from analysis.loading.study import load_study
from analysis.pareto.front import front
from analysis.plots.pareto import pareto_info
from study.cli.sweep import main
from study.storage.records import read_study
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.conftest import CREDENTIALS, PATIENCE


@pytest.fixture(scope="module")
def finished(run_sweep):
    """Return (process, study folder) of a sweep of two trials with two workers and ZeRO-2."""
    done = run_sweep("--study", "two", "--trials", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    return done, StudyFolder.at(str(run_sweep.storage), "two")


def test_sweep_leaves_records_and_a_report(finished):
    done, folder = finished
    trials = StudyState(folder).trials
    assert [trial["state"] for trial in trials.values()] == ["finished", "finished"]
    assert [trial["label"] for trial in trials.values()] == ["ERM", "paper's setting"]
    assert set(StudyState(folder).finished_runs) == {(trial["config_id"], 0) for trial in trials.values()}
    study = load_study(folder)
    points = front(study.configurations)
    assert len(points) == 2 and points["on_front"].any()
    by_config = points.set_index("config_id")
    for trial in trials.values():
        assert trial["values"] == pytest.approx(by_config.loc[trial["config_id"], ["dev_w_f1", "dev_gap"]].tolist())
    assert len(pareto_info(study).points) == 2
    for name in ("report.html", "pareto.png", "pareto.svg", "front.csv"):
        assert folder.exists(f"report/{name}") and folder.path("report") in done.stdout


def test_output_is_short_and_has_a_line_for_each_trial(finished):
    done, _ = finished
    lines = done.stdout.splitlines()
    assert len(lines) < 60
    assert sum(line.startswith("trial ") and "W-F1" in line and "gap" in line for line in lines) == 2
    assert "Pareto front on dev" in done.stdout
    assert "WARNING" not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_journal_is_readable_by_optuna(finished):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(finished[1].path("journal.log")))
    study = optuna.load_study(study_name="two", storage=storage)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_worker_logs_are_beside_their_runs(finished):
    _, folder = finished
    for config_id, _ in StudyState(folder).finished_runs:
        assert {"worker-0.log", "worker-1.log"} <= set(folder.names(f"runs/{config_id}"))


def test_records_split_the_time_to_the_first_step(finished):
    _, folder = finished
    runs = [
        folder.read_json(f"runs/{config_id}/{seed}/finished.json")
        for config_id, seed in StudyState(folder).finished_runs
    ]
    parts = ["placement", "processes", "imports", "examples", "encoder states", "model", "engine", "first step"]
    assert [list(run["startup"]) for run in runs] == [parts] * len(runs)
    waited = sorted(run["startup"]["processes"] for run in runs)
    groups = min(len(waited), max(1, (os.cpu_count() or 1) // 2))  # of two workers; later trials reuse them
    assert waited.count(0) == len(waited) - groups
    assert all(run["startup"]["placement"] > 0 for run in runs if run["startup"]["processes"])


def test_no_record_log_report_or_output_contains_a_credential(finished, ray_directory):
    done, folder = finished
    files = [path for root in (folder.uri, ray_directory) for path in Path(root).rglob("*") if path.is_file()]
    assert {"study.json", "report.html", "worker-0.log", "runtime_env_agent.log"} <= {path.name for path in files}
    for name, secret in CREDENTIALS.items():
        assert secret not in done.stdout + done.stderr, name
        assert not [str(path) for path in files if secret.encode() in path.read_bytes()], name


def test_same_command_shows_a_finished_study_and_runs_nothing(run_here, finished):
    _, folder = finished
    before = {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}
    again = run_here(main, "--study", "two", "--trials", "2", storage=str(Path(folder.uri).parent))
    assert again.returncode == 0 and "study two is complete: 2 trials" in again.stdout
    assert "Pareto front on dev" in again.stdout and "running on" not in again.stdout
    assert before == {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--space", "schedules"), ["--space: 'fairness' in the study, 'schedules' in this call"]),
        (("--set", "loss.power=1"), ["loss.power: 2 in the study, 1 in this call"]),
        (("--modalities", "speech"), ["modalities"]),
    ],
)
def test_folder_of_another_study_is_refused(run_here, finished, flags, words):
    _, folder = finished
    plan = read_study(folder)
    done = run_here(main, "--study", "two", "--trials", "2", *flags, storage=str(Path(folder.uri).parent))
    assert done.returncode == 2 and "choose another --study" in done.stderr
    assert all(word in done.stderr for word in words)
    assert read_study(folder) == plan and len(StudyState(folder).trials) == 2


def test_all_errors_of_a_command_are_printed_before_anything_starts(run_here):
    done = run_here(
        main,
        *("--study", "faulty", "--num-workers", "64", "--set", "loss.pwer=3"),
        *("--set", "loss.coefficients.languages.de=-1", "--seeds", "a", "--zero-stage", "5", "--space", "none"),
    )
    assert done.returncode == 2
    for word in (
        "--num-workers: 64",
        "loss.pwer",
        "languages.de",
        "--seeds: Input should be a valid integer",
        "--zero-stage",
        "--space",
    ):
        assert word in done.stderr, done.stderr
    assert not (run_here.storage / "faulty").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(run_here):
    done = run_here(main, "--study", "planned", "--trials", "5", "--seeds", "0,1", "--dry-run")
    assert done.returncode == 0, done.stderr
    for words in (
        "5 trials × 2 seeds",
        "10 runs of at most 1 epoch,",
        "fairness_weight.step_size",
        "planned",
        "2 workers per trial",
        "ZeRO-2",
    ):
        assert words in done.stdout
    assert not (run_here.storage / "planned").exists()


def test_unwritable_storage_is_an_error_at_the_start(run_here):
    done = run_here(main, "--study", "x", storage="/sys/studies")
    assert done.returncode == 2 and "cannot write /sys/studies/x" in done.stderr
    assert "Point --storage to a folder that can be written" in done.stderr and "running on" not in done.stdout


def test_unreachable_cluster_is_an_error_at_the_start(run_here):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = run_here(main, "--study", "away", variables={"RAY_ADDRESS": address})
    assert done.returncode == 2 and f"RAY_ADDRESS: nothing answers at {address}" in done.stderr
    assert "running on" not in done.stdout


SMALL_SPACE = ("--space", "penalty", "--set", "loss.estimator.kind=batch", "--set", "loss.temperature=0.1")
SMALL_SPACE += ("--set", "loss.reduction=mean", "--study", "small")


def test_more_trials_than_the_space_has_points_are_refused(run_here):
    refused = run_here(main, *SMALL_SPACE, "--trials", "10")
    assert refused.returncode == 2 and "2 points, with the baseline configurations 5; use at most 5" in refused.stderr


@pytest.mark.slow
def test_every_point_of_a_small_space_is_run_once(run_here):
    done = run_here(main, *SMALL_SPACE, "--trials", "5", "--num-workers", "1")
    assert done.returncode == 0 and "5 trials" in done.stdout, done.stderr[-3000:]
    trials = StudyState(StudyFolder.at(str(run_here.storage), "small")).trials.values()
    assert len({trial["config_id"] for trial in trials}) == 5  # three baselines and the two points
    assert {trial["hyperparameters"]["loss.power"] for trial in trials if not trial["label"]} <= {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(2, 130, "interrupted"), pytest.param(15, 143, "terminated", marks=pytest.mark.faults)],
    ids=["SIGINT", "SIGTERM"],
)
def test_interrupted_sweep_resumes_and_can_be_extended(run_sweep, start_sweep, number, status, word):
    name = f"cut-{number}"
    folder = StudyFolder.at(str(run_sweep.storage), name)
    flags = ("--study", name, "--epochs", "10", "--set", "optimisation.patience=10", "--trials")
    process = start_sweep(*flags, "2")
    deadline = time.monotonic() + PATIENCE
    while not list(Path(folder.uri).glob("runs/*/0/checkpoint.json")) or not folder.names("trials"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)  # until the first trial has finished and the second has done an epoch
    process.send_signal(signal.Signals(number))
    _, err = process.communicate(timeout=PATIENCE)
    assert (
        process.returncode == status
        and f"{word}: finished runs are kept" in err
        and "run the same command again to resume" in err
        and "Traceback" not in err
    )
    kept = {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}
    assert len(kept) == 1
    again = run_sweep(*flags, "3")
    assert again.returncode == 0, again.stderr[-2000:]
    trials = [trial for trial in StudyState(folder).trials.values() if trial["state"] == "finished"]
    assert {trial["label"] for trial in trials} == {"ERM", "paper's setting", "ERM, balanced"}
    assert len({trial["config_id"] for trial in trials}) == len(trials) == 3
    for name, content in kept.items():
        assert folder.read_bytes(f"trials/{name}") == content


@pytest.mark.slow
def test_failed_trial_is_recorded_with_its_reason_and_retried_by_the_next_command(run_here):
    # the loss stops being finite at this learning rate
    flags = ("--num-workers", "1", "--study", "broken", "--trials", "1", "--set", "optimisation.learning_rate=1e30")
    done = run_here(main, *flags)
    folder = StudyFolder.at(str(run_here.storage), "broken")
    assert done.returncode == 1 and "no run has finished" in done.stdout
    (record,) = StudyState(folder).trials.values()
    assert record["state"] == "failed" and "learning_rate" in record["reason"]
    assert record["reason"] in done.stdout and "Traceback" not in done.stderr
    run_here(main, *flags)
    assert [trial.get("retried") for trial in StudyState(folder).trials.values()] == [True, None]


@pytest.mark.slow
def test_study_gets_more_trials_seeds_and_hyperparameters_and_is_confirmed(run_here, capsys):
    folder = StudyFolder.at(str(run_here.storage), "grown")
    search_objectives = ("--objectives", "w_f1:max,gap_tpr@de:min", "--constraint", "gap<=0.05")

    def run(*flags):
        done = run_here(main, "--study", "grown", "--num-workers", "1", *search_objectives, *flags)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("--trials", "4", "--space", "schedules")
    first, runs = StudyState(folder).trials, StudyState(folder).finished_runs
    markers = {run: folder.read_bytes(f"runs/{run[0]}/{run[1]}/finished.json") for run in runs}
    assert len(first) == 4 and all(set(trial["by_seed"]) == {"0"} for trial in first.values())
    assert all(set(trial["violations"]) == {"dev_gap<=0.05"} for trial in first.values())
    flags = ("--trials", "5", "--space", "schedules+training", "--seeds", "0,1")
    assert "adding seeds to 4 finished trials first" in run(*flags)
    second = StudyState(folder).trials
    assert len(second) == 5 and len(StudyState(folder).finished_runs) == 10
    for (config_id, seed), content in markers.items():
        assert folder.read_bytes(f"runs/{config_id}/{seed}/finished.json") == content
    for trial in second.values():
        seeds = list(trial["by_seed"].values())
        assert trial["values"] == pytest.approx([sum(pair) / 2 for pair in zip(*seeds, strict=True)])
    assert {n: trial["config_id"] for n, trial in first.items()} == {
        n: trial["config_id"] for n, trial in second.items() if n in first
    }
    assert "optimisation.learning_rate" in second[max(second)]["hyperparameters"]
    assert "in the search → on fresh seeds" in run(*flags, "--confirm-seeds", "10")
    fresh = load_study(StudyFolder(folder.path("confirm")))
    assert "ERM" in set(fresh.configurations["label"]) and fresh.seeds == (10,)
    assert set(fresh.configurations["config_id"]) <= {trial["config_id"] for trial in second.values()}
    assert len(StudyState(folder).finished_runs) == 10  # the runs of the search are unchanged
    assert main(["status", "grown", "--storage", str(run_here.storage)]) == 0
    assert "5 finished, 0 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_first_seed_of_each_trial_leaves_a_profile(run_here):
    flags = ("--study", "profiled", "--num-workers", "1", "--trials", "1", "--seeds", "3,1", "--epochs", "2")
    done = run_here(main, *flags, "--profile")
    assert done.returncode == 0, done.stderr
    (page,) = Path(run_here.storage, "profiled", "runs").glob("*/*/profile/summary.txt")
    assert page.parts[-3] == "3" and str(page) in done.stdout
    assert "backward" in page.read_text() and page.with_name("trace.json").exists()
