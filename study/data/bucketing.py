"""Distribute a global batch over workers and split it into micro-batches and buckets, without changing the result.

A *bucket* is one forward pass over examples of similar length, so that little padding is computed. A *micro-batch* is
one or more buckets that are in memory together between forward and backward. All workers have equally many buckets and
micro-batches of the same sizes, as ZeRO-3 needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OVERHEAD = 256
"""Cost of one more bucket, in tokens: kernel launches, and the lower efficiency of small matrices."""

MicroBatches = list[list[np.ndarray]]
"""Rows of one worker: micro-batches of buckets."""


def distribute(rows: np.ndarray, lengths: np.ndarray, num_workers: int) -> list[np.ndarray]:
    """Distribute a global batch over workers: equally many examples each, with similar lengths.

    Args:
        rows: (B,) examples.
        lengths: (n,) tokens of each example.

    >>> [share.tolist() for share in distribute(np.array([0, 1, 2, 3]), np.array([9, 2, 3, 8]), 2)]
    [[1, 3], [2, 0]]
    """
    if num_workers > 1:
        rows = rows[np.argsort(lengths[rows], kind="stable")]
    return [rows[rank::num_workers] for rank in range(num_workers)]


def make_micro_batches(
    shares: Sequence[np.ndarray], lengths: np.ndarray, max_examples: int, max_tokens: int | None, overhead: int | None
) -> list[MicroBatches]:
    """Split each worker's share into micro-batches of buckets, with the least cost of padding and buckets.

    Args:
        shares: rows of each worker, equally many.
        lengths: (n,) tokens of each example.
        max_examples: of a micro-batch.
        max_tokens: of a micro-batch, padding included; None for no limit. A single example may have more.
        overhead: of a bucket, in tokens; None for micro-batches of one bucket, as large as possible.

    >>> lengths = np.array([10, 100, 20, 50, 20])
    >>> (micro_batches,) = make_micro_batches([np.arange(5)], lengths, 64, max_tokens=None, overhead=30)
    >>> [[bucket.tolist() for bucket in buckets] for buckets in micro_batches]
    [[[0, 2, 4], [3], [1]]]
    >>> (micro_batches,) = make_micro_batches([np.arange(5)], lengths, 64, max_tokens=120, overhead=None)
    >>> [[bucket.tolist() for bucket in buckets] for buckets in micro_batches]
    [[[0, 2, 4]], [[3]], [[1]]]
    """
    ordered = [share[np.argsort(lengths[share], kind="stable")] for share in shares]
    longest = np.max([lengths[share] for share in ordered], axis=0)  # over workers, so that one plan is valid for all
    limit = max_tokens or len(longest) * int(longest[-1])
    bucket_cost = limit * len(longest) if overhead is None else min(overhead, limit * len(longest))
    micro_batches: list[list[slice]] = []
    for bucket in _cheapest_buckets(longest, max_examples, limit, float(bucket_cost)):
        joined = [*micro_batches[-1], bucket] if micro_batches and overhead is not None else []
        tokens = sum((b.stop - b.start) * int(longest[b.stop - 1]) for b in joined)
        if joined and tokens <= limit and bucket.stop - joined[0].start <= max_examples:
            micro_batches[-1] = joined
        else:
            micro_batches.append([bucket])
    return [[[share[bucket] for bucket in buckets] for buckets in micro_batches] for share in ordered]


def padded_tokens(micro_batches: MicroBatches, lengths: np.ndarray) -> int:
    """Return the tokens that the forward passes compute, padding included."""
    return sum(len(bucket) * int(lengths[bucket].max()) for buckets in micro_batches for bucket in buckets)


def _cheapest_buckets(longest: np.ndarray, max_examples: int, limit: int, bucket_cost: float) -> list[slice]:
    """Return the cheapest partition of ascending lengths, by dynamic programming over where a bucket ends."""
    count = len(longest)
    cost = np.zeros(count + 1)
    starts = np.zeros(count + 1, dtype=int)
    for end in range(1, count + 1):
        sizes = np.arange(1, min(end, max_examples) + 1)
        padded = sizes * int(longest[end - 1])
        possible = (padded <= limit) | (sizes == 1)
        total = np.where(possible, cost[end - sizes] + bucket_cost + padded, np.inf)
        cost[end], starts[end] = total.min(), end - sizes[total.argmin()]
    buckets = []
    end = count
    while end:
        buckets.append(slice(int(starts[end]), end))
        end = int(starts[end])
    return buckets[::-1]
