"""Buckets by length: every example once, within the limits, equally many on every worker."""

from __future__ import annotations

import numpy as np
import pytest

from study.data.bucketing import distribute, make_micro_batches, padded_tokens
from study.data.samplers import balanced_batches


@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("overhead", [None, 0, 200])
@pytest.mark.parametrize(("max_examples", "max_tokens"), [(64, None), (5, None), (64, 900), (7, 900), (64, 50)])
def test_every_example_once_within_limits_and_equal_sizes_on_all_workers(
    num_workers, overhead, max_examples, max_tokens
):
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 400, 300)
    (batch,) = balanced_batches(rng.integers(0, 6, 300), 64, rng)[:1]
    shares = distribute(batch, lengths, num_workers)
    assert [len(share) for share in shares] == [64 // num_workers] * num_workers
    plans = make_micro_batches(shares, lengths, max_examples, max_tokens, overhead)
    sizes = [[[len(bucket) for bucket in buckets] for buckets in micro_batches] for micro_batches in plans]
    assert all(of_worker == sizes[0] for of_worker in sizes)
    all_buckets = [bucket for micro_batches in plans for buckets in micro_batches for bucket in buckets]
    assert sorted(np.concatenate(all_buckets)) == sorted(batch)
    for micro_batches in plans:
        for buckets in micro_batches:
            examples = sum(map(len, buckets))
            assert examples <= max_examples and (
                examples == 1 or padded_tokens([buckets], lengths) <= (max_tokens or np.inf)
            )


def test_buckets_reduce_padding():
    lengths = np.array([10, 90, 12, 88])
    assert padded_tokens([[np.arange(4)]], lengths) == 4 * 90
    (micro_batches,) = make_micro_batches([np.arange(4)], lengths, max_examples=4, max_tokens=None, overhead=50)
    assert [[bucket.tolist() for bucket in buckets] for buckets in micro_batches] == [[[0, 2], [3, 1]]]
    assert padded_tokens(micro_batches, lengths) == 2 * 12 + 2 * 90
    (micro_batches,) = make_micro_batches(
        [np.arange(4)], lengths, max_examples=4, max_tokens=None, overhead=200
    )  # 360 + 200 < 204 + 400
    assert [len(buckets) for buckets in micro_batches] == [1]


def test_micro_batch_has_as_many_buckets_as_fit():
    lengths = np.array([10, 90, 12, 88])
    (micro_batches,) = make_micro_batches([np.arange(4)], lengths, max_examples=4, max_tokens=203, overhead=50)
    assert [[bucket.tolist() for bucket in buckets] for buckets in micro_batches] == [[[0, 2]], [[3, 1]]]


def test_all_workers_use_one_plan_for_the_longest_examples():
    plans = make_micro_batches(
        [np.array([0, 1]), np.array([2, 3])],
        np.array([10, 10, 100, 100]),
        max_examples=2,
        max_tokens=100,
        overhead=None,
    )
    assert [[[b.tolist() for b in buckets] for buckets in of_worker] for of_worker in plans] == [
        [[[0]], [[1]]],
        [[[2]], [[3]]],
    ]


def test_distribution_by_length_balances_work():
    lengths = np.random.default_rng(1).lognormal(4.5, 0.6, 640).astype(int)
    speedups = []
    for start in range(0, 640, 64):
        rows = np.arange(start, start + 64)
        sorted_shares, plain_shares = distribute(rows, lengths, 4), [rows[rank::4] for rank in range(4)]
        work = [
            max(padded_tokens(own, lengths) for own in make_micro_batches(s, lengths, 64, None, 100))
            for s in (sorted_shares, plain_shares)
        ]
        speedups.append(work[1] / work[0])
    assert np.mean(speedups) > 1.02
