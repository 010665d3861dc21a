"""study/sweep.py as a subprocess, with real Ray, DeepSpeed and Optuna."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from analysis.loading.study import load_study
from analysis.pareto.front import front
from analysis.plots.pareto import pareto_info
from study.storage.records import read_study
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.conftest import PLANTED


@pytest.fixture(scope="module")
def finished(sweep):
    """A sweep of two trials, run to its end with two ranks and ZeRO-2."""
    process_result = sweep("--study", "two", "--trials", "2")
    assert process_result.returncode == 0, process_result.stderr[-3000:]
    return process_result, StudyFolder.at(str(sweep.storage), "two")


def test_two_trials_give_records_and_a_report(finished):
    process_result, folder = finished
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
        assert folder.exists(f"report/{name}") and folder.path("report") in process_result.stdout


def test_output_is_short(finished):
    process_result, _ = finished
    lines = process_result.stdout.splitlines()
    assert len(lines) < 60
    assert sum(line.startswith("trial ") and "W-F1" in line and "gap" in line for line in lines) == 2
    assert "Pareto front on dev" in process_result.stdout
    assert "WARNING" not in process_result.stdout + process_result.stderr and "Traceback" not in process_result.stderr


def test_journal_is_an_optuna_study(finished):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(finished[1].path("journal.log")))
    study = optuna.load_study(study_name="two", storage=storage)
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "COMPLETE", "WAITING"]  # the third reference waits for a third trial
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_worker_logs_are_beside_their_runs(finished):
    _, folder = finished
    for config_id, _ in StudyState(folder).finished_runs:
        assert {"worker-0.log", "worker-1.log"} <= set(folder.names(f"runs/{config_id}"))


def test_records_break_down_the_startup_time(finished):
    _, folder = finished
    runs = [
        folder.read_json(f"runs/{config_id}/{seed}/finished.json")
        for config_id, seed in StudyState(folder).finished_runs
    ]
    parts = ["placement", "processes", "imports", "examples", "encoder states", "model", "engine", "first step"]
    assert [list(run["startup"]) for run in runs] == [parts] * len(runs)
    waited = sorted(run["startup"]["processes"] for run in runs)
    at_once = min(len(waited), max(1, (os.cpu_count() or 1) // 2))  # each of two ranks; later trials find workers there
    assert waited.count(0) == len(waited) - at_once
    assert all(run["startup"]["placement"] > 0 for run in runs if run["startup"]["processes"])


def test_no_record_log_report_or_output_holds_a_credential(finished, ray_directory):
    process_result, folder = finished
    files = [path for place in (folder.uri, ray_directory) for path in Path(place).rglob("*") if path.is_file()]
    assert {"study.json", "report.html", "worker-0.log", "runtime_env_agent.log"} <= {path.name for path in files}
    for name, secret in PLANTED.items():
        assert secret not in process_result.stdout + process_result.stderr, name
        assert not [str(path) for path in files if secret.encode() in path.read_bytes()], name


def test_finished_study_is_shown_and_nothing_runs(sweep, finished):
    _, folder = finished
    before = {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}
    repeated = sweep("--study", "two", "--trials", "2", script=("-m", "study.sweep"))
    assert repeated.returncode == 0 and "study two is complete: 2 trials" in repeated.stdout
    assert "Pareto front on dev" in repeated.stdout and "running on" not in repeated.stdout
    assert before == {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--space", "schedules"), ["--space: 'fairness' in the study, 'schedules' in this call"]),
        (("--set", "loss.power=1"), ["loss.power: 2 in the study, 1 in this call"]),
        (("--modalities", "speech"), ["modalities"]),
    ],
)
def test_folder_of_another_study_is_refused(sweep, finished, flags, message):
    _, folder = finished
    plan = read_study(folder)
    process_result = sweep("--study", "two", "--trials", "2", *flags)
    assert process_result.returncode == 2 and "choose another --study" in process_result.stderr
    assert all(word in process_result.stderr for word in message)
    assert read_study(folder) == plan and len(StudyState(folder).trials) == 2


def test_every_error_is_reported_before_anything_starts(sweep):
    process_result = sweep(
        "--study", "faulty", "--num-workers", "64",
        "--set", "loss.pwer=3", "--set", "loss.coefficients.languages.de=-1",
        "--seeds", "a", "--zero-stage", "5", "--space", "none",
    )  # fmt: skip
    assert process_result.returncode == 2
    for word in ("--num-workers: 64", "loss.pwer", "languages.de", "--seeds: 'a'", "--zero-stage", "--space"):
        assert word in process_result.stderr, process_result.stderr
    assert not (sweep.storage / "faulty").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(sweep):
    process_result = sweep("--study", "planned", "--trials", "5", "--seeds", "0,1", "--dry-run")
    assert process_result.returncode == 0, process_result.stderr
    for word in (
        "5 trials × 2 seeds",
        "10 runs of at most 1 epoch,",
        "fairness_weight.step_size",
        "planned",
        "2 workers per trial",
        "ZeRO-2",
    ):
        assert word in process_result.stdout
    assert not (sweep.storage / "planned").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_sweep_resumes_after_ctrl_c_or_sigterm_and_can_grow(sweep, number, status, word):
    name = f"cut-{number}"
    folder = StudyFolder.at(str(sweep.storage), name)
    flags = ("--study", name, "--trials", "3", "--epochs", "10", "--set", "optimisation.patience=10")
    process = sweep(*flags, wait=False)
    deadline = time.monotonic() + 200
    while len(folder.names("trials")) < 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(2)  # into the second trial
    process.send_signal(signal.Signals(number))
    _, err = process.communicate(timeout=60)
    assert (
        process.returncode == status
        and f"{word}: finished runs are kept" in err
        and "run the same command again to resume" in err
        and "Traceback" not in err
    )
    finished_before = {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}
    assert 1 <= len(finished_before) < 3
    repeated = sweep(*flags)
    assert repeated.returncode == 0, repeated.stderr[-2000:]
    trials = [trial for trial in StudyState(folder).trials.values() if trial["state"] == "finished"]
    assert len(trials) == 3 and len({trial["config_id"] for trial in trials}) == 3
    assert {trial["label"] for trial in trials} == {"ERM", "paper's setting", "ERM, balanced"}
    for name, content in finished_before.items():
        assert folder.read_bytes(f"trials/{name}") == content


@pytest.mark.slow
def test_failed_trial_is_recorded_and_retried_by_the_next_call(sweep):
    # a learning rate that overflows: every trial's loss stops being finite
    flags = ("--study", "broken", "--trials", "1", "--set", "optimisation.learning_rate=1e30")
    process_result = sweep(*flags)
    folder = StudyFolder.at(str(sweep.storage), "broken")
    assert process_result.returncode == 1 and "no run has finished" in process_result.stdout
    (record,) = StudyState(folder).trials.values()
    assert record["state"] == "failed" and "learning_rate" in record["reason"]
    assert record["reason"] in process_result.stdout and "Traceback" not in process_result.stderr
    sweep(*flags)
    assert [trial.get("retried") for trial in StudyState(folder).trials.values()] == [True, None]


@pytest.mark.slow
def test_study_grows_and_is_confirmed_without_repeating_runs(sweep, capsys):
    folder = StudyFolder.at(str(sweep.storage), "grown")
    search_objectives = (
        "--objectives",
        "w_f1:max,gap_tpr@de:min",
        "--constraint",
        "gap<=0.05",
        "--num-workers",
        "1",
        "--study",
        "grown",
    )

    def run(*flags):
        process_result = sweep(*search_objectives, *flags)
        assert process_result.returncode == 0, process_result.stderr[-3000:]
        return process_result.stdout

    run("--trials", "4", "--space", "schedules")
    first, runs = StudyState(folder).trials, StudyState(folder).finished_runs
    contents = {run: folder.read_bytes(f"runs/{run[0]}/{run[1]}/finished.json") for run in runs}
    assert len(first) == 4 and all(set(trial["by_seed"]) == {"0"} for trial in first.values())
    assert all(set(trial["violations"]) == {"dev_gap<=0.05"} for trial in first.values())
    assert "adding seeds to 4 finished trials first" in run(
        "--trials", "5", "--space", "schedules+training", "--seeds", "0,1"
    )
    second = StudyState(folder).trials
    assert len(second) == 5 and len(StudyState(folder).finished_runs) == 10
    for (config_id, seed), content in contents.items():
        assert folder.read_bytes(f"runs/{config_id}/{seed}/finished.json") == content
    for trial in second.values():
        seeds = list(trial["by_seed"].values())
        assert trial["values"] == pytest.approx([sum(pair) / 2 for pair in zip(*seeds, strict=True)])
    assert {n: trial["config_id"] for n, trial in first.items()} == {
        n: trial["config_id"] for n, trial in second.items() if n in first
    }
    assert "optimisation.learning_rate" in second[max(second)]["hyperparameters"]
    flags = ("--trials", "5", "--space", "schedules+training", "--seeds", "0,1")
    assert "in the search → on fresh seeds" in run(*flags, "--confirm-seeds", "10")
    repeated = load_study(StudyFolder(folder.path("confirm")))
    assert "ERM" in set(repeated.configurations["label"]) and repeated.seeds == (10,)
    assert set(repeated.configurations["config_id"]) <= {trial["config_id"] for trial in second.values()}
    assert len(StudyState(folder).finished_runs) == 10  # the search's own runs are left as they are
    from study.cli.sweep import main

    assert main(["status", "grown", "--storage", str(sweep.storage)]) == 0
    assert "5 finished, 0 failed" in capsys.readouterr().out


@pytest.mark.slow
def test_first_seed_of_each_trial_is_profiled(sweep):
    process_result = sweep(
        "--study", "profiled", "--trials", "2", "--seeds", "3,1", "--num-workers", "1", "--epochs", "2", "--profile"
    )
    assert process_result.returncode == 0, process_result.stderr
    pages = sorted(Path(sweep.storage, "profiled", "runs").glob("*/*/profile/summary.txt"))
    assert [page.parts[-3] for page in pages] == ["3", "3"]
    assert all("backward" in page.read_text() and page.with_name("trace.json").exists() for page in pages)
    assert all(str(page) in process_result.stdout for page in pages)
