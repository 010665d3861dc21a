"""Importance of hyperparameters in simulated searches with known effects.

Forests have fewer trees than by default: a tree count changes the noise of shares, not what they estimate.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.loading.study import Study, load_study
from analysis.pareto import importance as module
from analysis.pareto.importance import (
    COLUMNS,
    EVALUATORS,
    MIN_TRIALS,
    distribution,
    importance,
    importance_table,
)
from analysis.report.html import Table
from analysis.report.search_sections import importance_sections
from search_spaces import Space, space_maker
from study.common.groups import LANGUAGES
from study.config.settings import Settings
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies
from tests.analysis.contexts import report_context

WEIGHT, GERMAN = "loss.fairness_weight", "loss.coefficients.languages.de"


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FANOVA_TREES", 12)
        patch.setattr(module, "OUT_OF_BAG_TREES", 60)
        yield


def save_hyperparameters(folder: StudyFolder, space: Space) -> None:
    hyperparameters = [hyperparameter.model_dump(mode="json") for hyperparameter in space.hyperparameters]
    folder.write_json("study.json", folder.read_json("study.json") | {"hyperparameters": hyperparameters})


def searched(path: Path, n: int, seed: int = 0) -> Study:
    """Return a random search of n trials and ERM.

    Adaptive schedules have the best W-F1; that of the other schedules falls with the weight. The gap falls with the
    German coefficient.
    """
    folder = studies.write_plan(path)
    space = space_maker("fairness")(LANGUAGES, Settings())
    save_hyperparameters(folder, space)
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    studies.write_trial(folder, 0, "erm", "ERM", {"loss.method": "erm"})
    studies.write_run(folder, "erm", 0, studies.figures(0.99, 0.0), studies.figures(0.5, 0.1))
    for number in range(1, n + 1):
        hyperparameters = space.suggest(sampler.ask())
        w_f1 = 0.6 + 0.001 * (number % 3)
        if hyperparameters[f"{WEIGHT}.schedule"] != "adaptive":
            w_f1 = 0.3 - 0.05 * np.log10(hyperparameters[f"{WEIGHT}.weight"])
        gap = 0.3 - 0.06 * np.log2(hyperparameters[GERMAN])
        studies.write_trial(folder, number, f"c{number:03d}", hyperparameters=hyperparameters)
        studies.write_run(folder, f"c{number:03d}", 0, studies.figures(w_f1, gap), studies.figures(0.5, 0.1))
    return load_study(folder)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return importance(searched(tmp_path_factory.mktemp("made") / "s", 120))


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return searched(tmp_path_factory.mktemp("made") / "s", 60)


def test_influential_hyperparameter_has_the_largest_share(table: pd.DataFrame) -> None:
    for evaluator in EVALUATORS:
        for objective, hyperparameter in (("dev_w_f1", f"{WEIGHT}.schedule"), ("dev_gap", GERMAN)):
            rows = table[(table["evaluator"] == evaluator) & (table["objective"] == objective) & (table["n"] == 120)]
            assert rows.loc[rows["importance"].idxmax(), "hyperparameter"] == hyperparameter, (evaluator, objective)


def test_conditional_hyperparameter_is_assessed_among_the_trials_that_have_it(table: pd.DataFrame) -> None:
    assert list(table) == list(COLUMNS) and len(table) == 2 * 2 * len(table["hyperparameter"].unique())
    n = table.groupby("hyperparameter")["n"].first()
    assert n["loss.coefficients.languages.ja"] == 120  # without ERM
    assert n[f"{WEIGHT}.weight"] + n[f"{WEIGHT}.step_size"] == 120
    assert n[f"{WEIGHT}.ramp_fraction"] < n[f"{WEIGHT}.weight"]
    assert n[f"{WEIGHT}.initial"] == n[f"{WEIGHT}.step_size"] >= MIN_TRIALS
    known = table.dropna(subset=["importance"])
    assert known["importance"].between(0, 1).all() and known["reason"].isna().all()
    # no hyperparameter of adaptive schedules affects W-F1, so the forest explains nothing
    unexplained = table[table["importance"].isna()]
    assert set(unexplained["hyperparameter"]) == {f"{WEIGHT}.initial", f"{WEIGHT}.step_size"}
    assert set(unexplained["objective"]) == {"dev_w_f1"}
    assert unexplained["reason"].str.contains("explain 0% of this objective").all()

    # unconditional hyperparameters share one forest, so their shares sum to 1
    fanova = table[table["evaluator"] == "fANOVA"].set_index(["objective", "hyperparameter"])["importance"]
    assert fanova["dev_gap"][[name for name in n.index if n[name] == 120]].sum() == pytest.approx(1)
    assert fanova["dev_w_f1", f"{WEIGHT}.weight"] > 0.8  # among its trials the schedule has no effect


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_forty_trials_show_the_influential_hyperparameter_and_no_other(tmp_path: Path, seed: int) -> None:
    """W-F1 depends on the German coefficient; the gap depends on the weight, which adaptive schedules do not have."""
    folder = studies.write_plan(tmp_path / "s")
    space = space_maker("fairness")(LANGUAGES, Settings())
    save_hyperparameters(folder, space)
    proposals = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    noise = np.random.default_rng(seed)
    for number in range(40):
        hyperparameters = space.suggest(proposals.ask())
        w_f1 = 0.5 - 0.04 * abs(np.log2(hyperparameters[GERMAN])) + noise.normal(0, 0.005)
        gap = 0.15 - 0.03 * np.log10(hyperparameters.get(f"{WEIGHT}.weight", 0.3)) + noise.normal(0, 0.005)
        studies.write_trial(folder, number, f"c{number:03d}", hyperparameters=hyperparameters)
        studies.write_run(folder, f"c{number:03d}", 0, studies.figures(w_f1, gap), studies.figures(0.5, 0.1))
    table = importance(load_study(folder))

    by_name = table.pivot(index="hyperparameter", columns=["objective", "evaluator"], values="importance")
    for evaluator in EVALUATORS:
        for objective, hyperparameter in {"dev_w_f1": GERMAN, "dev_gap": f"{WEIGHT}.weight"}.items():
            shares = by_name[objective, evaluator].dropna()
            assert shares.idxmax() == hyperparameter, (evaluator, objective)
            assert (shares.drop(hyperparameter) < shares[hyperparameter] / 2).all(), (evaluator, objective)
    # unconditional hyperparameters do not affect the gap; without MIN_EXPLAINED they would have all of its variance
    unconditional = table.query("evaluator == 'fANOVA' and objective == 'dev_gap' and n == 40")
    assert len(unconditional) == 3 and unconditional["importance"].isna().all()

    displayed = importance_table(table).set_index("hyperparameter")
    assert displayed["W-F1, fANOVA"].idxmax() == GERMAN
    assert displayed["gap, fANOVA"].dropna().index.tolist() == [f"{WEIGHT}.weight"]
    assert displayed.loc[f"{WEIGHT}.weight", "n"] < 40


def test_same_seed_gives_same_shares(tmp_path: Path) -> None:
    study = searched(tmp_path / "s", MIN_TRIALS)
    assert importance(study).equals(importance(study))


def test_too_few_trials_give_a_reason(tmp_path: Path) -> None:
    table = importance(searched(tmp_path / "s", MIN_TRIALS + 1))
    enough = table["n"] >= MIN_TRIALS

    assert table.loc[enough, "importance"].notna().all() and enough.any()
    assert table.loc[~enough, "importance"].isna().all() and (~enough).any()
    row = table[~enough].iloc[0]
    assert row["reason"] == f"{row['n']} trials have this hyperparameter, at least {MIN_TRIALS} are needed"

    none = importance(searched(tmp_path / "t", MIN_TRIALS - 1))
    assert none["importance"].isna().all() and none["reason"].notna().all()


def test_objective_with_one_value_has_no_importance(tmp_path: Path) -> None:
    study = searched(tmp_path / "s", MIN_TRIALS)
    study.configurations["dev_gap"] = 0.1
    table = importance(study).set_index("objective")
    enough = table[table["n"] >= MIN_TRIALS]
    assert enough.loc["dev_gap", "reason"].str.contains("20 trials with this hyperparameter do not differ").all()
    assert enough.loc["dev_gap", "importance"].isna().all()
    assert enough.loc["dev_w_f1", "importance"].notna().all()


def test_study_without_search_has_a_reason(tmp_path: Path) -> None:
    for space in ("ablation", "single"):
        table = importance(load_study(studies.write_plan(tmp_path / space, space=space, hyperparameters=[])))
        assert len(table) == 1 and table["hyperparameter"].iloc[0] is None
        assert table["reason"].iloc[0] == f"the space '{space}' has no hyperparameters: nothing was searched"


def test_trials_outside_the_ranges_are_excluded(tmp_path: Path) -> None:
    folder = searched(tmp_path / "s", MIN_TRIALS).folder
    outside = ({f"{WEIGHT}.schedule": "constant", f"{WEIGHT}.weight": 5.0}, {f"{WEIGHT}.schedule": "stepwise"})
    for number, hyperparameters in enumerate(outside, start=900):
        studies.write_trial(folder, number, f"c{number}", hyperparameters=hyperparameters)
        studies.write_run(folder, f"c{number}", 0, studies.figures(0.1, 0.1), studies.figures(0.1, 0.1))
    assert importance(load_study(folder), evaluators=["PED-ANOVA"])["n"].max() == MIN_TRIALS


def with_objectives(study: Study, path: Path) -> Study:
    """Return a copy of a study that searched the worst group's W-F1 and seconds.

    The former depends on the Japanese coefficient, the latter on the German one.
    """
    folder = StudyFolder(str(shutil.copytree(study.folder.uri, path)))
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


def test_importance_is_for_the_search_objectives_of_the_study(sixty: Study, tmp_path: Path) -> None:
    table = importance(with_objectives(sixty, tmp_path / "s"))

    assert table["objective"].unique().tolist() == ["dev_worst_group_w_f1", "seconds"]
    for objective, language in (("dev_worst_group_w_f1", "ja"), ("seconds", "de")):
        for evaluator in EVALUATORS:
            rows = table[(table["evaluator"] == evaluator) & (table["objective"] == objective)]
            influential = f"loss.coefficients.languages.{language}"
            assert rows.loc[rows["importance"].idxmax(), "hyperparameter"] == influential, (evaluator, objective)
    assert {"dev_worst_group_w_f1, fANOVA", "seconds, PED-ANOVA"} <= set(importance_table(table))


def test_w_f1_and_gap_are_those_of_the_loaded_study(sixty: Study, tmp_path: Path) -> None:
    """They follow the class average of the loaded study, which trial records do not contain."""
    expected = importance(sixty, evaluators=["PED-ANOVA"])
    folder = with_objectives(sixty, tmp_path / "s").folder  # the records contain other values
    plan = folder.read_json("study.json")
    folder.write_json("study.json", plan | {"objectives": [["dev_w_f1", "max"], ["dev_gap", "min"]]})
    pd.testing.assert_frame_equal(importance(load_study(folder), evaluators=["PED-ANOVA"]), expected)


def test_command_prints_shares_and_reasons(
    sixty: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["importance", sixty.folder.uri, "--seed", "3"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert all(f"{objective}, {evaluator}" in heading for objective in ("W-F1", "gap") for evaluator in EVALUATORS)
    expected = importance(sixty, seed=3, evaluators=["fANOVA"]).set_index(["objective", "hyperparameter"])
    (line,) = (line for line in lines if line.startswith(GERMAN))
    assert f"{100 * expected['importance']['dev_gap', GERMAN]:.1f}" in line
    reason = f"13 trials have this hyperparameter, at least {MIN_TRIALS} are needed"
    assert f"· {WEIGHT}.initial (W-F1, gap): {reason}" in lines
    assert f"· {studies.NOTE}" in lines

    monkeypatch.setattr("analysis.report.search_sections.MAX_FANOVA", 10)
    (section,) = importance_sections(report_context(sixty))
    assert f"`python -m analysis importance {sixty.folder.uri}` computes it" in section.text
    (columns,) = (set(block.frame) for block in section.blocks if isinstance(block, Table))
    assert "gap, PED-ANOVA" in columns and "gap, fANOVA" not in columns

    nothing = studies.write_plan(tmp_path / "none", space="single", hyperparameters=[])
    assert main(["importance", nothing.uri]) == 0
    assert capsys.readouterr().out.startswith("· the space 'single' has no hyperparameters: nothing was searched\n")
    assert main(["importance", str(tmp_path)]) == 2 and "no study at" in capsys.readouterr().err


def test_distributions_are_those_that_optuna_records() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = space_maker("fairness")(LANGUAGES, Settings(modalities=("speech", "speech+text")))
    for _ in range(8):
        trial = study.ask()
        space.suggest(trial)
        ours = {hyperparameter.name: distribution(hyperparameter) for hyperparameter in space.hyperparameters}
        assert trial.distributions == {name: ours[name] for name in trial.params}
