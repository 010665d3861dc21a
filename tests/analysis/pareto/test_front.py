"""The front and the data of its figures, on hand-made points."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.loading.study import Study, load_study
from analysis.pareto.front import front, hypervolume
from analysis.plots.pareto import cells_info, pareto_info
from analysis.stats.permutation import NoiseFloor
from tests.analysis import studies


def points(*rows: tuple[float, float | None], complete: tuple[bool, ...] | None = None) -> pd.DataFrame:
    """Return configurations with these (dev W-F1, dev gap)."""
    table = pd.DataFrame(rows, columns=["dev_w_f1", "dev_gap"]).astype(float)
    return table.assign(complete=list(complete or [True] * len(rows)))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0.6, 0.10), (0.5, 0.05), (0.55, 0.12)], [True, True, False]),
        ([(0.6, 0.10), (0.6, 0.10), (0.5, 0.20)], [True, True, False]),  # identical points
        ([(0.6, 0.10), (0.6, 0.08)], [False, True]),  # the same W-F1, a smaller gap
        ([(0.6, 0.10), (0.5, 0.10)], [True, False]),  # the same gap, less W-F1
        ([(0.6, None), (0.5, 0.10)], [False, True]),  # an undefined gap
        ([(0.6, 0.1)], [True]),
    ],
)
def test_front(rows: list, expected: list[bool]) -> None:
    assert front(points(*rows))["on_front"].tolist() == expected


def test_incomplete_configuration_is_not_on_the_front_and_dominates_none() -> None:
    marked = front(points((0.9, 0.01), (0.6, 0.10), complete=(False, True)))
    assert marked["on_front"].tolist() == [False, True]


def test_front_without_candidates_is_empty() -> None:
    marked = front(points((0.6, None)))
    assert marked["on_front"].tolist() == [False]
    assert hypervolume(marked) == 0.0
    assert front(points()).empty


def test_front_does_not_depend_on_test_figures() -> None:
    rows = points((0.6, 0.10), (0.5, 0.05), (0.55, 0.12))
    lucky = rows.assign(test_w_f1=[0.1, 0.1, 0.99], test_gap=[0.4, 0.4, 0.0])
    assert front(lucky)["on_front"].tolist() == front(rows)["on_front"].tolist()


def test_hypervolume_by_hand() -> None:
    # up to (0, 0.5): 0.6 x 0.4 for the first, and 0.5 x 0.1 more for the second
    marked = front(points((0.6, 0.1), (0.5, 0.0), (0.4, 0.3)))
    assert hypervolume(marked) == pytest.approx(0.6 * 0.4 + 0.5 * 0.1)


def made_study(path: Path, seeds: tuple[int, ...] = (0,)) -> Study:
    folder = studies.write_plan(path, seeds)
    for number, (label, w_f1, gap) in enumerate([("ERM", 0.6, 0.1), (None, 0.5, 0.05), (None, 0.4, None)]):
        studies.write_trial(folder, number, f"c{number}", label, {"loss.fairness_weight.schedule": "linear"})
        for seed in seeds:
            studies.write_run(folder, f"c{number}", seed, studies.figures(w_f1, gap), studies.figures(w_f1 - 0.1, gap))
    return load_study(folder)


def test_pareto_info_has_points_and_text(tmp_path: Path) -> None:
    info = pareto_info(made_study(tmp_path / "s"), NoiseFloor(0.04, 0.02, 0.07, 200, 0, 0.5))

    assert info.points["name"].tolist() == ["ERM", "trial 1"]  # trial 2 has no gap to draw
    assert info.points["dev_w_f1"].tolist() == pytest.approx([60, 50])
    assert info.points["dev_gap"].tolist() == pytest.approx([10, 5])
    assert info.points["test_w_f1"].tolist() == pytest.approx([50, 40])
    assert info.points["family"].tolist() == ["ERM", "linear"]
    assert info.floor == pytest.approx((2, 4, 7))
    assert "synthetic" in info.title
    assert "3 configurations" in info.subtitle
    assert "one seed each: differences of this size may be noise" in info.subtitle
    assert "mean 4.0, 2.0 to 7.0 in 90 % of 200 permutations" in info.caption
    assert studies.NOTE in info.caption


def test_pareto_info_names_means_over_seeds(tmp_path: Path) -> None:
    info = pareto_info(made_study(tmp_path / "s", seeds=(0, 1, 2)))
    assert "means of 3 seeds" in info.subtitle and "noise" not in info.caption


def test_crowded_figure_has_test_points_of_named_configurations_only(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s")
    for number in range(17):
        label, method = {3: ("ERM", "erm"), 5: ("group DRO", "group_dro"), 7: (None, "v_rex")}.get(number, (None, None))
        hyperparameters = {"loss.method": method} if method else {}
        studies.write_trial(folder, number, f"c{number:02d}", label, hyperparameters)
        figures = studies.figures(0.6 - 0.01 * number, 0.1)
        studies.write_run(folder, f"c{number:02d}", 0, figures, figures)

    info = pareto_info(load_study(folder))

    assert info.test_of_named_only and "front, ERM, paper and comparison methods on test" in info.caption
    assert "Small markers: all other" in info.caption
    assert info.points.loc[info.points["named"], "name"].tolist() == ["trial 0", "ERM", "group DRO"]


def test_cells_info_has_points_floor_and_front_of_each_cell(tmp_path: Path) -> None:
    folder = studies.write_plan(tmp_path / "s", seeds=(0, 1), modalities=["speech"])
    by_cell = {  # trial 1 is worse than ERM in en and better in de
        "aa": {"en/speech": (0.60, 0.10), "de/speech": (0.30, 0.20)},
        "bb": {"en/speech": (0.50, 0.12), "de/speech": (0.40, 0.10)},
    }
    for number, (config_id, cells) in enumerate(by_cell.items()):
        studies.write_trial(folder, number, config_id, "ERM" if config_id == "aa" else None)
        for seed in (0, 1):
            dev = studies.figures(0.4 + 0.1 * number, 0.2 - 0.1 * number)  # over all cells trial 1 beats ERM
            shift = 0.01 if seed else -0.01
            dev["cells"] = {
                name: next(iter(studies.figures(w_f1 + shift, gap)["cells"].values()))
                for name, (w_f1, gap) in cells.items()
            }
            studies.write_run(folder, config_id, seed, dev, dev)

    info = cells_info(load_study(folder), {"en/speech": NoiseFloor(0.04, 0.02, 0.07, 200, 0, 0.5)})

    assert info.sizes == {"en/speech": (30, 28), "de/speech": (30, 28)}
    assert info.floors == {"en/speech": pytest.approx((2, 4, 7))}
    points = info.points.set_index(["cell", "name"])
    assert points.loc[("en/speech", "trial 1"), ["dev_w_f1", "dev_gap"]].tolist() == pytest.approx([50, 12])
    assert points["on_front"].to_dict() == {key: key[1] == "trial 1" for key in points.index}
    assert points["on_cell_front"].to_dict() == {
        ("en/speech", "ERM"): True, ("en/speech", "trial 1"): False,
        ("de/speech", "ERM"): False, ("de/speech", "trial 1"): True,
    }  # fmt: skip
