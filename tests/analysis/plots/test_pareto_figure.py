"""The drawing: what must be visible, and files that come whole and the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from analysis.loading.study import load_epochs, load_study
from analysis.plots.pareto import cells_figure, cells_info, pareto_figure, pareto_info
from analysis.plots.style import FAMILIES, render, save
from analysis.plots.training import training_figure, training_lines
from analysis.stats.permutation import NoiseFloor
from tests.analysis import studies

FLOOR = NoiseFloor(0.04, 0.02, 0.07, 200, 0, 0.5)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    return load_study(studies.write_whole_study(tmp_path_factory.mktemp("made") / "s", per_cell=30))


def words(figure) -> str:
    texts = [*figure.texts, *(t for axes in figure.axes for t in axes.texts)]
    texts += [t for legend in figure.legends for t in legend.get_texts()]
    return " ".join(t.get_text().replace("\n", " ") for t in texts)


def test_better_is_up_and_right_and_texts_are_present(study) -> None:
    figure = pareto_figure(pareto_info(study, FLOOR))
    axes = figure.axes[0]

    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert left > right and top > bottom
    said = words(figure)
    assert studies.NOTE in said
    for expected in ("ERM", "paper's setting", "noise floor", "one seed each", "constant weight", "cosine ramp"):
        assert expected in said
    assert "points" in axes.get_xlabel() and "points" in axes.get_ylabel()


def test_points_and_noise_floor_are_inside_the_axes(study) -> None:
    info = pareto_info(study, FLOOR)
    axes = pareto_figure(info).axes[0]
    left, right = axes.get_xlim()
    for column in ("dev_gap", "test_gap"):
        assert info.points[column].between(right, left).all()
    assert right < 2.0 and left > 7.0


def test_names_cover_no_marker(study) -> None:
    info = pareto_info(study)
    axes = pareto_figure(info).axes[0]
    boxes = [t.get_window_extent() for t in axes.texts]
    assert len(boxes) >= 4  # ERM, the paper's setting and some of the front
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    markers = axes.transData.transform(info.points[["dev_gap", "dev_w_f1"]].to_numpy(dtype=float))
    assert not any(box.contains(x, y) for box in boxes for x, y in markers)


def test_named_markers_are_larger_and_on_top_among_many(study) -> None:
    info = pareto_info(study)
    crowded = replace(info, test_of_named_only=True, points=info.points.assign(named=info.points["label"].notna()))
    at = {tuple(point): bool(named) for *point, named in info.points[["dev_gap", "dev_w_f1"]].assign(
        named=crowded.points["named"]).to_numpy().tolist()}  # fmt: skip
    drawn = [
        (at[tuple(point)], collection.get_sizes()[0], collection.get_zorder())
        for collection in pareto_figure(crowded).axes[0].collections
        for point in np.asarray(collection.get_offsets()).tolist()
        if tuple(point) in at
    ]
    assert len(drawn) == len(at)
    least, most = (
        pick(size for named, size, _ in drawn if named == which) for pick, which in ((min, True), (max, False))
    )
    assert least > 2 * most and {zorder for named, _, zorder in drawn if named} == {5}


def test_study_without_gaps_has_a_message(study) -> None:
    info = pareto_info(study)
    assert "no configuration has a gender gap" in words(pareto_figure(replace(info, points=info.points.iloc[:0])))


def test_one_point_and_an_unknown_family_can_be_drawn(study) -> None:
    info = pareto_info(study, FLOOR)
    one = replace(info, points=info.points.iloc[:1].assign(family="sawtooth"))
    assert "sawtooth" in words(pareto_figure(one))


def test_training_figure_has_one_line_per_configuration(study) -> None:
    figure = training_figure(training_lines(load_epochs(study)))
    assert [len(axes.get_lines()) for axes in figure.axes] == [8, 8, 8]
    gap_axis = figure.axes[1]
    assert gap_axis.get_ylim()[0] > gap_axis.get_ylim()[1]


def test_training_lines_average_seeds_up_to_the_shortest(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1))
    studies.write_trial(folder, 0, "aa")
    studies.write_run(folder, "aa", 0, studies.figures(0.6, 0.1), studies.figures(0.6, 0.1))
    studies.write_run(folder, "aa", 1, studies.figures(0.2, 0.1), studies.figures(0.2, 0.1), weights=(0.1,))

    lines = training_lines(load_epochs(load_study(folder)))

    assert lines["epoch"].tolist() == [1]
    assert lines["dev_w_f1"].tolist() == [pytest.approx(0.2)]  # the mean of 0.6 and 0.2, half of each after one epoch
    assert training_figure(lines).axes[0].get_lines()[0].get_xydata().tolist() == [[1, pytest.approx(20)]]


def test_equal_figures_give_equal_files(study, tmp_path: Path) -> None:
    info = pareto_info(study, FLOOR)
    png, svg = save(pareto_figure(info), str(tmp_path / "front"))

    assert Path(png).read_bytes().startswith(b"\x89PNG")
    assert Path(svg).read_bytes() == render(pareto_figure(info), "svg")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["front.png", "front.svg"]


def test_cells_figure_has_one_panel_per_cell_with_shared_axes(study) -> None:
    info = cells_info(study, {"de/speech+text": FLOOR})
    figure = cells_figure(info)

    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        f"{cell}/speech+text  (F 30, M 30)" for cell in ("en", "ja", "de")
    ]
    assert len({axes.get_xlim() for axes in figure.axes}) == len({axes.get_ylim() for axes in figure.axes}) == 1
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert info.points["dev_gap"].between(right, left).all() and info.points["dev_w_f1"].between(bottom, top).all()
    assert [len(axes.patches) for axes in figure.axes] == [0, 0, 1]  # the floor, where there is one


def test_a_long_subtitle_stays_inside_a_narrow_figure(study) -> None:
    info = cells_info(study, {})
    one = replace(info, points=info.points[info.points["cell"] == "de/speech+text"], sizes={"de/speech+text": (30, 30)})
    figure = cells_figure(replace(one, subtitle="a backbone at /a/long/path and words " * 4))
    left, right = figure.bbox.x0, figure.bbox.x1
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(left <= box.x0 and box.x1 <= right for box in boxes)
    title, subtitle = boxes[0], boxes[1]
    panel = figure.axes[0].title.get_window_extent()
    assert title.y0 >= subtitle.y1 and subtitle.y0 >= panel.y0


def test_families_differ_by_marker() -> None:
    markers = [marker for marker, _, _ in FAMILIES.values()]
    assert len(set(markers)) == len(markers) and len({colour for _, colour, _ in FAMILIES.values()}) == len(markers)


def test_training_lines_of_many_configurations_are_faint_but_complete(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s")
    for number in range(101):
        studies.write_trial(folder, number, f"c{number:02}", "ERM" if number == 0 else None)
        made = studies.figures(0.5 + number / 100, 0.1)
        studies.write_run(folder, f"c{number:02}", 0, made, made)

    axes = training_figure(training_lines(load_epochs(load_study(folder)))).axes[0]

    assert len(axes.get_lines()) == 1  # ERM
    thin = [collection for collection in axes.collections if isinstance(collection, LineCollection)]
    segments = [segment.tolist() for collection in thin for segment in collection.get_segments()]
    assert len(segments) == 100 and segments[0] == [[1, pytest.approx(25.5)], [2, pytest.approx(51)]]
    assert axes.get_ylim()[1] > 150 and thin[0].get_alpha() == pytest.approx(0.2)
    (ends,) = (collection for collection in axes.collections if collection not in thin)
    assert np.asarray(ends.get_offsets()).tolist() == [segment[-1] for segment in segments]  # a marker, read in grey
