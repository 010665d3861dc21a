"""Importance of knobs on made-up searches whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.loading.study import Study, load_study
from analysis.pareto.importance import COLUMNS, EVALUATORS, MIN_TRIALS, distribution, importance
from analysis.report.html import Table
from analysis.report.search_sections import importance_sections
from search_spaces import Space, space_maker
from study.common.groups import LANGUAGES
from study.config.settings import Settings
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies
from tests.analysis.contexts import report_context

WEIGHT = "loss.fairness_weight"


def keep_hyperparameters(folder: StudyFolder, space: Space) -> None:
    plan = folder.read_json("study.json")
    folder.write_json(
        "study.json",
        {
            **plan,
            "hyperparameters": [hyperparameter.model_dump(mode="json") for hyperparameter in space.hyperparameters],
        },
    )


def searched(path: Path, n: int, seed: int = 0) -> Study:
    """A random search: an adaptive schedule has the better W-F1, of the others that of a small weight; the gap falls
    with the German coefficient."""
    folder = studies.write_plan(path)
    space = space_maker("fairness")(LANGUAGES, Settings())
    keep_hyperparameters(folder, space)
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    studies.write_trial(folder, 0, "erm", "ERM", {"loss.method": "erm"})
    studies.write_run(folder, "erm", 0, studies.figures(0.99, 0.0), studies.figures(0.5, 0.1))
    for number in range(1, n + 1):
        hyperparameters = space.suggest(sampler.ask())
        w_f1 = 0.6 + 0.001 * (number % 3)
        if hyperparameters[f"{WEIGHT}.schedule"] != "adaptive":
            w_f1 = 0.3 - 0.05 * np.log10(hyperparameters[f"{WEIGHT}.weight"])
        gap = 0.3 - 0.06 * np.log2(hyperparameters["loss.coefficients.languages.de"])
        studies.write_trial(folder, number, f"c{number:03d}", hyperparameters=hyperparameters)
        studies.write_run(folder, f"c{number:03d}", 0, studies.figures(w_f1, gap), studies.figures(0.5, 0.1))
    return load_study(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return importance(searched(tmp_path_factory.mktemp("made") / "s", 120))


def test_the_knob_that_decides_is_first(table) -> None:
    for evaluator in ("fANOVA", "PED-ANOVA"):
        for objective, hyperparameter in (
            ("dev_w_f1", f"{WEIGHT}.schedule"),
            ("dev_gap", "loss.coefficients.languages.de"),
        ):
            rows = table[(table["evaluator"] == evaluator) & (table["objective"] == objective) & (table["n"] == 120)]
            assert rows.loc[rows["importance"].idxmax(), "hyperparameter"] == hyperparameter, (evaluator, objective)


def test_a_conditional_knob_is_counted_among_the_trials_that_have_it(table) -> None:
    assert list(table) == list(COLUMNS) and len(table) == 2 * 2 * len(table["hyperparameter"].unique())
    n = table.groupby("hyperparameter")["n"].first()
    assert n["loss.coefficients.languages.ja"] == 120  # without ERM
    assert n[f"{WEIGHT}.weight"] + n[f"{WEIGHT}.step_size"] == 120
    assert n[f"{WEIGHT}.ramp_fraction"] < n[f"{WEIGHT}.weight"]
    assert n[f"{WEIGHT}.initial"] == n[f"{WEIGHT}.step_size"] >= MIN_TRIALS
    known = table.dropna(subset=["importance"])
    assert known["importance"].between(0, 1).all() and known["reason"].isna().all()
    # among adaptive schedules nothing decides W-F1, so the forest has nothing to share out
    left = table[table["importance"].isna()]
    assert set(left["hyperparameter"]) == {f"{WEIGHT}.initial", f"{WEIGHT}.step_size"}
    assert set(left["objective"]) == {"dev_w_f1"} and left["reason"].str.contains("explain 0% of this objective").all()

    # the knobs that every trial has share one forest, so their shares sum to 1
    rows = table[(table["evaluator"] == "fANOVA") & (table["objective"] == "dev_gap")].set_index("hyperparameter")[
        "importance"
    ]
    assert rows[[name for name in n.index if n[name] == 120]].sum() == pytest.approx(1)
    rows = table[(table["evaluator"] == "fANOVA") & (table["objective"] == "dev_w_f1")].set_index("hyperparameter")[
        "importance"
    ]
    assert rows[f"{WEIGHT}.weight"] > 0.8  # among its own trials, where no schedule is better than another


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forty_trials_show_the_knob_that_decides_and_credit_no_other(tmp_path: Path, seed: int) -> None:
    """W-F1 follows the German coefficient; the gap follows the weight, which adaptive schedules do not have."""
    folder = studies.write_plan(tmp_path / "s")
    space = space_maker("fairness")(LANGUAGES, Settings())
    keep_hyperparameters(folder, space)
    proposals = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    noise = np.random.default_rng(seed)
    for number in range(40):
        hyperparameters = space.suggest(proposals.ask())
        w_f1 = 0.5 - 0.04 * abs(np.log2(hyperparameters["loss.coefficients.languages.de"])) + noise.normal(0, 0.005)
        gap = 0.15 - 0.03 * np.log10(hyperparameters.get(f"{WEIGHT}.weight", 0.3)) + noise.normal(0, 0.005)
        studies.write_trial(folder, number, f"c{number:03d}", hyperparameters=hyperparameters)
        studies.write_run(folder, f"c{number:03d}", 0, studies.figures(w_f1, gap), studies.figures(0.5, 0.1))
    study = load_study(folder)
    table = importance(study)

    found = table.pivot(index="hyperparameter", columns=["objective", "evaluator"], values="importance")
    for evaluator in ("fANOVA", "PED-ANOVA"):
        decides = {"dev_w_f1": "loss.coefficients.languages.de", "dev_gap": f"{WEIGHT}.weight"}
        for objective, hyperparameter in decides.items():
            shares = found[objective, evaluator].dropna()
            assert shares.idxmax() == hyperparameter, (evaluator, objective)
            assert (shares.drop(hyperparameter) < shares[hyperparameter] / 2).all(), (evaluator, objective)
    # of the knobs that all trials have none decides the gap: without a guard they would share all of it
    of_all = table.query("evaluator == 'fANOVA' and objective == 'dev_gap' and n == 40")
    assert len(of_all) == 3 and of_all["importance"].isna().all()

    (shown,) = (
        block.frame for block in importance_sections(report_context(study))[0].blocks if isinstance(block, Table)
    )
    shown = shown.set_index("hyperparameter")
    assert shown["W-F1, fANOVA"].idxmax() == "loss.coefficients.languages.de"
    assert shown["gap, fANOVA"].dropna().index.tolist() == [f"{WEIGHT}.weight"]
    assert shown.loc[f"{WEIGHT}.weight", "n"] < 40


def test_the_same_seed_gives_the_same_shares(tmp_path: Path) -> None:
    study = searched(tmp_path / "s", MIN_TRIALS)
    assert importance(study).equals(importance(study))


def test_too_few_trials_give_a_reason_and_no_number(tmp_path: Path) -> None:
    study = searched(tmp_path / "s", MIN_TRIALS + 1)
    table = importance(study)
    enough = table["n"] >= MIN_TRIALS

    assert table.loc[enough, "importance"].notna().all() and enough.any()
    assert table.loc[~enough, "importance"].isna().all() and (~enough).any()
    row = table[~enough].iloc[0]
    assert row["reason"] == f"{row['n']} trials have this knob, at least {MIN_TRIALS} are needed"

    none = importance(searched(tmp_path / "t", MIN_TRIALS - 1))
    assert none["importance"].isna().all() and none["reason"].notna().all()


def test_an_objective_without_differences_has_no_importance(tmp_path: Path) -> None:
    study = searched(tmp_path / "s", MIN_TRIALS)
    study.configurations["dev_gap"] = 0.1
    table = importance(study).set_index("objective")
    enough = table["n"] >= MIN_TRIALS
    assert (table.loc[enough, "reason"].loc["dev_gap"].str.contains("20 trials with this knob do not differ")).all()
    assert table.loc[enough, "importance"].loc["dev_gap"].isna().all()
    assert table.loc[enough, "importance"].loc["dev_w_f1"].notna().all()


def test_a_study_that_searched_nothing_says_so(tmp_path: Path) -> None:
    for space in ("ablation", "single"):
        table = importance(load_study(studies.write_plan(tmp_path / space, space=space, hyperparameters=[])))
        assert len(table) == 1 and table["hyperparameter"].iloc[0] is None
        assert table["reason"].iloc[0] == f"the space '{space}' has no knobs: nothing was searched"


def test_a_trial_outside_the_ranges_does_not_enter(tmp_path: Path) -> None:
    folder = searched(tmp_path / "s", MIN_TRIALS).folder
    for number, hyperparameters in enumerate(
        ({f"{WEIGHT}.schedule": "constant", f"{WEIGHT}.weight": 5.0}, {f"{WEIGHT}.schedule": "stepwise"}), start=900
    ):
        studies.write_trial(folder, number, f"c{number}", hyperparameters=hyperparameters)
        studies.write_run(folder, f"c{number}", 0, studies.figures(0.1, 0.1), studies.figures(0.1, 0.1))
    assert importance(load_study(folder))["n"].max() == MIN_TRIALS


def with_objectives(folder: StudyFolder) -> Study:
    """The study as one that searched for the worst group's W-F1, which follows the Japanese coefficient, and for
    seconds, which follow the German one; both as its trials recorded them."""
    search_objectives = {
        "objectives": [["dev_worst_group_w_f1", "max"], ["seconds", "min"]],
        "constraints": ["dev_gap<=0.2"],
    }
    folder.write_json("study.json", folder.read_json("study.json") | search_objectives)
    for number, trial in StudyState(folder).trials.items():
        japanese, german = (
            trial["hyperparameters"].get(f"loss.coefficients.languages.{name}", 1) for name in ("ja", "de")
        )
        trial |= {"values": [0.3 - 0.05 * np.log2(japanese), 60.0 + np.log2(german)], "violations": {}}
        folder.write_json(f"trials/{number:05d}.json", trial)
    return load_study(folder)


def test_the_objectives_are_those_that_the_study_searched_for(tmp_path: Path) -> None:
    study = with_objectives(searched(tmp_path / "s", 60).folder)
    table = importance(study)

    assert table["objective"].unique().tolist() == ["dev_worst_group_w_f1", "seconds"]
    for objective, language in (("dev_worst_group_w_f1", "ja"), ("seconds", "de")):
        for evaluator in EVALUATORS:
            rows = table[(table["evaluator"] == evaluator) & (table["objective"] == objective)]
            decides = f"loss.coefficients.languages.{language}"
            assert rows.loc[rows["importance"].idxmax(), "hyperparameter"] == decides, (evaluator, objective)
    (shown,) = (
        block.frame for block in importance_sections(report_context(study))[0].blocks if isinstance(block, Table)
    )
    assert "dev_worst_group_w_f1, fANOVA" in shown and "seconds, PED-ANOVA" in shown


def test_with_requirements_w_f1_and_gap_are_still_the_studys(tmp_path: Path) -> None:
    """As it was loaded, by its class average, which the trials' records do not know."""
    study = searched(tmp_path / "s", 60)
    expected = importance(study, evaluators=["PED-ANOVA"])
    with_objectives(study.folder)  # the records now hold other values
    plan = study.folder.read_json("study.json")
    study.folder.write_json("study.json", plan | {"objectives": [["dev_w_f1", "max"], ["dev_gap", "min"]]})
    pd.testing.assert_frame_equal(importance(load_study(study.folder), evaluators=["PED-ANOVA"]), expected)


def test_the_command_prints_the_shares_and_why_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = searched(tmp_path / "s", 60)
    assert main(["importance", study.folder.uri, "--seed", "3"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert all(f"{objective}, {evaluator}" in heading for objective in ("W-F1", "gap") for evaluator in EVALUATORS)
    expected = importance(study, seed=3).set_index(["objective", "evaluator", "hyperparameter"])["importance"]
    german = "loss.coefficients.languages.de"
    (line,) = (line for line in lines if line.startswith(german))
    assert f"{100 * expected['dev_gap', 'fANOVA', german]:.1f}" in line
    assert f"· {WEIGHT}.initial (W-F1, gap): 13 trials have this knob, at least {MIN_TRIALS} are needed" in lines
    assert f"· {studies.NOTE}" in lines

    monkeypatch.setattr("analysis.report.search_sections.MAX_FANOVA", 10)
    (section,) = importance_sections(report_context(study))
    assert f"`python -m analysis importance {study.folder.uri}` computes it" in section.text
    (shown,) = (block.frame for block in section.blocks if isinstance(block, Table))
    assert "gap, PED-ANOVA" in shown and "gap, fANOVA" not in shown

    nothing = studies.write_plan(tmp_path / "none", space="single", hyperparameters=[])
    assert main(["importance", nothing.uri]) == 0
    assert capsys.readouterr().out.startswith("· the space 'single' has no knobs: nothing was searched\n")
    assert main(["importance", str(tmp_path)]) == 2 and "no study at" in capsys.readouterr().err


def test_ranges_are_those_of_the_space() -> None:
    """What Optuna itself keeps of a trial that it was asked for."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = space_maker("fairness")(LANGUAGES, Settings(modalities=("speech", "speech+text")))
    for _ in range(8):
        trial = study.ask()
        space.suggest(trial)
        ours = {hyperparameter.name: distribution(hyperparameter) for hyperparameter in space.hyperparameters}
        assert trial.distributions == {name: ours[name] for name in trial.params}
