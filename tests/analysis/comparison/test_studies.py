"""Studies side by side: what differs, and which rows were scored on the same utterances."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.comparison.studies import COLUMNS, differences, settings_that_differ, side_by_side
from analysis.loading.study import GAP_OF_MEANS_NOTE, Study, load_study
from tests.analysis import studies


def made(path: Path, **changes: object) -> Study:
    folder = studies.write_whole_study(path, per_cell=12, speakers=3, configurations=2)
    folder.write_json("study.json", folder.read_json("study.json") | changes)
    return load_study(folder)


def test_rows_of_two_studies_stand_together(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second")
    table = side_by_side([first, second])

    assert list(table) == list(COLUMNS) and table["study"].tolist() == ["first", "first", "second", "second"]
    assert table["dev_w_f1"].tolist() == 2 * first.configurations["dev_w_f1"].tolist()
    assert set(table["comparable_dev"]) == set(table["comparable_test"]) == {1}
    assert differences([first, second]) == []


def test_other_utterances_or_another_corpus_are_not_comparable(tmp_path: Path) -> None:
    first = made(tmp_path / "first")
    corpus = first.plan["corpus"] | {"hash": "other"}
    elsewhere = made(tmp_path / "elsewhere", corpus=corpus)
    half = made(tmp_path / "half")
    for run in ("00abcdefabcd", "01abcdefabcd"):  # half of dev is kept for control, as a setting may have it
        name = f"runs/{run}/0/predictions.parquet"
        rows = half.folder.read_parquet(name)
        half.folder.write_parquet(name, pd.concat([rows[rows["split"] == "dev"][::2], rows[rows["split"] == "test"]]))
    table = side_by_side([first, elsewhere, half]).drop_duplicates("study")

    assert table["comparable_dev"].tolist() == [1, 2, 3]
    assert table["comparable_test"].tolist() == [1, 2, 1]
    assert differences([first, elsewhere]) == [
        "The corpus differs: synthetic (hash c0ffee) in first; synthetic (hash other) in elsewhere."
    ]


def test_differences_are_sentences(tmp_path: Path) -> None:
    first = made(tmp_path / "first")
    other = made(
        tmp_path / "other",
        settings={"optimisation": {"epochs": 9, "learning_rate": 0.005}, "modalities": ["speech+text"], "new": 1},
        seeds=[0, 1],
        versions={"torch": "2.13.0"},
    )
    assert settings_that_differ([first, other]) == ["optimisation.epochs", "new"]
    assert differences([first, other]) == [
        "The list of seeds differs: 0 in first; 0, 1 in other.",
        "The setting optimisation.epochs differs: 6 in first; 9 in other.",
        "The setting new differs: not recorded in first; 1 in other.",
        "The version of ray differs: 2.59.0 in first; not recorded in other.",
    ]


def test_studies_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    pair = [made(tmp_path / place / "study") for place in ("a", "b")]
    assert side_by_side(pair)["study"].unique().tolist() == [study.folder.uri for study in pair]


def test_a_study_without_runs_has_no_rows(tmp_path: Path) -> None:
    empty = load_study(studies.write_plan(tmp_path / "empty"))
    assert side_by_side([empty]).empty
    assert set(side_by_side([empty, made(tmp_path / "s")])["study"]) == {"s"}


def test_the_command_prints_both_and_writes_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = made(tmp_path / "first"), made(tmp_path / "second", seeds=[0, 1])
    csv = tmp_path / "both.csv"

    assert main(["studies", first.folder.uri, second.folder.uri, "--csv", str(csv)]) == 0

    said = capsys.readouterr().out
    assert "first   ERM" in said and "second  ERM" in said and "only such rows may be compared" in said
    assert "· The list of seeds differs: 0 in first; 0, 1 in second." in said
    assert f"{100 * first.configurations['dev_w_f1'].iloc[0]:.1f}" in said
    assert pd.read_csv(csv)["dev_w_f1"].max() < 1
    assert f"· {studies.NOTE}" in said and GAP_OF_MEANS_NOTE not in said
    assert (
        main(["studies", first.folder.uri, second.folder.uri, "--csv", str(csv), "--class-average", "gap_of_means"])
        == 0
    )
    assert f"· {GAP_OF_MEANS_NOTE}" in capsys.readouterr().out
    of_means = load_study(first.folder, "gap_of_means").configurations["dev_gap"].tolist()
    assert pd.read_csv(csv).query("study == 'first'")["dev_gap"].tolist() == pytest.approx(of_means)
    assert main(["studies", str(tmp_path)]) == 2 and "no study at" in capsys.readouterr().err
