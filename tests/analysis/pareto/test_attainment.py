"""Attainment surfaces, front probabilities and hypervolume histories, on hand-made points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.loading.study import Study, load_study
from analysis.pareto.attainment import LEVELS, attainment, hypervolume_history, probability_nondominated, surfaces
from analysis.pareto.front import front, hypervolume
from analysis.report.search_sections import stability_sections
from tests.analysis import studies
from tests.analysis.contexts import report_context


def study_of(path: Path, by_seed: Sequence[Sequence[tuple[float, float]]], **plan: object) -> Study:
    """Return a study; ``by_seed[s][c]`` is (dev W-F1, dev gap) of configuration c with seed s."""
    folder = studies.write_plan(path, seeds=range(len(by_seed)), **plan)
    for number in range(len(by_seed[0])):
        studies.write_trial(folder, number, f"c{number}")
        for seed, points in enumerate(by_seed):
            studies.write_run(folder, f"c{number}", seed, studies.figures(*points[number]), studies.figures(0.1, 0.1))
    return load_study(folder)


def test_surfaces_of_two_seeds_are_union_and_intersection(tmp_path: Path) -> None:
    corners_by_level = attainment(study_of(tmp_path / "s", [[(0.6, 0.10), (0.5, 0.05)], [(0.7, 0.12), (0.4, 0.05)]]))
    corners = {level: rows[["gap", "w_f1"]].to_numpy() for level, rows in corners_by_level.groupby("level")}

    for level in (25.0, 50.0):  # one of the two seeds suffices
        np.testing.assert_allclose(corners[level], [[0.05, 0.5], [0.10, 0.6], [0.12, 0.7]])
    # both seeds: W-F1 0.4 from a gap of 0.05 on, and min(0.6, 0.7) from 0.12 on
    np.testing.assert_allclose(corners[75.0], [[0.05, 0.4], [0.12, 0.6]])


FIGURE = st.integers(0, 10).map(lambda x: x / 16)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(FIGURE, FIGURE), min_size=1, max_size=3), min_size=2, max_size=6),
    FIGURE,
    FIGURE,
    st.randoms(use_true_random=False),
)
def test_surface_bounds_what_enough_seeds_attain(by_seed: list, w_f1: float, gap: float, random: Random) -> None:
    rows = [(seed, *point) for seed, points in enumerate(by_seed) for point in points]
    random.shuffle(rows)
    table = surfaces(pd.DataFrame(rows, columns=["seed", "w_f1", "gap"]))
    attained = np.mean([any(w >= w_f1 and g <= gap for w, g in points) for points in by_seed])

    for level in LEVELS:
        corners = table[table["level"] == level]
        inside = ((corners["gap"] <= gap) & (corners["w_f1"] >= w_f1)).any()
        assert inside == (100 * attained >= level - 1e-9)


def test_one_seed_has_no_surfaces(tmp_path: Path) -> None:
    corners_by_level = attainment(study_of(tmp_path / "s", [[(0.6, 0.10), (0.5, 0.05)]]))
    assert corners_by_level.empty and list(corners_by_level) == ["level", "gap", "w_f1"]


def test_hypervolume_history_by_hand(tmp_path: Path) -> None:
    study = study_of(tmp_path / "s", [[(0.6, 0.1), (0.4, 0.3), (0.5, 0.0)]] * 2, parallelism={"num_workers": 3})
    history = hypervolume_history(study)

    assert history["n_trials"].tolist() == [1, 2, 3]
    assert history["hours"].tolist() == pytest.approx([3 * 20 * n / 3600 for n in (1, 2, 3)])  # two seeds of 10 s
    assert history["hypervolume"].tolist() == pytest.approx([0.24, 0.24, 0.29])
    assert history["hypervolume"].iloc[-1] == pytest.approx(hypervolume(front(study.configurations)))


def test_failed_and_unfinished_trials_are_excluded(tmp_path: Path) -> None:
    study_of(tmp_path / "s", [[(0.6, 0.10)], [(0.6, 0.10)]])
    folder = load_study(str(tmp_path / "s")).folder
    studies.write_trial(folder, 1, "half")
    studies.write_run(folder, "half", 0, studies.figures(0.9, 0.0), studies.figures(0.9, 0.0))
    studies.write_trial(folder, 2, "bad", reason="no memory")
    study = load_study(folder)

    assert len(hypervolume_history(study)) == 1
    assert set(attainment(study)["w_f1"]) == {0.6}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return a study of eight configurations with decreasing accuracy and gap, and three seeds."""
    folder = studies.write_whole_study(tmp_path_factory.mktemp("made") / "s", per_cell=60, speakers=12, seeds=range(3))
    return load_study(folder)


def test_probability_of_being_on_the_front(whole: Study) -> None:
    table = probability_nondominated(whole, resamples=200)

    assert table["config_id"].tolist() == whole.configurations["config_id"].tolist()
    assert table["on_front"].tolist() == front(whole.configurations)["on_front"].tolist()
    assert table["probability"].between(0, 1).all() and (table["resamples"] == 200).all()
    assert table["probability"].sum() >= 1  # every resample has a front
    inner, outer = (table.loc[table["on_front"] == on, "probability"].mean() for on in (False, True))
    assert outer > inner
    again = probability_nondominated(whole, resamples=200)
    assert table.equals(again)
    assert not table["probability"].equals(probability_nondominated(whole, resamples=200, seed=1)["probability"])


def test_gap_bias_is_positive_and_larger_for_small_gaps(whole: Study) -> None:
    table = probability_nondominated(whole, resamples=200).merge(whole.configurations[["config_id", "dev_gap"]])
    assert (table["gap_bias"] > 0).all()
    small, large = table.nsmallest(3, "dev_gap"), table.nlargest(3, "dev_gap")
    assert small["gap_bias"].mean() > large["gap_bias"].mean()


def test_identical_configurations_have_equal_probabilities(tmp_path: Path) -> None:
    """Resamples are shared: with separate ones, identical configurations would dominate each other at times."""
    folder = studies.write_whole_study(tmp_path / "s", per_cell=40, speakers=12, seeds=range(3), configurations=3)
    first, second = sorted(folder.names("runs"))[:2]
    for seed in range(3):
        for name in ("predictions.parquet", "finished.json"):
            data = folder.read_bytes(f"runs/{first}/{seed}/{name}").replace(first.encode(), second.encode())
            folder.write_bytes(f"runs/{second}/{seed}/{name}", data)
    table = probability_nondominated(load_study(folder), resamples=100)
    assert table["probability"].iloc[0] == table["probability"].iloc[1]
    assert table["probability"].iloc[0] > 0


def test_outermost_layers_are_resampled_if_there_are_many_configurations(whole: Study) -> None:
    on_front = int(front(whole.configurations)["on_front"].sum())
    few = probability_nondominated(whole, resamples=20, most=on_front)
    assert few["on_front"].tolist() == [True] * on_front and on_front < len(whole.configurations)


def test_resamples_without_a_gender_are_dropped_and_counted(tmp_path: Path) -> None:
    """With one speaker per gender and language, hardly any resample contains all six."""
    study = load_study(studies.write_whole_study(tmp_path / "s", per_cell=20, speakers=1, configurations=2))
    table = probability_nondominated(study, resamples=10)  # warnings are errors here
    assert (table["resamples"] == 0).all() and table["probability"].isna().all()
    (section,) = stability_sections(report_context(study, resamples=10))
    assert "In 10 draws some cell had one gender only" in section.text


def test_no_eligible_configuration_gives_no_probability(tmp_path: Path) -> None:
    table = probability_nondominated(load_study(studies.write_plan(tmp_path / "s")))
    assert table.empty and "probability" in table
