"""The order by several objectives: what it must hold for any points, and one front worked by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.dominance import place

COORDINATES = st.integers(-50, 50).map(float)  # exact under shifts and powers of two, and with many ties


def clouds(least: int = 2, most: int = 3, unique: bool = False):
    """(n, d) points, n from 1 to 25."""
    return st.integers(least, most).flatmap(
        lambda d: st.lists(st.tuples(*[COORDINATES] * d), min_size=1, max_size=25, unique=unique).map(np.array)
    )


def positions(points):
    return np.array([place(points, i) for i in range(len(points))])


def dominators(points, i):
    """The indices of the points that are nowhere worse than point i and somewhere better."""
    return np.flatnonzero((points <= points[i]).all(axis=1) & (points < points[i]).any(axis=1))


def test_a_front_is_covered_before_it_is_filled():
    # scaled by the front's range: (0, 1) is first; (1, 0) farthest from it; (0.4, 0.4) has 0.52 to both, squared, and
    # (0.1, 0.8) 0.05 to the first; (0.9, 0.9) is dominated by (0.4, 0.4)
    points = np.array([[0.1, 0.8], [0.4, 0.4], [0.0, 1.0], [0.9, 0.9], [1.0, 0.0]])
    assert positions(points).tolist() == [3, 2, 0, 4, 1]


@given(clouds())
@settings(deadline=None)
def test_it_is_an_order_and_dominated_points_stand_behind(points):
    places = positions(points)
    assert sorted(places) == list(range(len(points)))
    for i in range(len(points)):
        assert all(places[j] < places[i] for j in dominators(points, i))


@given(clouds())
@settings(deadline=None)
def test_whoever_nothing_dominates_stands_before_all_others(points):
    free = [i for i in range(len(points)) if not len(dominators(points, i))]
    assert sorted(positions(points)[free]) == list(range(len(free)))


@given(clouds(unique=True), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_arrival_does_not_matter(points, random):
    shuffled = list(range(len(points)))
    random.shuffle(shuffled)
    assert positions(points[shuffled]).tolist() == positions(points)[shuffled].tolist()


@given(clouds(), st.integers(-4, 4), st.integers(-9, 9))
@settings(deadline=None)
def test_units_do_not_matter(points, power, shift):
    other = points.copy()
    other[:, 1] = 2.0**power * (other[:, 1] + shift)
    assert positions(other).tolist() == positions(points).tolist()


@given(st.lists(COORDINATES, min_size=1, max_size=25))
@settings(deadline=None)
def test_with_one_objective_it_is_plain_sorting(values):
    places = positions(np.array(values)[:, None])
    assert places.tolist() == np.argsort(np.argsort(values, kind="stable")).tolist()


@given(clouds(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
@settings(deadline=None)
def test_what_is_not_a_number_is_worst(points, odd, data):
    i = data.draw(st.integers(0, len(points) - 1))
    clean = np.delete(points, i, axis=0)
    points[i, 0] = odd
    places = positions(points)
    assert places[i] == len(points) - 1
    assert np.delete(places, i).tolist() == (positions(clean).tolist() if len(clean) else [])
