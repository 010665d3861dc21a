"""Both objectives against ERM in one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.comparison.arms import adjusted, arms, arms_table
from analysis.comparison.paired import compare
from analysis.loading.study import load_study
from analysis.report.context import compare_with
from analysis.report.html import Table
from analysis.report.sections import comparison_sections
from analysis.stats.bootstrap import holm
from tests.analysis import studies
from tests.analysis.contexts import report_context


def test_both_objectives_of_every_arm(tmp_path: Path) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", 40, 12, seeds=(0, 1), configurations=4))
    comparison = compare(study, split="test", resamples=60)
    found = arms(comparison).set_index("name")

    assert list(found.index) == ["ERM", "paper's setting", "trial 2", "trial 3"]
    whole = study.configurations.set_index("name")
    assert found["w_f1"].to_dict() == pytest.approx(whole["test_w_f1"].to_dict())
    assert found["avg"].to_dict() == pytest.approx(whole["test_gap"].to_dict())
    for quantity in ("w_f1", "avg"):
        others = found.iloc[1:]
        differences = others[quantity] - found.loc["ERM", quantity]
        assert others[f"{quantity}_difference"].tolist() == pytest.approx(differences.tolist())
        assert others[f"{quantity}_holm"].tolist() == pytest.approx(holm(others[f"{quantity}_p"]).tolist())

    assert (others["avg_low"] == -others["avg_high"]).all() and (others["avg_high"] > 0).all()
    levels = found.iloc[1:]
    assert (levels["w_f1_low"] < levels["w_f1_difference"]).all()
    assert (levels["w_f1_difference"] < levels["w_f1_high"]).all()

    table = arms_table(comparison)
    assert table["", "configuration"].tolist() == list(found.index)
    assert table["AVG gap", "verdict"][0] == "" and "to" in table["AVG gap", "95 % null range"][1]


def test_an_arm_is_significant_only_if_holm_says_so(tmp_path: Path) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", 40, 12, seeds=(0, 1), configurations=4))
    comparison = compare(study, split="test", resamples=60)
    table = comparison.table.copy()
    rows = table.index[(table["scope"] == comparison.overall) & (table["quantity"] == "w_f1")]
    table.loc[rows, "p"] = [0.01, 0.03, 0.04]  # Holm over three: 0.03, 0.06, 0.06
    table.loc[rows, "verdict"] = "higher"
    found = adjusted(replace(comparison, table=table)).table
    assert found.loc[rows, "verdict"].tolist() == ["higher", "not significant", "not significant"]
    assert found.loc[rows, "p_holm"].tolist() == pytest.approx([0.03, 0.06, 0.06])
    others = found.index.difference(table.index[(table["scope"] == comparison.overall)])
    assert found.loc[others, "verdict"].equals(table.loc[others, "verdict"])


def test_a_report_has_one_verdict_on_an_arm(tmp_path: Path) -> None:
    study = load_study(studies.write_whole_study(tmp_path / "s", 40, 12, seeds=(0, 1), configurations=8))
    comparison = compare_with(study, "ERM", study.configurations["config_id"].tolist(), 60, 0)
    assert comparison is not None
    (section,) = comparison_sections(report_context(study, comparison=comparison))
    table, _, _, cells = section.blocks
    assert isinstance(table, Table) and isinstance(cells, Table)
    for quantity in ("W-F1", "AVG gap"):
        of = table.frame.set_index(("", "configuration"))[quantity].iloc[1:]
        below = cells.frame[(cells.frame["of"] == comparison.overall) & (cells.frame["quantity"] == quantity)]
        below = below.set_index("configuration")
        assert below["verdict"].to_dict() == of["verdict"].to_dict() and below["Holm"].to_dict() == of["Holm"].to_dict()


def test_without_gaps_there_is_one_objective(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 10, configurations=2)
    folder.write_parquet("utterances.parquet", folder.read_parquet("utterances.parquet").assign(gender="unknown"))
    table = arms_table(compare(load_study(folder), resamples=20))
    assert [name for name, _ in table.columns if name] == ["W-F1"] * 5
