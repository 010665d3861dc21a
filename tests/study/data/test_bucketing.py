"""Buckets by length: every example once, within the budget, as many on every rank."""

from __future__ import annotations

import numpy as np
import pytest

from study.data.bucketing import cut, deal, padded_tokens
from study.data.samplers import balanced_batches


@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("overhead", [None, 0, 200])
@pytest.mark.parametrize(("most", "tokens"), [(64, None), (5, None), (64, 900), (7, 900), (64, 50)])
def test_every_example_once_within_the_budget_and_alike_on_every_rank(num_workers, overhead, most, tokens):
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 400, 300)
    (batch,) = balanced_batches(rng.integers(0, 6, 300), 64, rng)[:1]
    shares = deal(batch, lengths, num_workers)
    assert [len(share) for share in shares] == [64 // num_workers] * num_workers
    plans = cut(shares, lengths, most, tokens, overhead)
    sizes = [[[len(bucket) for bucket in buckets] for buckets in passes] for passes in plans]
    assert all(own == sizes[0] for own in sizes)
    everyone = [bucket for passes in plans for buckets in passes for bucket in buckets]
    assert sorted(np.concatenate(everyone)) == sorted(batch)  # so as balanced as it was
    for passes in plans:
        for buckets in passes:
            held = sum(map(len, buckets))
            assert held <= most and (held == 1 or padded_tokens([buckets], lengths) <= (tokens or np.inf))


def test_buckets_pad_less_by_hand():
    lengths = np.array([10, 90, 12, 88])
    assert padded_tokens([[np.arange(4)]], lengths) == 4 * 90
    (passes,) = cut([np.arange(4)], lengths, most=4, tokens=None, overhead=50)
    assert [[bucket.tolist() for bucket in buckets] for buckets in passes] == [[[0, 2], [3, 1]]]
    assert padded_tokens(passes, lengths) == 2 * 12 + 2 * 90
    (passes,) = cut([np.arange(4)], lengths, most=4, tokens=None, overhead=200)  # 360 + 200 < 204 + 400
    assert [len(buckets) for buckets in passes] == [1]


def test_a_pass_holds_as_many_buckets_as_fit():
    lengths = np.array([10, 90, 12, 88])
    (passes,) = cut([np.arange(4)], lengths, most=4, tokens=203, overhead=50)
    assert [[bucket.tolist() for bucket in buckets] for buckets in passes] == [[[0, 2]], [[3, 1]]]


def test_ranks_share_one_plan_that_holds_for_the_longest():
    plans = cut([np.array([0, 1]), np.array([2, 3])], np.array([10, 10, 100, 100]), most=2, tokens=100, overhead=None)
    assert [[[b.tolist() for b in buckets] for buckets in own] for own in plans] == [[[[0]], [[1]]], [[[2]], [[3]]]]


def test_dealing_by_length_leaves_no_rank_waiting():
    lengths = np.random.default_rng(1).lognormal(4.5, 0.6, 640).astype(int)
    gained = []
    for start in range(0, 640, 64):
        rows = np.arange(start, start + 64)
        dealt, drawn = deal(rows, lengths, 4), [rows[rank::4] for rank in range(4)]
        work = [max(padded_tokens(own, lengths) for own in cut(s, lengths, 64, None, 100)) for s in (dealt, drawn)]
        gained.append(work[1] / work[0])
    assert np.mean(gained) > 1.02
