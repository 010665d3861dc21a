"""Paired comparisons from study to table, on studies with planted gaps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.comparison import paired
from analysis.comparison.paired import Comparison, adjust_over_cells, compare, find_configuration
from analysis.comparison.verdict import NOT_SIGNIFICANT, SIGN_UNCERTAIN_NOTE, TOO_FEW_CLUSTERS
from analysis.formatting import as_text
from analysis.loading.study import Study, load_study
from analysis.pareto.front import front
from analysis.tables.comparison import MAIN, comparison_table
from study.common.errors import RecordError
from study.common.groups import EMOTIONS, SCORE_COLUMNS
from tests.analysis import studies


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Comparison]:
    """Return a study whose ERM favours men by 22 points of recall and trial 7 (the last) by 1, and its comparison."""
    folder = studies.write_whole_study(
        tmp_path_factory.mktemp("made") / "s", per_cell=150, speakers=12, seeds=range(5), configurations=8
    )
    study = load_study(folder)
    return study, compare(study, resamples=400)


def rows(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def test_values_agree_with_the_records(comparison: tuple[Study, Comparison]) -> None:
    study, made = comparison
    erm = find_configuration(study, "ERM")
    for name in ("paper's setting", "trial 7"):
        other = find_configuration(study, name)
        overall = rows(made.table, name=name, scope="multilingual/speech+text")
        for quantity, column in (("w_f1", "dev_w_f1"), ("avg", "dev_gap"), ("absolute_tpr", "dev_gap_tpr")):
            row = rows(overall, quantity=quantity).iloc[0]
            assert row["reference"] == pytest.approx(erm[column])
            assert row["value"] == pytest.approx(other[column])
            assert row["difference"] == pytest.approx(other[column] - erm[column])
        cells = rows(study.cells, config_id=other["config_id"], split="dev", language="de")
        german = rows(made.table, name=name, scope="de/speech+text", quantity="signed_accuracy").iloc[0]
        assert german["value"] == pytest.approx(cells["signed_accuracy"].mean())
        assert (german["n_female"], german["n_male"], german["clusters"]) == (150, 150, 12)


def test_gap_that_shrinks_is_significant_whatever_its_sign(comparison: tuple[Study, Comparison]) -> None:
    _, made = comparison
    closed = rows(made.table, name="trial 7", quantity="signed_accuracy", scope="multilingual/speech+text").iloc[0]

    # planted: women are 22 points behind in ERM and 1 point behind in trial 7
    assert closed["reference"] == pytest.approx(-0.22, abs=0.04)
    assert closed["difference"] == pytest.approx(-(closed["value"] - closed["reference"]))
    assert closed["low"] < -0.21 < closed["high"] < 0
    assert closed["verdict"] in ("smaller", "reduced (sign of the remaining gap uncertain)")
    assert rows(made.table, name="trial 7", quantity="avg", scope="multilingual/speech+text").iloc[0]["p"] < 0.01


def test_holm_adjusts_over_cells_and_not_means(comparison: tuple[Study, Comparison]) -> None:
    _, made = comparison
    for _, of_cells in made.table[made.table["is_cell"]].groupby(["name", "quantity"]):
        p, adjusted = np.sort(of_cells["p"]), np.sort(of_cells["p_holm"])
        assert adjusted[0] == pytest.approx(min(1.0, 3 * p[0])) and (adjusted >= p).all()
    assert made.table.loc[~made.table["is_cell"], "p_holm"].isna().all()


def test_verdict_rests_on_holm_for_cells_and_on_p_for_means(comparison: tuple[Study, Comparison]) -> None:
    _, made = comparison
    for is_cell, p in ((True, "p_holm"), (False, "p")):
        of = rows(made.table, is_cell=is_cell)
        assert ((of[p] < 0.05) == (of["verdict"] != NOT_SIGNIFICANT)).all()
    changed = made.table["is_cell"] & (made.table["p"] < 0.05) & (made.table["p_holm"] >= 0.05)
    assert changed.any()  # the adjustment changes the verdict on some cell


def test_holm_withdraws_verdicts_and_adds_none() -> None:
    cells = {"config_id": "a", "quantity": "w_f1", "is_cell": True}
    table = pd.DataFrame(
        [
            cells | {"p": 0.01, "verdict": "higher"},
            cells | {"p": 0.03, "verdict": "lower"},
            cells | {"p": 0.04, "verdict": TOO_FEW_CLUSTERS},
            cells | {"p": 0.04, "verdict": "higher", "is_cell": False},
        ]
    )
    made = adjust_over_cells(table, ["config_id", "quantity"])
    assert made["p_holm"].tolist() == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert made["verdict"].tolist() == ["higher", NOT_SIGNIFICANT, TOO_FEW_CLUSTERS, "higher"]
    assert table["verdict"].tolist()[1] == "lower"  # the input is not modified


def test_absolute_gaps_have_a_p_value_and_no_interval(comparison: tuple[Study, Comparison]) -> None:
    _, made = comparison
    ends = ["low", "high", "value_low", "value_high", "reference_low", "reference_high"]
    absolute = rows(made.table, kind="absolute gap")
    assert absolute[ends].isna().all(axis=None) and absolute["p"].notna().all()
    others = made.table[made.table["kind"] != "absolute gap"]
    assert others[[*ends, "p"]].notna().all(axis=None)
    for figure in ("value", "reference"):
        assert others[figure].between(others[f"{figure}_low"], others[f"{figure}_high"]).all()


def test_table_is_in_points_and_filters(comparison: tuple[Study, Comparison]) -> None:
    _, made = comparison
    table = comparison_table(made, ("avg", "w_f1"), scope="multilingual/speech+text", configuration="trial 7")

    assert table["quantity"].tolist() == ["AVG gap", "W-F1"]
    w_f1 = rows(made.table, name="trial 7", quantity="w_f1", scope="multilingual/speech+text").iloc[0]
    assert table["ERM"].iloc[1] == pytest.approx(100 * w_f1["reference"])
    assert table["95 % interval"].tolist()[0] == ""
    assert f"{100 * w_f1['low']:+.1f}".replace("-", "−") in as_text(table)
    assert set(comparison_table(made)["configuration"]) == set(made.table["name"])
    assert len(comparison_table(made)) == 7 * 4 * len(MAIN)


def test_intervals_are_clipped_to_the_range_of_the_figure(tmp_path: Path) -> None:
    """With two seeds and few utterances, unclipped intervals would be hundreds of points wide."""
    study = load_study(studies.write_whole_study(tmp_path / "s", 8, 12, seeds=(0, 1), configurations=3))
    table = compare(study, resamples=40).table
    levels, signed = (table[table["kind"] == kind] for kind in ("level", "signed gap"))
    assert levels[["low", "reference_low"]].min().tolist() >= [-1, 0] and (levels["reference_high"] == 1).any()
    assert signed["value_low"].min() == -1 and signed["value_high"].max() == 1 and signed["low"].min() == -2
    assert table["null_range"].max() <= 1
    assert ((table["low"] <= 0) & (table["high"] >= 0) == (table["p"] >= 0.05))[table["low"].notna()].all()


def test_few_speakers_give_no_verdict(tmp_path: Path) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", per_cell=40, speakers=5, configurations=2))
    made = compare(study, resamples=100)

    gaps = made.table[made.table["kind"] != "level"]
    assert (gaps["verdict"] == TOO_FEW_CLUSTERS).all()
    assert any("only 5 speakers" in note for note in made.notes)
    assert any("one seed" in note for note in made.notes)
    assert studies.NOTE in made.notes


def test_cell_without_men_does_not_affect_the_mean_over_the_others(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=60, speakers=12, configurations=2)
    known = folder.read_parquet("utterances.parquet")
    german_men = (known["language"] == "de") & (known["gender"] == "male")
    folder.write_parquet("utterances.parquet", known.assign(gender=known["gender"].mask(german_men, "unknown")))
    made = compare(load_study(folder), resamples=40).table

    overall = rows(made, scope="multilingual/speech+text")
    gap = rows(overall, quantity="signed_tpr").iloc[0]
    assert (gap["n_female"], gap["n_male"], gap["clusters"]) == (60, 60, 12) and gap["verdict"] != TOO_FEW_CLUSTERS
    assert rows(overall, quantity="w_f1").iloc[0]["n_male"] == 0  # German is in this mean
    assert rows(made, scope="de/speech+text", kind="signed gap").empty


def test_common_seeds_are_paired(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 30, 12, seeds=(0, 1, 2), configurations=3)
    first, second = (f"{n:02d}{'abcdef' * 2}"[:12] for n in (1, 2))
    for config_id, seeds in ((first, (0,)), (second, (0, 1, 2))):
        for seed in seeds:
            Path(folder.path("runs", config_id, str(seed), "finished.json")).unlink()
    made = compare(load_study(folder), resamples=50)

    assert set(made.table["name"]) == {"paper's setting"} and set(made.table["n_seeds"]) == {2}


def test_errors_name_what_is_missing(
    comparison: tuple[Study, Comparison], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = comparison
    with pytest.raises(RecordError, match="no finished configuration 'nobody'; it has ERM; paper's setting"):
        compare(study, "nobody")
    with pytest.raises(ValueError, match="split must be dev or test"):
        compare(study, split="train")
    assert main(["compare", str(tmp_path)]) == 2
    assert "no study at" in capsys.readouterr().err

    alone = load_study(studies.write_whole_study(tmp_path / "s", 10, 5, configurations=1))
    with pytest.raises(RecordError, match="no configuration to compare with ERM"):
        compare(alone)

    folder = studies.write_whole_study(tmp_path / "t", 10, 5, configurations=2)
    name = f"runs/01{'abcdef' * 2}"[:17] + "/0/predictions.parquet"
    folder.write_parquet(name, folder.read_parquet(name).iloc[1:])
    with pytest.raises(RecordError, match="dev predictions of different utterances"):  # no other configuration is left
        compare(load_study(folder))


def test_unreadable_configuration_is_left_out_with_a_note(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 10, 5, seeds=(0, 1), configurations=5)
    cut, shorter, other = (f"runs/{n:02d}{'abcdef' * 2}"[:17] for n in (2, 3, 4))
    folder.write_bytes(f"{cut}/0/predictions.parquet", b"PAR1")
    for name in (f"{shorter}/1/predictions.parquet", *(f"{other}/{seed}/predictions.parquet" for seed in (0, 1))):
        folder.write_parquet(name, folder.read_parquet(name).iloc[1:])
    made = compare(load_study(folder), resamples=20)

    assert made.table["name"].unique().tolist() == ["paper's setting"]
    assert made.notes[0].startswith("trial 2 is left out") and f"{cut}/0/predictions.parquet" in made.notes[0]
    assert f"{shorter}/*/predictions.parquet: seeds 0, 1" in made.notes[1]
    assert "(dev rows: 60 of seed 0, 59 of seed 1)" in made.notes[1]
    assert made.notes[2].startswith("trial 4 is left out") and other in made.notes[2]
    with pytest.raises(RecordError, match=f"{cut}/0/predictions.parquet cannot be read"):
        compare(load_study(folder), "trial 2")


def test_unknown_names_and_invalid_numbers_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 10, 5, configurations=2)
    csv = tmp_path / "t.csv"
    for flag, value, words in (
        ("--scope", "fr/speech", "--scope fr/speech: the comparison has no such scope; it has en/speech+text; "),
        (
            "--configuration",
            "ERM",
            "--configuration ERM: the comparison has no such configuration; it has paper's setting",
        ),
    ):
        assert main(["compare", folder.uri, "--resamples", "20", flag, value, "--csv", str(csv)]) == 2
        assert words in capsys.readouterr().err and not csv.exists()
    for flag, value in (("--resamples", "19"), ("--resamples", "many"), ("--seed", "-1"), ("--seed", "0.5")):
        with pytest.raises(SystemExit) as stop:
            main(["compare", folder.uri, flag, value])
        assert stop.value.code == 2
        assert f"argument {flag}: {value!r} is not a whole number from" in capsys.readouterr().err


def test_command_prints_the_table_and_writes_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 30, 12, configurations=3)
    csv = tmp_path / "all.csv"

    status = main(
        ["compare", folder.uri, "--split", "test", "--resamples", "50", "--scope", "de/speech+text", "--csv", str(csv)]
    )

    said = capsys.readouterr().out
    assert status == 0
    assert "On test, in points, compared with ERM; 50 bootstrap resamples of whole speakers" in said
    assert "p adjusted by Holm's method over the cells of its configuration" in said
    assert SIGN_UNCERTAIN_NOTE in said
    assert "ja/speech+text" not in said and "W-F1 gap, common priors" in said
    assert studies.NOTE in said
    read = pd.read_csv(csv)
    assert set(read["scope"]) >= {"ja/speech+text", "multilingual/speech+text"} and read["difference"].abs().max() < 1


def test_each_configuration_is_resampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", 10, 12, configurations=5))
    resampled: list[str] = []
    for name in ("bootstrap", "permuted_differences"):
        original = getattr(paired, name)
        monkeypatch.setattr(paired, name, lambda *a, _f=original, _n=name: [resampled.append(_n), _f(*a)][1])
    compare(study, resamples=20)
    assert Counter(resampled) == {"bootstrap": 5, "permuted_differences": 4}


def test_configuration_of_one_modality_is_compared_there_and_is_not_on_the_front(tmp_path: Path) -> None:
    both = ("speech", "speech+text")
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30, configurations=3, modalities=both)
    config_id = folder.names("runs")[2]
    name = f"runs/{config_id}/0/predictions.parquet"
    made = folder.read_parquet(name)
    known = folder.read_parquet("utterances.parquet")
    folder.remove(f"runs/{config_id}")
    studies.write_predictions(folder, known, config_id, 0, made[made["modality"] == "speech"])
    study = load_study(folder)

    whole = study.configurations.set_index("name")["complete"]
    assert whole.to_dict() == {"ERM": True, "paper's setting": True, "trial 2": False}
    assert not front(study.configurations).set_index("name")["on_front"]["trial 2"]

    compared = compare(study, resamples=50)
    assert compared.overall == "all"
    assert "trial 2 was evaluated on speech only and is compared with ERM there." in compared.notes
    table = compared.table[compared.table["quantity"] == "w_f1"].set_index(["name", "scope"])
    assert set(table.loc["trial 2"].index) == {"en/speech", "ja/speech", "de/speech", "multilingual/speech"}
    cells = study.cells.query("split == 'dev'").set_index(["config_id", "language", "modality"])["w_f1"]
    for language in ("en", "ja", "de"):
        row = table.loc[("trial 2", f"{language}/speech")]
        assert row["value"] == pytest.approx(cells[config_id, language, "speech"])
        assert row["reference"] == pytest.approx(cells["00abcdefabcd", language, "speech"])


def test_gap_is_larger_if_that_of_the_reference_is_0(tmp_path: Path) -> None:
    """ERM answers neutral to everything, so its recall is equal for both genders and its gap is exactly 0."""
    folder = studies.write_whole_study(tmp_path / "s", per_cell=200, speakers=20, configurations=2)
    known = folder.read_parquet("utterances.parquet")
    name = "runs/00abcdefabcd/0/predictions.parquet"
    scores = dict.fromkeys(SCORE_COLUMNS, -3.0) | {"score_neutral": -0.1}
    folder.write_parquet(name, folder.read_parquet(name).assign(**scores))
    known["emotion"] = [EMOTIONS[i % 7] for i in range(len(known))]  # every emotion in every group
    folder.write_parquet("utterances.parquet", known)
    better = studies.predict(known, 0.6, male_advantage=0.4)
    studies.write_predictions(folder, known, "01abcdefabcd", 0, better)

    table = compare(load_study(folder), resamples=100).table
    (row,) = table.query("quantity == 'signed_tpr' and scope == 'en/speech+text'").to_dict("records")
    assert row["reference"] == 0 and row["value"] == pytest.approx(-0.4, abs=0.1)
    assert row["difference"] == pytest.approx(-row["value"]) and 0 < row["low"] < row["high"]
    assert row["verdict"] == "larger"


def test_configuration_of_another_modality_is_left_out_with_a_note(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", configurations=3)
    for config_id in folder.names("runs")[2:]:
        name = f"runs/{config_id}/0/predictions.parquet"
        folder.write_parquet(name, folder.read_parquet(name).assign(modality="speech"))
    made = compare(load_study(folder), resamples=50)
    assert made.table["name"].unique().tolist() == ["paper's setting"]
    assert "it was evaluated on speech, unlike ERM" in made.notes[0]
