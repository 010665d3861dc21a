"""Successive halving: who goes on at a rung, what earlier calls count for, and a real sweep that stops trials."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial, TrialState
from ray.tune.schedulers import TrialScheduler

from analysis.loading.study import load_study
from search_spaces import space_maker
from study.common.errors import SettingsError
from study.config.settings import Settings
from study.ray_backend.scheduler import MoAshaScheduler
from study.ray_backend.searcher import make_searcher
from study.search.mo_asha import MoAshaConfig, Rungs, parse_early_stopping
from study.search.objectives import epoch_metrics
from study.search.optuna_study import Search, open_journal, open_study, reconcile
from study.storage.records import read_trials, run_directory
from study.storage.study_folder import StudyFolder
from tests.analysis import studies
from tests.benchmarks.early_stopping import ENGINES, recorded, simulate

OBJECTIVES = [("dev_w_f1", "max"), ("dev_gap", "min")]
POINTS = st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float))


def scheduler(rungs, stopped=None):
    """A scheduler that notes the numbers of those it stops, with their standing."""
    stopped = {} if stopped is None else stopped
    return MoAshaScheduler(rungs, OBJECTIVES, 0, lambda trial, result, at: stopped.update({trial["number"]: str(at)}))


def decision(moasha, number, epoch, w_f1, gap, label=None, seed=0):
    result = {"config_id": f"c{number}", "seed": seed, "epoch": epoch, "complete": False}
    trial = SimpleNamespace(config={"number": number, "label": label})
    return moasha.on_trial_result(None, trial, {**result, "dev_w_f1": w_f1, "dev_gap": gap})


def test_three_reach_a_rung_and_one_goes_on():
    stopped = {}
    moasha = scheduler(Rungs(MoAshaConfig(reduction_factor=3), epochs=9), stopped)
    assert decision(moasha, 0, 1, 0.40, 0.10) == TrialScheduler.CONTINUE  # the first has nobody to beat
    assert decision(moasha, 1, 1, 0.39, 0.11) == TrialScheduler.STOP  # dominated
    assert decision(moasha, 2, 1, 0.45, 0.05) == TrialScheduler.CONTINUE  # dominates both
    assert decision(moasha, 3, 1, 0.30, 0.01) == TrialScheduler.CONTINUE  # on the front, and two of four go on
    assert decision(moasha, 4, 1, 0.40, 0.04) == TrialScheduler.STOP  # on the front too, but between the two
    assert decision(moasha, 2, 2, 0.10, 0.50) == TrialScheduler.CONTINUE  # no rung
    assert stopped == {1: "epoch 1: place 2 of 2, 1 goes on", 4: "epoch 1: place 3 of 5, 2 go on"}


def test_references_and_later_seeds_are_never_stopped_and_an_undefined_gap_is_worst():
    stopped = {}
    moasha = scheduler(Rungs(MoAshaConfig(), epochs=9), stopped)
    decision(moasha, 0, 1, 0.40, 0.10)
    assert decision(moasha, 1, 1, 0.10, 0.90, label="ERM") == TrialScheduler.CONTINUE
    assert decision(moasha, 2, 1, 0.10, 0.90, seed=1) == TrialScheduler.CONTINUE
    assert decision(moasha, 3, 1, 0.99, None) == TrialScheduler.STOP
    assert stopped == {3: "epoch 1: place 3 of 3, 1 goes on"}


def test_a_rung_compares_what_the_search_would_be_told_then():
    moasha = scheduler(Rungs(MoAshaConfig(), epochs=9))
    for epoch, w_f1, gap in ((1, 0.40, 0.10), (2, 0.50, 0.05), (3, 0.30, 0.90)):
        decision(moasha, 0, epoch, w_f1, gap)
    assert moasha.rungs.reached[3] == {"c0": (-0.50, 0.05)}  # the second epoch is selected


def test_a_run_that_ended_early_stands_at_the_later_rungs():
    moasha = scheduler(Rungs(MoAshaConfig(), epochs=20))
    decision(moasha, 0, 1, 0.40, 0.10)
    moasha.on_trial_complete(None, None, {"config_id": "c0", "complete": True})
    assert moasha.rungs.reached == {1: {"c0": (-0.4, 0.1)}, 3: {"c0": (-0.4, 0.1)}, 9: {"c0": (-0.4, 0.1)}}


@given(st.lists(POINTS, min_size=1, max_size=30), st.integers(2, 5))
@settings(deadline=None)
def test_whoever_nothing_dominates_goes_on_while_there_are_places(points, reduction_factor):
    rungs = Rungs(MoAshaConfig(reduction_factor=reduction_factor), epochs=2)
    for n, point in enumerate(points, start=1):
        standing = rungs.report(f"c{n}", 1, 0.0, point)
        before = np.array(points[:n])
        dominated = ((before <= point).all(axis=1) & (before < point).any(axis=1)).any()
        front = sum(not ((before <= other).all(axis=1) & (before < other).any(axis=1)).any() for other in before)
        assert standing.reached == n and standing.places >= n / reduction_factor
        if not dominated and front <= standing.places:
            assert standing.goes_on


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30), st.integers(2, 5))
@settings(deadline=None)
def test_with_one_objective_it_is_plain_asha(values, reduction_factor):
    rungs = Rungs(MoAshaConfig(reduction_factor=reduction_factor), epochs=2)
    for n, value in enumerate(values, start=1):
        better_or_first = sum(other <= value for other in values[: n - 1])
        expected = better_or_first < -(-n // reduction_factor)  # fewer are in front than places
        assert rungs.report(f"c{n}", 1, 0.0, (float(value),)).goes_on == expected


@given(st.lists(POINTS, min_size=1, max_size=30), st.integers(2, 5))
@settings(deadline=None)
def test_one_in_eta_of_a_rung_has_a_place(points, reduction_factor):
    rungs = Rungs(MoAshaConfig(reduction_factor=reduction_factor), epochs=2)
    for n, point in enumerate(points):
        rungs.report(f"c{n}", 1, 0.0, point)
    again = [rungs.report(f"c{n}", 1, 0.0, point).goes_on for n, point in enumerate(points)]
    assert sum(again) == -(-len(points) // reduction_factor)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("asha", "there is no 'asha'"),
        ("mo-asha:reduction_factor=1", "reduction_factor: "),
        ("mo-asha:grace_period=0", "grace_period: "),
        ("mo-asha:x=1", "x: "),
    ],
)
def test_a_faulty_rule_is_named(rule, words):
    with pytest.raises(SettingsError, match=words):
        parse_early_stopping(rule)


def test_earlier_runs_count_at_the_rungs(tmp_path):
    folder = StudyFolder(str(tmp_path / "s"))
    rows = [{"epoch": e, "dev": {"w_f1": w, "gap": 0.1 * e}} for e, w in ((1, 0.3), (2, 0.5), (3, 0.4))]
    folder.write_jsonl(f"{run_directory('done', 0)}/epochs.jsonl", rows)
    folder.write_json(f"{run_directory('done', 0)}/finished.json", {})
    folder.write_jsonl(f"{run_directory('cut', 0)}/epochs.jsonl", rows[:2])
    folder.write_jsonl(f"{run_directory('other', 7)}/epochs.jsonl", rows)  # another seed
    rungs = Rungs(MoAshaConfig(), epochs=20)
    rungs.refill(folder, 0, OBJECTIVES)
    first, second = (-0.3, 0.1), (-0.5, 0.2)
    assert rungs.reached == {1: {"cut": first, "done": first}, 3: {"done": second}, 9: {"done": second}}
    rungs = Rungs(MoAshaConfig(), epochs=20)
    rungs.refill(folder, 0, [("dev_uar", "max"), ("dev_gap@de", "min")])  # which these records do not have
    assert not any(rungs.reached.values())


def test_rungs_rank_by_any_figure_of_dev_that_workers_reported_or_left(tmp_path):
    search_objectives = [("dev_worst_group_w_f1", "max"), ("dev_gap_tpr@de", "min")]
    folder = StudyFolder(str(tmp_path / "s"))
    dev = studies.figures(0.6, 0.1)
    dev["worst_group_w_f1"] = 0.25
    dev["cells"]["de/speech"] = {**dev["cells"]["en/speech+text"], "absolute": {"tpr": 0.5}}
    row = {"epoch": 1, "dev": dev}
    folder.write_jsonl(f"{run_directory('aa', 0)}/epochs.jsonl", [row])
    rungs = Rungs(MoAshaConfig(), epochs=3)
    rungs.refill(folder, 0, search_objectives)
    assert rungs.reached == {1: {"aa": (-0.25, 0.5)}}
    moasha = MoAshaScheduler(rungs, search_objectives, 0, lambda *stopped: None)
    better = {**row, "dev": {**dev, "worst_group_w_f1": 0.26}}
    told = epoch_metrics(["dev_w_f1", "seconds", *dict(search_objectives)], better)  # as the driver of a trial does
    assert told == {"dev_w_f1": dev["w_f1"], "dev_worst_group_w_f1": 0.26, "dev_gap_tpr@de": 0.5}
    trial = SimpleNamespace(config={"number": 1, "label": None})
    moasha.on_trial_result(None, trial, {"config_id": "bb", "seed": 0, "epoch": 1, **told})
    assert rungs.reached[1]["bb"] == (-0.26, 0.5)


def test_pruned_trials_are_told_once_and_not_run_again(tmp_path):
    space = space_maker("fairness")(["en", "de"], Settings())
    search = Search("s", space, Settings())
    journal = open_journal(str(tmp_path / "journal.log"))
    study = open_study(journal, search, {})
    searcher = make_searcher(journal, search, 0)
    suggestions = [searcher.suggest(str(i)) for i in range(5)]
    told = {"dev_w_f1": 0.2, "dev_gap": 0.2}
    searcher.on_trial_complete("3", {**told, "complete": False, "done": True})
    searcher.on_trial_complete("3", {**told, "complete": False, "done": True})
    assert study.trials[3].state == TrialState.PRUNED and study.trials[3].values is None
    records = {
        number: {"state": "pruned" if number > 2 else "finished", "label": suggestion["label"], "values": [0.4, 0.1]}
        | {"hyperparameters": {key: value for key, value in suggestion.items() if key not in ("number", "label")}}
        for number, suggestion in enumerate(suggestions)
    }
    reconcile(study, records)  # the process died after it had written the record of trial 4, before Optuna heard
    wanted = [TrialState.COMPLETE] * 3 + [TrialState.PRUNED] * 2
    assert [trial.state for trial in study.trials] == wanted
    rebuilt = open_study(open_journal(str(tmp_path / "new.log")), search, records)
    assert [trial.state for trial in rebuilt.trials] == wanted
    assert [trial.params for trial in rebuilt.trials] == [trial.params for trial in study.trials]


def test_pruned_trials_stand_in_no_front(tmp_path):
    folder = studies.write_plan(tmp_path / "s")
    for number, config_id in enumerate(("aa", "bb", "cc")):
        studies.write_trial(folder, number, config_id)
        studies.write_run(folder, config_id, 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    pruned = {
        "label": None,
        "hyperparameters": {},
        "state": "pruned",
        "reason": "stopped early, seed 0, epoch 1: place 2 of 2",
    }
    pruned["seconds"] = 5.0
    folder.write_json("trials/00001.json", {"number": 1, "config_id": "bb", **pruned})
    folder.write_json("trials/00003.json", {"number": 3, "config_id": "cc", **pruned})  # it had finished before
    study = load_study(folder)
    assert study.configurations["config_id"].tolist() == ["aa", "cc"] and study.failed.empty
    assert study.pruned[["number", "config_id"]].to_numpy().tolist() == [[1, "bb"]]


def test_the_benchmark_replays_a_studys_curves_with_every_engine(tmp_path):
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    for number in range(6):
        studies.write_trial(folder, number, f"c{number}")
        for seed in (0, 1):
            end = studies.figures(0.3 + 0.05 * number, 0.05 + 0.02 * ((number + seed) % 6))
            studies.write_run(folder, f"c{number}", seed, end, end, weights=[0.1] * 9)
    problem = recorded(folder.uri)
    assert problem.epochs == 9 and "12 curves of 6 configurations" in problem.name
    rng = np.random.default_rng(0)
    ends = {tuple(problem.draw(FixedTrial({"configuration": "c3"}), rng)(9).round(9)) for _ in range(20)}
    assert ends == {(-0.45, 0.11), (-0.45, 0.13)}  # of the configuration that was proposed, either seed
    started = {}
    for engine in ENGINES:
        spent, volumes, started[engine.name] = simulate(problem, engine, seed=0, budget=90)
        assert len(spent) and spent[-1] <= 90 and (np.diff(spent) > 0).all()
        assert (np.diff(volumes) >= 0).all() and 0 < volumes[-1] <= 1
    assert started["random"] == started["TPE"] < started["random, MO-ASHA 3"]


@pytest.mark.slow
def test_a_sweep_stops_trials_keeps_its_references_and_grows(sweep):
    # one place at the rung, so searched trials that another one beats stop after the first epoch; on a machine of two
    # cores a stopped trial that kept its places would leave none for the next
    flags = (
        "--study",
        "stopping",
        "--epochs",
        "2",
        "--num-workers",
        "2",
        "--early-stopping",
        "mo-asha:reduction_factor=99",
    )
    done = sweep(*flags, "--trials", "5")
    assert done.returncode == 0, done.stderr[-3000:]
    folder = StudyFolder.at(str(sweep.storage), "stopping")
    trials = read_trials(folder)
    pruned = {number for number, trial in trials.items() if trial["state"] == "pruned"}
    assert len(trials) == 5 and pruned
    assert all(trials[number]["state"] == "finished" and trials[number]["label"] for number in range(3))
    assert f"{len(pruned)} of 5 trials were stopped early" in done.stdout and "stopped after epoch" in done.stdout
    for number in pruned:
        left = folder.names(run_directory(trials[number]["config_id"], 0))
        assert "finished.json" not in left and not any(name.startswith("checkpoint") for name in left)
    shown = load_study(folder)
    assert set(shown.pruned["number"]) == pruned and len(shown.configurations) == 5 - len(pruned)
    storage = open_journal(folder.path("journal.log"))
    states = {trial.number: trial.state for trial in open_optuna(storage).trials}
    assert {number for number, state in states.items() if state == TrialState.PRUNED} == pruned
    before = {name: folder.read_bytes(f"trials/{name}") for name in folder.names("trials")}
    assert "is complete: 5 trials" in sweep(*flags, "--trials", "5").stdout
    grown = sweep(*flags, "--trials", "6")
    assert grown.returncode == 0 and len(read_trials(folder)) == 6, grown.stderr[-2000:]
    assert before == {name: folder.read_bytes(f"trials/{name}") for name in before}
    last = read_trials(folder)[5]  # it was compared with those of the first call
    assert last["state"] == "finished" or "of 6" in last["reason"]


def open_optuna(storage):
    import optuna

    return optuna.load_study(study_name="stopping", storage=storage)
