"""Research questions on studies with planted effects of coefficients and transcript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.comparison.questions import (
    COEFFICIENT_COLUMNS,
    MIN_BUDGET,
    QUANTITIES,
    TRANSCRIPT_COLUMNS,
    coefficient_effect,
    transcript_effect,
    varied_coefficients,
)
from analysis.loading.study import Study, load_study
from study.common.groups import LANGUAGES
from tests.analysis import studies

SEEDS = (0, 1, 2)
WEIGHT = {"loss.fairness_weight.schedule": "constant", "loss.fairness_weight.weight": 0.3}
EQUAL = {f"loss.coefficients.languages.{name}": 1.0 for name in LANGUAGES}
UNEQUAL = EQUAL | {"loss.coefficients.languages.de": 2.0}
Model = tuple[str | None, dict[str, Any], float, float]  # label, hyperparameters, accuracy, advantage of men
ERM: Model = ("ERM", {"loss.method": "erm"}, 0.62, 0.25)


def searched(path: Path, models: Sequence[Model], seeds: Sequence[int] = SEEDS) -> Study:
    folder = studies.write_plan(path, seeds)
    known = studies.utterances(per_cell=60, speakers=12)
    folder.write_parquet("utterances.parquet", known)
    for number, (label, hyperparameters, accuracy, advantage) in enumerate(models):
        config_id = f"{path.name}{number:02d}" if label is None else "erm"
        studies.write_trial(folder, number, config_id, label, hyperparameters)
        for seed in seeds:
            made = studies.predict(known, accuracy, advantage, seed=100 * number + seed)
            studies.write_predictions(folder, known, config_id, seed, made)
    return load_study(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Study]:
    """Return a plain search with a gap of 20 points of recall, and a tuned one whose sixth trial closes it.

    The eighth tuned trial has equal coefficients and does not count as tuned.
    """
    folder = tmp_path_factory.mktemp("made")
    plain = [ERM, *[(None, WEIGHT, 0.62, 0.20)] * 6]
    gaps = (0.2, 0.2, 0.2, 0.2, 0.2, 0.0, 0.2)
    tuned = [ERM, *[(None, WEIGHT | UNEQUAL, 0.62, gap) for gap in gaps], (None, WEIGHT | EQUAL, 0.62, 0.0)]
    return searched(folder / "plain", plain), searched(folder / "tuned", tuned)


def test_coefficients_that_close_a_gap_are_significant(pair: tuple[Study, Study]) -> None:
    table = coefficient_effect(*pair, resamples=200, halves=60)

    assert list(table) == list(COEFFICIENT_COLUMNS)
    languages = table[table["coefficients"] == "languages"]
    assert set(languages["budget"]) == {6} and set(languages["tuned_name"]) == {"trial 6"}
    assert set(languages["quantity"]) == set(QUANTITIES) and languages["reason"].isna().all()
    gap = languages[(languages["quantity"] == "signed_tpr") & (languages["scope"] == "multilingual/speech+text")]
    assert gap["high"].iloc[0] < 0 and gap["verdict"].iloc[0] in (
        "smaller",
        "reduced (sign of the remaining gap uncertain)",
    )
    assert gap["n_seeds"].iloc[0] == 3
    avg = languages[(languages["quantity"] == "avg") & ~languages["is_cell"].astype(bool)].iloc[0]
    assert avg["p"] < 0.05 and pd.isna(avg["low"])
    # a half of the trials contains trial 6 with probability 1/2, and then it wins; otherwise the result is random
    assert 0.5 < avg["better_in_halves"] < 1
    assert languages.loc[languages["is_cell"].astype(bool), "better_in_halves"].isna().all()

    other = table[table["coefficients"] == "modalities"].iloc[0]
    assert other["reason"] == "the study has one modality" and pd.isna(other["p"])


def test_figures_agree_with_the_records(pair: tuple[Study, Study]) -> None:
    plain, tuned = pair
    table = coefficient_effect(plain, tuned, split="dev", resamples=100, halves=0)

    row = table[(table["quantity"] == "w_f1") & (table["scope"] == "de/speech+text")].iloc[0]
    for study, side, figure in ((plain, "plain", "reference"), (tuned, "tuned", "value")):
        cells = study.cells.query("split == 'dev' and language == 'de'")
        assert row[figure] == pytest.approx(cells.loc[cells["config_id"] == row[f"{side}_id"], "w_f1"].mean())
    assert row["difference"] == pytest.approx(row["value"] - row["reference"]) and row["clusters"] == 24
    overall = table[(table["quantity"] == "avg") & ~table["is_cell"].astype(bool)].iloc[0]
    gaps = tuned.configurations.set_index("config_id")["dev_gap"]
    assert overall["value"] == pytest.approx(gaps[overall["tuned_id"]])
    cells = table[table["is_cell"].astype(bool) & (table["quantity"] == "w_f1")]
    assert min(cells["p_holm"]) == pytest.approx(min(1.0, 3 * min(cells["p"])))


def test_one_study_with_too_few_plain_trials_has_a_reason(pair: tuple[Study, Study]) -> None:
    made = coefficient_effect(pair[1], resamples=50)
    assert "1 searched trials have equal coefficients and 7 differ" in made["reason"].iloc[0]


def test_budget_below_minimum_has_a_reason(pair: tuple[Study, Study], tmp_path: Path) -> None:
    few = searched(tmp_path / "few", [ERM, *[(None, WEIGHT, 0.6, 0.2)] * (MIN_BUDGET - 1)])
    row = coefficient_effect(few, pair[1], resamples=50).iloc[0]
    assert row["coefficients"] == "languages" and row["budget"] == MIN_BUDGET - 1
    assert row["reason"].startswith(f"{MIN_BUDGET - 1} searched trials have equal coefficients and 7 differ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plan: {"corpus": plan["corpus"] | {"hash": "other"}}, "the studies differ in their corpus"),
        (lambda plan: {"seeds": [0, 1]}, "the studies differ in their seeds"),
        (
            lambda plan: {"settings": plan["settings"] | {"optimisation": {"epochs": 9, "learning_rate": 0.005}}},
            "the studies differ in optimisation.epochs",
        ),
    ],
)
def test_studies_that_differ_have_a_reason(pair: tuple[Study, Study], change: Callable, reason: str) -> None:
    plain, tuned = pair
    tuned = replace(tuned, plan=tuned.plan | change(tuned.plan))
    table = coefficient_effect(plain, tuned)
    assert table["reason"].tolist() == [reason]


def test_missing_erm_or_identical_choices_have_a_reason(tmp_path: Path) -> None:
    models = [(None, WEIGHT, 0.4, 0.3)] * 5 + [(None, WEIGHT | UNEQUAL, 0.4, 0.3)] * 5
    without = coefficient_effect(searched(tmp_path / "a", models, (0,)), resamples=50)
    assert "ERM has not finished" in without["reason"].iloc[0]
    same = coefficient_effect(searched(tmp_path / "b", [ERM, *models], (0,)), resamples=50)
    assert same["reason"].iloc[0] == "both searches select ERM"


def test_varied_coefficients(pair: tuple[Study, Study]) -> None:
    study = pair[0]
    assert varied_coefficients(study, {}) == "" and varied_coefficients(study, EQUAL) == ""
    assert varied_coefficients(study, {"loss.coefficients.languages.de": 2.0}) == "languages"
    twice = {f"loss.coefficients.languages.{name}": 2.0 for name in LANGUAGES}
    assert varied_coefficients(study, twice) == ""  # only ratios matter


@pytest.fixture(scope="module")
def bimodal(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """ERM favours men by 30 points of recall from speech alone and by 2 with the transcript."""
    folder = studies.write_plan(
        tmp_path_factory.mktemp("made") / "s", SEEDS, modalities=["speech", "speech+text"], trials=1
    )
    known = studies.utterances(per_cell=80, speakers=12)
    folder.write_parquet("utterances.parquet", known)
    studies.write_trial(folder, 0, "erm", "ERM", {"loss.method": "erm"})
    for seed in SEEDS:
        speech = studies.predict(known, 0.55, 0.30, seed=seed, modality="speech")
        both = studies.predict(known, 0.65, 0.02, seed=10 + seed)
        # one German clip lacks a prediction with transcript, so German cannot be paired
        both = both[both["utterance_id"] != "test-de-f-0"]
        studies.write_predictions(folder, known, "erm", seed, pd.concat([speech, both], ignore_index=True))
    return load_study(folder)


def test_transcript_that_shrinks_the_gap_is_significant_by_language(bimodal: Study) -> None:
    table = transcript_effect(bimodal, resamples=300)

    assert list(table) == list(TRANSCRIPT_COLUMNS)
    answered = table[table["reason"].isna()]
    assert answered["language"].unique().tolist() == ["en", "ja", "multilingual"]
    gaps = answered[answered["quantity"] == "signed_tpr"].set_index("language")
    assert (gaps["difference"] < 0).all() and gaps.loc["multilingual", "high"] < 0
    assert gaps.loc["multilingual", "reference"] == pytest.approx(-0.30, abs=0.06)
    assert gaps.loc["multilingual", "n_seeds"] == 3 and gaps.loc["en", "n_female"] == 80
    levels = answered[answered["quantity"] == "w_f1"].set_index("language")
    assert levels.loc["multilingual", "verdict"] == "higher"
    # Holm over the two languages; their mean is not a cell
    p, adjusted = gaps.loc[["en", "ja"], "p"], gaps.loc[["en", "ja"], "p_holm"]
    assert adjusted.min() == pytest.approx(2 * p.min()) and pd.isna(gaps.loc["multilingual", "p_holm"])
    cells = bimodal.cells.query("split == 'test' and language == 'en'").groupby("modality")["w_f1"].mean()
    assert levels.loc["en", ["reference", "value"]].tolist() == pytest.approx([cells["speech"], cells["speech+text"]])


def test_a_language_is_significant_by_holm(bimodal: Study) -> None:
    table = transcript_effect(bimodal, split="dev", resamples=300)
    languages = table[table["is_cell"]]
    assert ((languages["p_holm"] < 0.05) == (languages["verdict"] != "not significant")).all()
    assert ((languages["p"] < 0.05) & (languages["p_holm"] >= 0.05)).any()


def test_language_that_cannot_be_paired_has_a_reason(bimodal: Study) -> None:
    row = transcript_effect(bimodal, resamples=50).query("language == 'de'").iloc[0]
    assert row["reason"] == "not all of its utterances were evaluated in both modalities" and pd.isna(row["p"])
    assert "de" in set(transcript_effect(bimodal, split="dev", resamples=50).query("p == p")["language"])


def test_one_modality_has_a_reason(pair: tuple[Study, Study]) -> None:
    table = transcript_effect(pair[0])
    assert table["reason"].tolist() == ["the study has no predictions from speech"]
