"""Where a study stands, what it will cost, and what is run again: from records made by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from analysis.comparison.confirmation import confirmation, confirmation_table, with_objectives
from analysis.loading.study import load_study
from analysis.pareto.objectives_front import objectives_front, objectives_table
from analysis.report.build import write_report
from study.cli.request import search_request
from study.cli.sweep import make_parser, show, show_confirmation
from study.common.errors import SettingsError
from study.planning.confirmation import confirm_folder, confirmation_request, confirmation_runs
from study.planning.cost import Pace, measured_pace, require_budget
from study.planning.plan import build_plan
from study.search.objectives import SearchObjectives
from study.storage.locks import study_lock
from study.storage.records import read_trials, write_trial
from study.storage.status import read_status
from study.storage.study_folder import StudyFolder
from tests.analysis.studies import figures, write_plan, write_run, write_whole_study
from tests.analysis.studies import write_trial as write_figures_trial


def trial(folder, number, config_id, state="finished", seconds=60.0, **more):
    record = {"number": number, "label": None, "config_id": config_id, "hyperparameters": {"loss.power": 1}}
    record["values"] = [0.4, 0.1]
    write_trial(folder, {**record, "state": state, "seconds": seconds, **more})


def test_the_status_counts_what_is_done_running_and_left(tmp_path):
    folder = write_plan(tmp_path / "s", seeds=(0, 1), parallelism={"num_workers": 2, "zero_stage": 2})
    trial(folder, 0, "a", values=[0.4, 0.1])
    for seed in (0, 1):
        folder.write_json(f"runs/a/{seed}/finished.json", {})
    trial(folder, 1, "b", "failed", 30.0)
    trial(folder, 2, "c", "pruned", 30.0)
    folder.write_json("runs/d/0/finished.json", {})
    folder.write_jsonl("runs/d/1/epochs.jsonl", [{"epoch": 1}, {"epoch": 2}])
    status = read_status(folder)
    assert status.counts == {"finished": 1, "failed": 1, "pruned": 1}
    assert status.open == {"d": "seed 0: finished, seed 1: epoch 2"} and status.holder is None
    assert status.worker_hours == pytest.approx(2 * 120 / 3600)
    assert status.left == 6 * 60  # of 8 trials, two of them done, at a minute each, one at a time
    with study_lock(folder):
        assert "process" in (read_status(folder).holder or "")


@pytest.mark.parametrize(("worked", "status"), [(2, 0), (0, 1)])
def test_a_sweep_some_of_whose_trials_failed_says_how_many_and_ends_well(tmp_path, capsys, worked, status):
    folder = write_plan(tmp_path / "s")
    for number in range(3):
        if number < worked:
            write_figures_trial(folder, number, f"c{number}")
            write_run(folder, f"c{number}", 0, figures(0.5, 0.05), figures(0.45, 0.06))
        else:
            trial(folder, number, f"c{number}", "failed", reason="killed: no memory", log="there")
    request = SimpleNamespace(folder=folder, trials=3, search_objectives=SearchObjectives(), profile=False)
    assert show(Console(soft_wrap=True), request, write=False) == status
    said = capsys.readouterr().out
    assert f"{worked} of 3 trials are done, {3 - worked} failed; the same command runs the others" in said
    assert "trial 2 failed: killed: no memory (logs: there)" in said
    assert ("Pareto front" in said) == (worked > 0)


def test_the_status_counts_the_seeds_that_finished_trials_lack(tmp_path):
    folder = write_plan(tmp_path / "s", seeds=(0, 1, 2), trials=2)
    for number, config_id in enumerate(("a", "b")):
        trial(folder, number, config_id, by_seed={"0": [0.4, 0.1]})
        folder.write_json(f"runs/{config_id}/0/finished.json", {})
    folder.write_jsonl("runs/a/1/epochs.jsonl", [{"epoch": 1}])
    status = read_status(folder)
    assert status.open == {"a": "seed 0: finished, seed 1: epoch 1, seed 2: not begun"}
    assert status.counts == {"finished": 2} and status.seeds == 4
    assert status.left == 4 * 60  # at a minute a run, nobody writing it


def test_a_failure_that_worked_when_it_was_tried_again_is_none(tmp_path):
    folder = write_plan(tmp_path / "s")
    for number, config_id in enumerate(("worked", "running", "again")):
        trial(folder, number, config_id, "failed", retried=True)
        folder.write_json(f"runs/{config_id}/0/settings.json", {})
    folder.write_json("runs/worked/0/finished.json", {})
    trial(folder, 3, "worked")
    trial(folder, 4, "again", "failed")
    status = read_status(folder)
    assert status.counts == {"finished": 1, "failed": 2}  # one configuration, twice
    assert status.open == {"running": "seed 0: not begun"}


PLAN = {"objectives": [["dev_uar", "max"], ["seconds", "min"]], "constraints": ["dev_gap<=0.1"], "seeds": [0]}


def test_the_front_is_over_the_studys_own_objectives_and_keeps_its_requirements():
    def record(number, values, violation=-0.01, config_id=None, seeds=1, label=None):
        return {
            "number": number,
            "label": label,
            "config_id": config_id or str(number),
            "hyperparameters": {"loss.power": 1},
            "state": "finished",
            "values": values,
            "violations": {"dev_gap<=0.1": violation},
            "by_seed": {str(seed): values for seed in range(seeds)},
        }

    trials = [
        record(0, [0.50, 20.0]),
        record(1, [0.40, 10.0], label="ERM"),
        record(2, [0.45, 30.0]),  # beaten by 0
        record(3, [0.90, 5.0], violation=0.02),  # the best, and not allowed
        record(4, [0.50, 20.0], config_id="0"),  # proposed twice
        record(5, [0.95, 1.0], seeds=0),  # lacks its seed
    ]
    points = objectives_front(PLAN, trials)
    assert points.set_index("config_id")["on_front"].to_dict() == {"0": True, "1": True, "2": False, "3": False}
    assert points.set_index("config_id").loc["3", "missed"] == {"dev_gap<=0.1": 0.02}
    table = objectives_table(points, PLAN)
    assert table[["configuration", "dev_uar", "seconds"]].to_numpy().tolist() == [
        ["trial 0", "50.0", "20.0"],
        ["ERM", "40.0", "10.0"],
    ]
    assert objectives_front(PLAN, []).empty


def test_what_was_found_stands_beside_the_same_on_fresh_seeds(tmp_path):
    search = write_plan(tmp_path / "s")
    again = write_plan(tmp_path / "s" / "confirm", seeds=(10, 11))
    for folder, seeds, shift in ((search, (0,), 0.0), (again, (10, 11), 0.02)):
        write_figures_trial(folder, 4, "aaa")
        for seed in seeds:
            write_run(folder, "aaa", seed, figures(0.5 - shift, 0.05 + shift), figures(0.45, 0.06))
    write_figures_trial(search, 5, "bbb")
    write_run(search, "bbb", 0, figures(0.3, 0.3), figures(0.3, 0.3))
    rows = confirmation(load_study(search), load_study(again))
    assert rows["config_id"].tolist() == ["aaa"] and rows["fresh_seeds"].tolist() == [2]
    assert rows["dev_w_f1"].item() == pytest.approx(0.5) and rows["fresh_dev_w_f1"].item() == pytest.approx(0.48)
    table = confirmation_table(rows)
    assert table["dev W-F1"].item() == "50.0 → 48.0" and table["dev gap"].item() == "5.0 → 7.0"
    assert table["seeds"].item() == "1 → 2"


def test_a_studys_own_objectives_are_confirmed(tmp_path):
    search_objectives = {key: PLAN[key] for key in ("objectives", "constraints")}
    search = write_plan(tmp_path / "s", **search_objectives)
    again = write_plan(tmp_path / "s" / "confirm", seeds=(10,), **search_objectives)
    for folder, seed, values, lacks in ((search, 0, [0.5, 20.0], -0.01), (again, 10, [0.45, 21.0], 0.02)):
        trial(folder, 4, "aaa", values=values, by_seed={str(seed): values}, violations={"dev_gap<=0.1": lacks})
        write_run(folder, "aaa", seed, figures(0.5, 0.05), figures(0.45, 0.06))
    found, fresh = load_study(search), load_study(again)
    table = confirmation_table(with_objectives(confirmation(found, fresh), found, fresh))
    assert table["dev_uar"].item() == "50.0 → 45.0" and table["seconds"].item() == "20.0 → 21.0"
    assert table["misses"].item() == "nothing → dev_gap<=0.1"
    cut_off = write_plan(
        tmp_path / "s" / "cut", seeds=(10, 11), **search_objectives
    )  # one of two fresh seeds has finished
    write_run(cut_off, "aaa", 10, figures(0.5, 0.05), figures(0.45, 0.06))
    fresh = load_study(cut_off)
    assert (
        confirmation_table(with_objectives(confirmation(found, fresh), found, fresh))["misses"].item() == "nothing → –"
    )
    assert "dev_uar" not in confirmation_table(confirmation(found, fresh))


def test_a_confirmation_is_in_the_report_of_its_study(tmp_path, monkeypatch, capsys):
    quick = partial(write_report, permutations=20, resamples=20)
    monkeypatch.setattr("study.cli.sweep.write_report", quick)
    folder = write_whole_study(tmp_path / "s", per_cell=12, configurations=3)
    report = Path(quick(folder).html)
    assert "On fresh seeds" not in report.read_text()

    again = write_whole_study(tmp_path / "s" / "confirm", per_cell=12, configurations=2, seeds=(10, 11))
    console = Console(soft_wrap=True)
    assert show_confirmation(console, folder, SimpleNamespace(folder=again), write=True) == 0

    page, said = report.read_text(), capsys.readouterr().out
    assert "<h2>On fresh seeds</h2>" in page and "1 → 2" in page
    assert (
        f"{report} (search and fresh seeds)" in said
        and f"{again.path('report', 'report.html')} (fresh seeds alone)" in said
    )
    assert Path(again.path("report", "report.html")).exists()


def test_configurations_run_again_keep_their_names(tmp_path):
    trials = [
        {"number": 0, "label": None, "config_id": "a", "state": "finished", "hyperparameters": {"loss.power": 1}},
        {"number": 1, "label": "ERM", "config_id": "b", "state": "finished", "hyperparameters": {"loss.method": "erm"}},
        {"number": 2, "label": "paper's setting", "config_id": "a", "state": "finished", "hyperparameters": {}},
        {"number": 3, "label": None, "config_id": "c", "state": "failed", "hyperparameters": {}},
    ]
    found = confirmation_runs(trials, ("b", "a", "c"))
    assert [baseline.label for baseline in found] == ["ERM", "paper's setting"]


@pytest.fixture
def planned(small_corpus, tmp_path):
    """A maker of plans on the small corpus."""

    def make(*more):
        given = [
            "--corpus",
            f"meld-st:{small_corpus}",
            "--storage",
            str(tmp_path),
            "--num-workers",
            "2",
            "--epochs",
            "3",
        ]
        options = make_parser().read([*given, "--set", "optimisation.batch_size=24", *more])
        return build_plan(search_request(*options, cores=4))

    return make


class Lines:
    """A console that keeps what is printed."""

    def __init__(self):
        self.text = ""

    def print(self, line):
        self.text += line + "\n"


def test_the_cost_is_that_of_runs_like_these_and_a_budget_holds_so_many(planned, tmp_path):
    plan, console = planned("--study", "new", "--trials", "10", "--seeds", "0,1"), Lines()
    require_budget(plan, console)
    assert "2 worker groups at a time" in console.text and "not known: no finished run" in console.text
    settings = plan.request.settings.model_dump(mode="json")
    corpus = {"spec": settings["corpus"]["spec"], "hash": plan.corpus.content_hash}
    for name, spec in (("like", "tiny"), ("unlike", "other")):
        changes = {"settings": settings, "corpus": corpus, "backbone": {"spec": spec, "hash": "x"}}
        folder = write_plan(tmp_path / name, parallelism={"num_workers": 2, "zero_stage": 2}, **changes)
        trial(folder, 0, "a", seconds=75.0)
        # 10 s to start and two epochs of 20 s, then 15 s and one of 20 s; the trial took 75, so 5 in none of them
        for seed, setup, epochs in ((0, 10.0, 2), (1, 15.0, 1)):
            seconds = {"setup": setup, "total": (setup + 20.0 * epochs) * (1 if name == "like" else 100)}
            folder.write_json(f"runs/a/{seed}/finished.json", {"epochs_run": epochs, "seconds": seconds})
    write_plan(
        tmp_path / "damaged",
        parallelism={"num_workers": 2, "zero_stage": 2},
        **changes | {"backbone": {"spec": "tiny"}},
    )
    (tmp_path / "damaged" / "trials").mkdir()
    (tmp_path / "damaged" / "trials" / "00000.json").write_text("[]")  # which the new study has nothing to do with
    pace = measured_pace(plan)
    assert pace == Pace(setup=12.5, epoch=20.0, overhead=0.0, runs=2, studies=("like",))
    # a trial of 2 seeds and 3 epochs: 2 (12.5 + 60) = 145 s on 2 ranks = 0.0806 worker-hours; 5 rounds of 2 at a time
    require_budget(plan, console)
    assert "10 trials at 0.0806 worker-hours: at most 0.806, about 12 min" in console.text
    with pytest.raises(SettingsError, match=r"--budget: 10 more trials need up to 0\.806 .* use --trials 6"):
        require_budget(planned("--study", "new", "--trials", "10", "--seeds", "0,1", "--budget", "0.5"), console)
    require_budget(planned("--study", "new", "--trials", "6", "--seeds", "0,1", "--budget", "0.5"), console)
    assert "budget     0.5 worker-hours hold a study of 6 trials" in console.text


@pytest.fixture
def measured(planned, tmp_path):
    """Of a study beside, one run: 10 s to start and 20 s an epoch."""
    plan = planned()
    settings = plan.request.settings.model_dump(mode="json")
    corpus = {"spec": settings["corpus"]["spec"], "hash": plan.corpus.content_hash}
    changes = {"settings": settings, "corpus": corpus, "backbone": {"spec": "tiny", "hash": "x"}}
    folder = write_plan(tmp_path / "beside", parallelism={"num_workers": 2, "zero_stage": 2}, **changes)
    folder.write_json("runs/a/0/finished.json", {"epochs_run": 3, "seconds": {"setup": 10.0, "total": 70.0}})


def test_seeds_that_finished_trials_lack_are_paid_for(planned, measured, tmp_path):
    folder = StudyFolder(str(tmp_path / "grown"))
    for number, config_id in enumerate(("a", "b", "b")):  # b was proposed twice
        trial(folder, number, config_id)
        folder.write_json(f"runs/{config_id}/0/finished.json", {"epochs_run": 3, "seconds": {"total": 70.0}})
    folder.write_json("runs/a/1/finished.json", {"epochs_run": 3, "seconds": {"total": 70.0}})
    grown = ("--study", "grown", "--trials", "3", "--seeds", "0,1,2")
    console = Lines()
    require_budget(planned(*grown), console)
    # seed 2 of a, and 1 and 2 of b: three runs of 70 s on 2 ranks = 0.117 worker-hours
    assert "more seeds of 2 finished trials at 0.117 and 0 trials" in console.text and "at most 0.117" in console.text
    with pytest.raises(SettingsError, match=r"need up to 0\.117 .* is 0\.1; use fewer --seeds or fewer --epochs"):
        require_budget(planned(*grown, "--budget", "0.1"), console)
    require_budget(planned(*grown, "--budget", "0.12"), console)


def test_a_budget_that_holds_no_trial_recommends_none(planned, measured):
    with pytest.raises(SettingsError, match=r"the budget is 0\.01; use fewer --seeds"):
        require_budget(planned("--study", "new", "--budget", "0.01"), Lines())


def test_a_budget_without_a_pace_cannot_be_checked(planned):
    with pytest.raises(SettingsError, match="no finished run to measure by; run one trial first"):
        require_budget(planned("--study", "new", "--budget", "5"), Lines())


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_a_budget_is_a_number_of_hours(planned, hours):
    with pytest.raises(SettingsError, match="--budget: Input should be"):
        planned("--budget", hours)


def test_the_end_of_a_grid_counts_the_papers_setting_once(planned):
    # of the power alone 2 points, one of them the paper's setting; ERM stands beside them, on two kinds of batches
    fixed = ("--set", "loss.reduction=max", "--set", "loss.estimator.kind=batch")
    grid = ("--space", "penalty", "--sampler", "grid", *fixed)
    assert len(planned(*grid, "--trials", "4").space.baselines) == 3
    with pytest.raises(SettingsError, match="5 requested, but the grid has 2 points, .* use at most 4"):
        planned(*grid, "--trials", "5")


def test_a_confirmation_needs_fresh_seeds_and_the_studys_own_settings(planned, tmp_path):
    plan = planned("--study", "s", "--seeds", "0,1")
    settings = plan.request.settings.model_dump(mode="json")
    write_plan(tmp_path / "s", seeds=(0, 1), settings=settings)
    request = confirmation_request(plan.request, (10, 11))
    assert request.seeds == (10, 11) and request.folder == confirm_folder(StudyFolder(str(tmp_path / "s")))
    with pytest.raises(SettingsError, match="the search has used 1 already"):
        confirmation_request(plan.request, (1, 10))
    for seeds, message in (("5,5", "must differ"), ("x", "valid integer"), ("-1", "greater than or equal to 0")):
        options, (error,) = make_parser().read([f"--confirm-seeds={seeds}"])
        assert options.confirm_seeds is None and error.startswith("--confirm-seeds: ") and message in error
    with pytest.raises(SettingsError, match="loss.power: 2 there, 1 now"):
        confirmation_request(planned("--study", "s", "--set", "loss.power=1").request, (10,))
    assert read_trials(plan.request.folder) == {}
