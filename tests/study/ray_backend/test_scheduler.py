"""MO-ASHA as a Ray Tune scheduler, and a real sweep that stops trials."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from analysis.loading.study import load_study
from study.cli.sweep import main
from study.ray_backend.scheduler import MoAshaScheduler
from study.search.mo_asha import MoAshaConfig, Rungs
from study.search.objectives import epoch_metrics
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies

OBJECTIVES = [("dev_w_f1", "max"), ("dev_gap", "min")]


def scheduler_of(epochs, stopped=None):
    """Return a scheduler that collects the decisions about stopped trials, by number."""
    stopped = {} if stopped is None else stopped

    def on_stop(suggestion, result, decision):
        stopped[suggestion["number"]] = str(decision)

    return MoAshaScheduler(Rungs(MoAshaConfig(), epochs), OBJECTIVES, 0, on_stop)


def report(scheduler, number, epoch, w_f1, gap, label=None, seed=0):
    result = {"config_id": f"c{number}", "seed": seed, "epoch": epoch, "complete": False}
    trial = SimpleNamespace(config={"number": number, "label": label})
    return scheduler.on_trial_result(None, trial, {**result, "dev_w_f1": w_f1, "dev_gap": gap})


def test_best_third_of_a_rung_continues():
    stopped = {}
    scheduler = scheduler_of(9, stopped)
    assert report(scheduler, 0, 1, 0.40, 0.10) == TrialScheduler.CONTINUE  # the first has no competitor
    assert report(scheduler, 1, 1, 0.39, 0.11) == TrialScheduler.STOP  # dominated
    assert report(scheduler, 2, 1, 0.45, 0.05) == TrialScheduler.CONTINUE  # dominates both
    assert report(scheduler, 3, 1, 0.30, 0.01) == TrialScheduler.CONTINUE  # on the front, and two of four continue
    assert report(scheduler, 4, 1, 0.40, 0.04) == TrialScheduler.STOP  # on the front, but between the two
    assert report(scheduler, 2, 2, 0.10, 0.50) == TrialScheduler.CONTINUE  # epoch 2 is not a rung
    assert stopped == {1: "epoch 1: rank 2 of 2, 1 continues", 4: "epoch 1: rank 3 of 5, 2 continue"}


def test_baselines_and_later_seeds_are_never_stopped_and_an_undefined_gap_ranks_last():
    stopped = {}
    scheduler = scheduler_of(9, stopped)
    report(scheduler, 0, 1, 0.40, 0.10)
    assert report(scheduler, 1, 1, 0.10, 0.90, label="ERM") == TrialScheduler.CONTINUE
    assert report(scheduler, 2, 1, 0.10, 0.90, seed=1) == TrialScheduler.CONTINUE
    assert report(scheduler, 3, 1, 0.99, None) == TrialScheduler.STOP
    assert stopped == {3: "epoch 1: rank 3 of 3, 1 continues"}


def test_rung_has_the_objectives_of_the_selected_epoch():
    scheduler = scheduler_of(9)
    for epoch, w_f1, gap in ((1, 0.40, 0.10), (2, 0.50, 0.05), (3, 0.30, 0.90)):
        report(scheduler, 0, epoch, w_f1, gap)
    assert scheduler.rungs.reached[3] == {"c0": (-0.50, 0.05)}


def test_finished_trial_counts_at_the_rungs_it_did_not_reach():
    scheduler = scheduler_of(20)
    report(scheduler, 0, 1, 0.40, 0.10)
    scheduler.on_trial_complete(None, None, {"config_id": "c0", "complete": True})
    assert scheduler.rungs.reached == {1: {"c0": (-0.4, 0.1)}, 3: {"c0": (-0.4, 0.1)}, 9: {"c0": (-0.4, 0.1)}}


def test_any_dev_metric_that_workers_report_can_be_ranked():
    objectives = [("dev_worst_group_w_f1", "max"), ("dev_gap_tpr@de", "min")]
    scheduler = MoAshaScheduler(Rungs(MoAshaConfig(), 3), objectives, 0, lambda *stopped: None)
    dev = studies.figures(0.6, 0.1)
    dev["worst_group_w_f1"] = 0.26
    dev["cells"]["de/speech"] = {**dev["cells"]["en/speech+text"], "absolute": {"tpr": 0.5}}
    metrics = epoch_metrics(["dev_w_f1", "seconds", *dict(objectives)], {"epoch": 1, "dev": dev})
    assert metrics == {"dev_w_f1": dev["w_f1"], "dev_worst_group_w_f1": 0.26, "dev_gap_tpr@de": 0.5}
    trial = SimpleNamespace(config={"number": 1, "label": None})
    scheduler.on_trial_result(None, trial, {"config_id": "bb", "seed": 0, "epoch": 1, **metrics})
    assert scheduler.rungs.reached[1]["bb"] == (-0.26, 0.5)


def test_pruned_trials_are_not_on_the_front(tmp_path):
    folder = studies.write_plan(tmp_path / "s")
    for number, config_id in enumerate(("aa", "bb", "cc")):
        studies.write_trial(folder, number, config_id)
        studies.write_run(folder, config_id, 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    reason = "stopped early, seed 0, epoch 1: rank 2 of 2, 1 continues"
    pruned = {"label": None, "hyperparameters": {}, "state": "pruned", "reason": reason, "seconds": 5.0}
    folder.write_json("trials/00001.json", {"number": 1, "config_id": "bb", **pruned})
    folder.write_json("trials/00003.json", {"number": 3, "config_id": "cc", **pruned})  # trial 2 has finished
    study = load_study(folder)
    assert study.configurations["config_id"].tolist() == ["aa", "cc"] and study.failed.empty
    assert study.pruned[["number", "config_id"]].to_numpy().tolist() == [[1, "bb"]]


@pytest.mark.slow
def test_sweep_stops_trials_but_not_baselines_and_can_be_extended(run_here):
    # With this factor one configuration continues at the rung, so every searched trial that another one beats stops
    # after the first epoch. A stopped trial that kept its workers would block the next one on the single core.
    stopping = ("--early-stopping", "mo-asha:reduction_factor=99")
    flags = ("--study", "stopping", "--epochs", "2", "--num-workers", "1", *stopping)
    done = run_here(main, *flags, "--trials", "5")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = StudyFolder.at(str(run_here.storage), "stopping")
    trials = StudyState(folder).trials
    pruned = {number for number, trial in trials.items() if trial["state"] == "pruned"}
    assert len(trials) == 5 and pruned
    assert all(trials[number]["state"] == "finished" and trials[number]["label"] for number in range(3))
    assert f"{len(pruned)} of 5 trials were stopped early" in done.stdout and "stopped after epoch" in done.stdout
    for number in pruned:
        files = folder.names(run_directory(trials[number]["config_id"], 0))
        assert "finished.json" not in files and not any(name.startswith("checkpoint") for name in files)
    study = load_study(folder)
    assert set(study.pruned["number"]) == pruned and len(study.configurations) == 5 - len(pruned)
    storage = JournalStorage(JournalFileBackend(folder.path("journal.log")))
    exported = optuna.load_study(study_name="stopping", storage=storage).trials
    assert {trial.number for trial in exported if trial.state == TrialState.PRUNED} == pruned
    before = {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}
    assert "is complete: 5 trials" in run_here(main, *flags, "--trials", "5").stdout
    extended = run_here(main, *flags, "--trials", "6")
    assert extended.returncode == 0 and len(StudyState(folder).trials) == 6, extended.stderr[-2000:]
    assert before == {name: folder.read_bytes(f"trials/{name}") for name in before}
    last = StudyState(folder).trials[5]  # compared with the trials of the first call
    assert last["state"] == "finished" or "of 6" in last["reason"]
