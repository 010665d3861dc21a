"""What the forest plot shows, and that it can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.comparison.arms import adjusted
from analysis.comparison.paired import Comparison, adjust_over_cells, compare
from analysis.loading.study import load_study
from analysis.plots.forest import forest_figure, forest_info
from analysis.plots.style import render
from tests.analysis import studies


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = studies.write_whole_study(
        tmp_path_factory.mktemp("made") / "s", per_cell=80, speakers=12, seeds=(0, 1), configurations=4
    )
    return compare(load_study(folder), resamples=100)


def test_better_is_to_the_right_and_in_points(comparison: Comparison) -> None:
    info = forest_info(comparison)
    assert info.panels == ("W-F1 gained (points)", "W-F1 gap closed, common priors (points)")
    assert info.names == ("paper's setting", "trial 2", "trial 3")
    assert info.scopes == ("en/speech+text", "ja/speech+text", "de/speech+text", "multilingual/speech+text")
    assert len(info.points) == 2 * 3 * 4

    table = comparison.table[comparison.table["scope"] == "de/speech+text"].set_index(["quantity", "name"])
    points = info.points[info.points["scope"] == "de/speech+text"].set_index(["panel", "name"])
    gained, closed = (points.loc[(panel, "trial 3")] for panel in info.panels)
    level, gap = (table.loc[(quantity, "trial 3")] for quantity in ("w_f1", "standardised_w_f1"))
    assert gained[["low", "estimate", "high"]].tolist() == pytest.approx(
        [100 * level["low"], 100 * level["difference"], 100 * level["high"]]
    )
    assert closed[["low", "estimate", "high"]].tolist() == pytest.approx(
        [-100 * gap["high"], -100 * gap["difference"], -100 * gap["low"]]
    )
    assert (info.points["low"] <= info.points["estimate"]).all()


def test_arm_evaluated_in_other_cells_has_no_empty_row(comparison: Comparison) -> None:
    table = comparison.table[(comparison.table["name"] != "trial 2") | comparison.table["is_cell"]]
    some = replace(comparison, table=table)
    assert forest_info(some, scopes=(comparison.overall,)).names == ("paper's setting", "trial 3")
    assert forest_info(some).names == ("paper's setting", "trial 2", "trial 3")


def test_marker_is_filled_if_significant_after_holm(comparison: Comparison) -> None:
    table = comparison.table.assign(p=0.03, verdict="higher")  # of three cells Holm makes it 0.09
    table = adjust_over_cells(table, ["config_id", "quantity"])
    info = forest_info(replace(comparison, table=table), ("w_f1",))
    filled = info.points.groupby("scope")["significant"].unique()
    assert filled.map(list).to_dict() == {scope: [scope == comparison.overall] for scope in info.scopes}
    assert "(cells after Holm over those of a row; means by p alone)" in info.caption

    over_arms = adjusted(replace(comparison, table=table))  # of three arms as well
    info = forest_info(over_arms, ("w_f1",))
    assert not info.points["significant"].any()
    assert "(cells after Holm over those of a row; means over all cells after Holm over the rows)" in info.caption
    assert "(means over all cells after Holm" in forest_info(over_arms, ("avg",), (comparison.overall,)).caption


def test_reversed_and_larger_gap_is_crossed_out(comparison: Comparison) -> None:
    table = comparison.table.copy()
    row = (table["quantity"] == "standardised_w_f1") & (table["scope"] == "de/speech+text")
    table.loc[row, ["reference", "value"]] = [0.02, -0.08]
    table.loc[row, "verdict"] = "reduced (sign of the remaining gap uncertain)"
    info = forest_info(replace(comparison, table=table))

    crossed = info.points[info.points["overshot"] & (info.points["scope"] == "de/speech+text")]
    assert len(crossed) == 3 and crossed["significant"].all()  # the two gaps differ, whichever is the smaller
    marks = [line for axes in forest_figure(info).axes for line in axes.get_lines() if line.get_marker() == "x"]
    assert len(marks) == info.points["overshot"].sum()


def test_every_difference_has_a_line_and_texts_are_present(comparison: Comparison) -> None:
    info = forest_info(comparison, ("w_f1_male",), scopes=("de/speech+text",), names=("trial 3", "trial 2"))
    figure = forest_figure(info)
    (axes,) = figure.axes

    lines = [line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    drawn = [tuple(line.get_xdata()) for line in lines if line.get_xdata()[0] != line.get_xdata()[1]]
    assert sorted(drawn) == sorted(zip(info.points["low"], info.points["high"], strict=True))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["trial 3", "trial 2"]
    assert axes.get_yticks()[0] > axes.get_yticks()[1]
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "Against ERM, dev" in said and studies.NOTE in said and "95 % intervals over speakers" in said
    assert axes.get_xlabel() == "W-F1 of men gained (points)"
    assert render(forest_figure(info), "svg") == render(figure, "svg")


def test_bar_of_an_absolute_gap_is_the_permutation_null_range(comparison: Comparison) -> None:
    info = forest_info(comparison, ("avg",), scopes=("de/speech+text",))
    table = comparison.table
    (row,) = table[
        (table["quantity"] == "avg") & (table["scope"] == "de/speech+text") & (table["name"] == "trial 3")
    ].to_dict("records")
    point = info.points.set_index("name").loc["trial 3"]
    assert info.panels == ("AVG gap closed (points)",) and "Dashed" in info.caption
    assert point["estimate"] == pytest.approx(-100 * row["difference"])
    assert [point["low"], point["high"]] == pytest.approx([-100 * row["null_range"], 100 * row["null_range"]])
    assert (
        table.loc[table["kind"] != "absolute gap", "null_range"].isna().all()
        and "Dashed" not in forest_info(comparison).caption
    )


def test_empty_comparison_is_an_error(comparison: Comparison) -> None:
    with pytest.raises(ValueError, match="no row of nobody"):
        forest_info(comparison, names=("nobody",))


def test_command_writes_the_forest_plot(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 20, 12, configurations=2)
    assert main(["compare", folder.uri, "--resamples", "30", "--figure", str(tmp_path / "forest")]) == 0
    assert (tmp_path / "forest.png").read_bytes().startswith(b"\x89PNG") and (tmp_path / "forest.svg").exists()
