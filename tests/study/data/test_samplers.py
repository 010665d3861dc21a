"""Natural, balanced and weighted batches."""

from __future__ import annotations

import numpy as np
import pytest

from study.data.samplers import SAMPLERS, balanced_batches, natural_batches, weighted_batches


def test_natural_batches_have_every_example_at_most_once():
    batches = natural_batches(np.zeros(10, dtype=int), 4, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [4, 4]
    assert len(set(np.concatenate(batches))) == 8


def test_balanced_batches_have_equal_groups():
    groups = np.array([0] * 50 + [1] * 6 + [2] * 20 + [3] * 20)
    batches = balanced_batches(groups, 16, np.random.default_rng(0))
    assert len(batches) == 96 // 16
    for batch in batches:
        assert np.bincount(groups[batch]).tolist() == [4, 4, 4, 4]
    # 6 batches take 24 of the small group: each of its six examples four times, none left out
    assert sorted(np.unique(np.concatenate([b[groups[b] == 1] for b in batches]), return_counts=True)[1]) == [4] * 6


def test_remainder_of_a_batch_is_assigned_at_random():
    groups = np.repeat([0, 1, 2], 100)
    counts = np.array([np.bincount(groups[b]) for b in balanced_batches(groups, 8, np.random.default_rng(0))])
    assert set(counts.ravel()) == {2, 3} and (counts.sum(axis=1) == 8).all()
    assert len({tuple(row) for row in counts}) == 3  # the smaller group changes


def test_unknown_genders_keep_their_natural_share():
    groups = np.array([0] * 300 + [1] * 300 + [-1] * 200)
    batches = balanced_batches(groups, 40, np.random.default_rng(0))
    share = np.mean(groups[np.concatenate(batches)] == -1)
    assert 0.18 < share < 0.32  # a quarter, within four standard errors


def test_weighted_batches_draw_groups_with_equal_probability():
    groups = np.array([0] * 700 + [1] * 100 + [3] * 400 + [-1] * 400)
    batches = weighted_batches(groups, 64, np.random.default_rng(0))
    assert len(batches) == 1600 // 64
    drawn = groups[np.concatenate([weighted_batches(groups, 64, np.random.default_rng(s)) for s in range(8)], None)]
    shares = [np.mean(drawn == group) for group in (0, 1, 3, -1)]  # a quarter of unknown gender, as in the data
    assert shares == pytest.approx([0.25] * 4, abs=0.015)  # 12,800 draws: four standard errors
    assert len({np.sum(groups[batch] == 1) for batch in batches}) > 5  # random, not fixed


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_batches_depend_on_the_seed(sampling):
    groups = np.repeat([0, 1], 40)
    one, same, other = (np.concatenate(SAMPLERS[sampling](groups, 8, np.random.default_rng(s))) for s in (1, 1, 2))
    assert (one == same).all() and (one != other).any() and len(one) == 80
