"""How time is divided, on records with round numbers."""

from __future__ import annotations

from analysis.loading.study import load_study
from analysis.loading.timing import startup_phases, summarise_time, time_spent
from analysis.report.sections import time_sections
from tests.analysis import studies
from tests.analysis.contexts import report_context


def finished(folder, config_id, seed, startup):
    studies.write_run(folder, config_id, seed, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    name = f"runs/{config_id}/{seed}/finished.json"
    folder.write_json(name, {**folder.read_json(name), "startup": startup})


def test_seconds_of_a_trial_are_divided(tmp_path):
    folder = studies.write_plan(tmp_path / "s")
    for number, config_id in enumerate(("aa", "bb")):
        studies.write_trial(folder, number, config_id)  # 20 s each
    for seed, startup in enumerate(({"workers": 3.0, "imports": 2.0, "first step": 0.5}, {"model": 0.25})):
        finished(folder, ("aa", "bb")[seed], 0, startup)  # 7 s of training and 3 s of evaluation each
    spent = time_spent(load_study(folder))
    columns = ["trial", "training", "evaluation", "start", "new", "rest"]
    assert spent[columns].to_numpy().tolist() == [[20, 7, 3, 5.5, True, 4.5], [20, 7, 3, 0.25, False, 9.75]]
    words = summarise_time(spent)
    assert words.startswith("Training and evaluation took 50% of the time of 2 trials")
    assert "5.5 s on new workers, 0.2 s on workers of an earlier trial" in words
    (section,) = time_sections(report_context(load_study(folder)))
    assert section.blocks[0].frame["start, s"].tolist() == [5.5, 0.25]


def test_startup_phases_by_kind_of_workers(tmp_path):
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    new = {"placement": 1.0, "processes": 4.0, "imports": 2.0, "model": 0.5, "first step": 0.25}
    old = {"placement": 0.0, "processes": 0.0, "imports": 0.0, "model": 0.25, "first step": 0.25}
    for number, (config_id, startup) in enumerate({"aa": new, "bb": old, "cc": old}.items()):
        studies.write_trial(folder, number, config_id)
        finished(folder, config_id, 0, startup)
        finished(folder, config_id, 1, {"model": 0.5, "first step": 0.25 * number})
    study = load_study(folder)
    assert time_spent(study)["new"].tolist() == [True, False, False]
    parts = startup_phases(study).set_index("run")
    assert list(parts) == ["runs", *new, "together"]
    assert parts.loc["first seed, new workers"].tolist() == [1, 1, 4, 2, 0.5, 0.25, 7.75]
    assert parts.loc["first seed, reused workers"].tolist() == [2, 0, 0, 0, 0.25, 0.25, 0.5]
    assert parts.loc["later seed, same workers"].tolist() == [3, 0, 0, 0, 0.5, 0.25, 0.75]
    (section,) = time_sections(report_context(study))
    assert "processes, s" in section.blocks[1].frame


def test_records_without_times_have_no_section(tmp_path):
    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 0, "aa")
    studies.write_run(folder, "aa", 0, studies.figures(0.6, 0.1), studies.figures(0.5, 0.2))
    study = load_study(folder)
    assert summarise_time(time_spent(study)) == "" and time_sections(report_context(study)) == []
