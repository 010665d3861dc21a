"""Confirmation of a search on fresh seeds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from analysis.comparison.confirmation import confirmation, confirmation_table, with_objectives
from analysis.loading.study import load_study
from analysis.report.build import write_report
from study.cli.sweep import make_parser, show_confirmation
from study.common.errors import SettingsError
from study.planning.confirmation import confirm_folder, confirmation_request, confirmation_runs
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis.studies import figures, write_plan, write_run, write_trial, write_whole_study
from tests.study.storage.test_status import trial

OBJECTIVES = {"objectives": [["dev_uar", "max"], ["seconds", "min"]], "constraints": ["dev_gap<=0.1"]}


def test_results_of_the_search_stand_beside_those_on_fresh_seeds(tmp_path):
    search = write_plan(tmp_path / "s")
    confirmed = write_plan(tmp_path / "s" / "confirm", seeds=(10, 11))
    for folder, seeds, shift in ((search, (0,), 0.0), (confirmed, (10, 11), 0.02)):
        write_trial(folder, 4, "aaa")
        for seed in seeds:
            write_run(folder, "aaa", seed, figures(0.5 - shift, 0.05 + shift), figures(0.45, 0.06))
    write_trial(search, 5, "bbb")
    write_run(search, "bbb", 0, figures(0.3, 0.3), figures(0.3, 0.3))
    rows = confirmation(load_study(search), load_study(confirmed))
    assert rows["config_id"].tolist() == ["aaa"] and rows["fresh_seeds"].tolist() == [2]
    assert rows["dev_w_f1"].item() == pytest.approx(0.5) and rows["fresh_dev_w_f1"].item() == pytest.approx(0.48)
    table = confirmation_table(rows)
    assert table["dev W-F1"].item() == "50.0 → 48.0" and table["dev gap"].item() == "5.0 → 7.0"
    assert table["seeds"].item() == "1 → 2"


def test_search_objectives_of_the_study_are_confirmed(tmp_path):
    search = write_plan(tmp_path / "s", **OBJECTIVES)
    fresh = write_plan(tmp_path / "s" / "confirm", seeds=(10,), **OBJECTIVES)
    for folder, seed, values, violation in ((search, 0, [0.5, 20.0], -0.01), (fresh, 10, [0.45, 21.0], 0.02)):
        trial(folder, 4, "aaa", values=values, by_seed={str(seed): values}, violations={"dev_gap<=0.1": violation})
        write_run(folder, "aaa", seed, figures(0.5, 0.05), figures(0.45, 0.06))
    searched, confirmed = load_study(search), load_study(fresh)
    table = confirmation_table(with_objectives(confirmation(searched, confirmed), searched, confirmed))
    assert table["dev_uar"].item() == "50.0 → 45.0" and table["seconds"].item() == "20.0 → 21.0"
    assert table["violations"].item() == "none → dev_gap<=0.1"
    unfinished = write_plan(tmp_path / "s" / "cut", seeds=(10, 11), **OBJECTIVES)  # one of two seeds has finished
    write_run(unfinished, "aaa", 10, figures(0.5, 0.05), figures(0.45, 0.06))
    confirmed = load_study(unfinished)
    table = confirmation_table(with_objectives(confirmation(searched, confirmed), searched, confirmed))
    assert table["violations"].item() == "none → –"
    assert "dev_uar" not in confirmation_table(confirmation(searched, confirmed))


def test_report_of_a_search_contains_its_confirmation(tmp_path, monkeypatch, capsys):
    quick = partial(write_report, permutations=20, resamples=20)
    monkeypatch.setattr("analysis.report.build.write_report", quick)
    folder = write_whole_study(tmp_path / "s", per_cell=12, configurations=3)
    report = Path(quick(load_study(folder)).html)
    assert "Confirmation on fresh seeds" not in report.read_text()

    fresh = write_whole_study(tmp_path / "s" / "confirm", per_cell=12, configurations=2, seeds=(10, 11))
    request = SimpleNamespace(folder=fresh)
    console = Console(soft_wrap=True)
    assert show_confirmation(console, StudyState(folder), request, StudyState(fresh), write=True) == 0

    page, printed = report.read_text(), capsys.readouterr().out
    assert "<h2>Confirmation on fresh seeds</h2>" in page and "1 → 2" in page
    assert f"{report} (search and fresh seeds)" in printed
    assert f"{fresh.path('report', 'report.html')} (fresh seeds alone)" in printed
    assert Path(fresh.path("report", "report.html")).exists()


def test_confirmed_configurations_keep_their_labels():
    trials = [
        {"number": 0, "label": None, "config_id": "a", "state": "finished", "hyperparameters": {"loss.power": 1}},
        {"number": 1, "label": "ERM", "config_id": "b", "state": "finished", "hyperparameters": {"loss.method": "erm"}},
        {"number": 2, "label": "paper's setting", "config_id": "a", "state": "finished", "hyperparameters": {}},
        {"number": 3, "label": None, "config_id": "c", "state": "failed", "hyperparameters": {}},
    ]
    configurations = confirmation_runs(trials, ("b", "a", "c"))
    assert [configuration.label for configuration in configurations] == ["ERM", "paper's setting"]


def test_confirmation_needs_fresh_seeds_and_the_settings_of_the_search(planned, tmp_path):
    request = planned("--study", "s", "--seeds", "0,1").request
    write_plan(tmp_path / "s", seeds=(0, 1), settings=request.settings.model_dump(mode="json"))
    state = StudyState(request.folder)
    confirmed = confirmation_request(request, state, (10, 11))
    assert confirmed.seeds == (10, 11) and confirmed.folder == confirm_folder(StudyFolder(str(tmp_path / "s")))
    with pytest.raises(SettingsError, match="the search has used 1"):
        confirmation_request(request, state, (1, 10))
    for seeds, message in (("5,5", "must differ"), ("x", "valid integer"), ("-1", "greater than or equal to 0")):
        options, (error,) = make_parser().read([f"--confirm-seeds={seeds}"])
        assert options.confirm_seeds is None and error.startswith("--confirm-seeds: ") and message in error
    other = planned("--study", "s", "--set", "loss.power=1").request
    with pytest.raises(SettingsError, match="loss.power: 2 in the study, 1 in this call"):
        confirmation_request(other, state, (10,))
    assert state.trials == {}
