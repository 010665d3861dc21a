"""MO-ASHA: ranks, rungs, decisions, and the runs of earlier calls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.common.errors import SettingsError
from study.search.mo_asha import MoAshaConfig, Rungs, multi_objective_rank, parse_early_stopping
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies

OBJECTIVES = [("dev_w_f1", "max"), ("dev_gap", "min")]
COORDINATES = st.integers(-50, 50).map(float)  # exact under shifts and powers of two, and with many ties
GRID_POINTS = st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float))


def clouds(min_objectives=2, max_objectives=3, unique=False):
    """Arrays of 1 to 25 points, (n, d)."""
    return st.integers(min_objectives, max_objectives).flatmap(
        lambda d: st.lists(st.tuples(*[COORDINATES] * d), min_size=1, max_size=25, unique=unique).map(np.array)
    )


def ranks(points):
    return np.array([multi_objective_rank(points, i) for i in range(len(points))])


def dominators(points, i):
    """Return the indices of the points that dominate point i."""
    return np.flatnonzero((points <= points[i]).all(axis=1) & (points < points[i]).any(axis=1))


def test_front_is_ordered_by_distance():
    # Scaled by the front's range: (0, 1) is first; (1, 0) is farthest from it; (0.4, 0.4) has squared distance 0.52 to
    # both, and (0.1, 0.8) has 0.05 to the first; (0.9, 0.9) is dominated by (0.4, 0.4).
    points = np.array([[0.1, 0.8], [0.4, 0.4], [0.0, 1.0], [0.9, 0.9], [1.0, 0.0]])
    assert ranks(points).tolist() == [3, 2, 0, 4, 1]


@given(clouds())
@settings(deadline=None)
def test_dominated_points_rank_after_their_dominators(points):
    order = ranks(points)
    assert sorted(order) == list(range(len(points)))
    for i in range(len(points)):
        assert all(order[j] < order[i] for j in dominators(points, i))


@given(clouds())
@settings(deadline=None)
def test_first_front_ranks_before_all_others(points):
    front = [i for i in range(len(points)) if not len(dominators(points, i))]
    assert sorted(ranks(points)[front]) == list(range(len(front)))


@given(clouds(unique=True), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_rank_does_not_depend_on_the_order_of_arrival(points, random):
    shuffled = list(range(len(points)))
    random.shuffle(shuffled)
    assert ranks(points[shuffled]).tolist() == ranks(points)[shuffled].tolist()


@given(clouds(), st.integers(-4, 4), st.integers(-9, 9))
@settings(deadline=None)
def test_rank_does_not_depend_on_units(points, power, shift):
    scaled = points.copy()
    scaled[:, 1] = 2.0**power * (scaled[:, 1] + shift)
    assert ranks(scaled).tolist() == ranks(points).tolist()


@given(st.lists(COORDINATES, min_size=1, max_size=25))
@settings(deadline=None)
def test_one_objective_is_sorted(values):
    assert ranks(np.array(values)[:, None]).tolist() == np.argsort(np.argsort(values, kind="stable")).tolist()


@given(clouds(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
@settings(deadline=None)
def test_point_that_is_not_finite_ranks_last(points, value, data):
    i = data.draw(st.integers(0, len(points) - 1))
    finite = np.delete(points, i, axis=0)
    points[i, 0] = value
    order = ranks(points)
    assert order[i] == len(points) - 1
    assert np.delete(order, i).tolist() == (ranks(finite).tolist() if len(finite) else [])


@given(st.lists(GRID_POINTS, min_size=1, max_size=30), st.integers(2, 5))
@settings(deadline=None)
def test_nondominated_configurations_continue_while_there_is_capacity(points, reduction_factor):
    rungs = Rungs(MoAshaConfig(reduction_factor=reduction_factor), epochs=2)
    for n, point in enumerate(points, start=1):
        decision = rungs.report(f"c{n}", 1, 0.0, point)
        reached = np.array(points[:n])
        front = sum(not len(dominators(reached, i)) for i in range(n))
        assert decision.reached == n and decision.capacity >= n / reduction_factor
        if not len(dominators(reached, n - 1)) and front <= decision.capacity:
            assert decision.continues


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30), st.integers(2, 5))
@settings(deadline=None)
def test_one_objective_is_plain_asha(values, reduction_factor):
    rungs = Rungs(MoAshaConfig(reduction_factor=reduction_factor), epochs=2)
    for n, value in enumerate(values, start=1):
        ahead = sum(other <= value for other in values[: n - 1])
        expected = ahead < -(-n // reduction_factor)
        assert rungs.report(f"c{n}", 1, 0.0, (float(value),)).continues == expected


@given(st.lists(GRID_POINTS, min_size=1, max_size=30), st.integers(2, 5))
@settings(deadline=None)
def test_one_in_reduction_factor_continues(points, reduction_factor):
    rungs = Rungs(MoAshaConfig(reduction_factor=reduction_factor), epochs=2)
    for n, point in enumerate(points):
        rungs.report(f"c{n}", 1, 0.0, point)
    repeated = [rungs.report(f"c{n}", 1, 0.0, point).continues for n, point in enumerate(points)]
    assert sum(repeated) == -(-len(points) // reduction_factor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("asha", "'asha' is unknown; choose none, mo-asha"),
        ("mo-asha:reduction_factor=1", "reduction_factor: "),
        ("mo-asha:grace_period=0", "grace_period: "),
        ("mo-asha:x=1", "x: "),
    ],
)
def test_invalid_early_stopping_is_an_error(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_early_stopping(text)


def test_runs_of_earlier_calls_count(tmp_path):
    folder = StudyFolder(str(tmp_path / "s"))
    rows = [{"epoch": e, "dev": {"w_f1": w, "gap": 0.1 * e}} for e, w in ((1, 0.3), (2, 0.5), (3, 0.4))]
    folder.write_jsonl(f"{run_directory('finished', 0)}/epochs.jsonl", rows)
    folder.write_json(f"{run_directory('finished', 0)}/finished.json", {})
    folder.write_jsonl(f"{run_directory('interrupted', 0)}/epochs.jsonl", rows[:2])
    folder.write_jsonl(f"{run_directory('other seed', 7)}/epochs.jsonl", rows)
    rungs = Rungs(MoAshaConfig(), epochs=20)
    rungs.load(StudyState(folder), 0, OBJECTIVES)
    first, second = (-0.3, 0.1), (-0.5, 0.2)
    assert rungs.reached == {
        1: {"finished": first, "interrupted": first},
        3: {"finished": second},
        9: {"finished": second},
    }
    rungs = Rungs(MoAshaConfig(), epochs=20)
    rungs.load(StudyState(folder), 0, [("dev_uar", "max"), ("dev_gap@de", "min")])  # not in these rows
    assert not any(rungs.reached.values())


def test_any_dev_metric_can_be_ranked(tmp_path):
    objectives = [("dev_worst_group_w_f1", "max"), ("dev_gap_tpr@de", "min")]
    folder = StudyFolder(str(tmp_path / "s"))
    dev = studies.figures(0.6, 0.1)
    dev["worst_group_w_f1"] = 0.25
    dev["cells"]["de/speech"] = {**dev["cells"]["en/speech+text"], "absolute": {"tpr": 0.5}}
    folder.write_jsonl(f"{run_directory('aa', 0)}/epochs.jsonl", [{"epoch": 1, "dev": dev}])
    rungs = Rungs(MoAshaConfig(), epochs=3)
    rungs.load(StudyState(folder), 0, objectives)
    assert rungs.reached == {1: {"aa": (-0.25, 0.5)}}
