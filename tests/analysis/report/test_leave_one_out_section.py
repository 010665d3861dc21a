"""Leave-one-out and add-one-in arms, each compared with its reference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.loading.study import Study, load_study
from analysis.report.build import write_report
from analysis.report.html import Picture, Table
from analysis.report.leave_one_out_section import (
    leave_one_out_comparisons,
    leave_one_out_info,
    leave_one_out_rows,
    leave_one_out_sections,
    leave_one_out_table,
)
from search_spaces.ablation_arms import FAMILIES, LEAVE_ONE_OUT
from tests.analysis import studies
from tests.analysis.contexts import report_context


def made(path: Path, labels: list[str]) -> Study:
    """A study whose arms are each four points less accurate than the one before."""
    folder = studies.write_plan(path, (0, 1))
    known = studies.utterances(per_cell=40, speakers=12)
    folder.write_parquet("utterances.parquet", known)
    for number, label in enumerate(labels):
        studies.write_trial(folder, number, f"c{number:02d}", label)
        for seed in (0, 1):
            answers = studies.predict(known, 0.7 - 0.04 * number, 0.2, seed=10 * number + seed)
            studies.write_predictions(folder, known, f"c{number:02d}", seed, answers)
    return load_study(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    labels = ["ERM", "paper's setting", "power 1", "ERM, balanced", "plain penalty", "plain penalty + max"]
    return made(tmp_path_factory.mktemp("made") / "s", labels)


def test_components_are_those_of_the_arm_families() -> None:
    assert set(LEAVE_ONE_OUT["paper's setting"]) | {"paper's setting"} == set(FAMILIES["leave-one-out"])
    assert set(LEAVE_ONE_OUT["plain penalty"]) | {"plain penalty", "ERM", "ERM, balanced"} == set(
        FAMILIES["add-one-in"]
    )
    words = [word for of in LEAVE_ONE_OUT.values() for word in of.values()]
    assert len(set(words)) == len(words)


def test_each_arm_is_compared_with_its_reference(study: Study) -> None:
    table = leave_one_out_rows(leave_one_out_comparisons(study, 60, 0)).set_index("name")

    assert list(table.index) == [
        "paper's setting", "without power 2", "without the penalty", "plain penalty", "with the maximum"
    ]  # fmt: skip
    assert table["arm"].dropna().to_dict() == {
        "without power 2": "power 1", "without the penalty": "ERM, balanced", "with the maximum": "plain penalty + max"
    }  # fmt: skip
    whole = study.configurations.set_index("label")
    for name, row in table.dropna(subset=["arm"]).iterrows():
        assert row["against"] == ("plain penalty" if name == "with the maximum" else "paper's setting")
        for quantity, figure in (("w_f1", "test_w_f1"), ("avg", "test_gap")):
            expected = whole.loc[row["arm"], figure] - whole.loc[row["against"], figure]
            assert row[f"{quantity}_difference"] == pytest.approx(expected)
            assert row[f"{quantity}_low"] < expected < row[f"{quantity}_high"]
    # Holm counts the two arms that one reference has, and the one of the other
    assert table.loc["with the maximum", "w_f1_holm"] == table.loc["with the maximum", "w_f1_p"]
    out = table.loc[["without power 2", "without the penalty"]]
    assert out["w_f1_holm"].min() == pytest.approx(min(1.0, 2 * out["w_f1_p"].min()))


def test_leave_one_out_has_one_table_and_one_forest_plot(study: Study) -> None:
    comparisons = leave_one_out_comparisons(study, 60, 0)
    info = leave_one_out_info(comparisons)
    assert info.names == ("without power 2", "without the penalty", "with the maximum")
    assert len(info.points) == 2 * 3
    assert "“without …” against paper's setting, “with …” against plain penalty" in info.subtitle
    shown = leave_one_out_table(comparisons)
    assert shown["", "arm"].tolist() == ["", "power 1", "ERM, balanced", "", "plain penalty + max"]
    (section,) = leave_one_out_sections(report_context(study, leave_one_out=comparisons))
    assert [type(block) for block in section.blocks] == [Table, Picture]


def test_report_contains_leave_one_out(study: Study) -> None:
    report = Path(write_report(study, 20, 20).html).parent
    assert "<h2>Ablation of single components on test</h2>" in (report / "report.html").read_text()
    assert pd.read_csv(report / "leave_one_out.csv")["arm"].dropna().tolist() == [
        "power 1", "ERM, balanced", "plain penalty + max"
    ]  # fmt: skip
    assert "without the penalty & ERM, balanced" in (report / "leave_one_out.tex").read_text()


def test_no_leave_one_out_without_its_arms(tmp_path: Path) -> None:
    assert leave_one_out_comparisons(made(tmp_path / "a", ["ERM", "paper's setting", "V-REx"]), 20, 0) == []
    one = leave_one_out_comparisons(
        made(tmp_path / "b", ["ERM", "plain penalty", "plain penalty + max", "power 1"]), 20, 0
    )
    assert [each.reference for each in one] == ["plain penalty"]
    assert pd.isna(leave_one_out_rows(one)["against"][0]) and leave_one_out_info(one).names == ("with the maximum",)
