"""How an effective batch is dealt to ranks and cut into passes and buckets: who computes what, never what is computed.

A *bucket* is one forward pass over examples of like length, so that little is padded. A *pass* is what memory holds at
once between forward and backward: one or more buckets. Ranks go through the same number of each, of the same sizes, as
ZeRO-3 needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OVERHEAD = 256
"""What one more bucket costs, in tokens: its launches, and that small matrices are slow ones."""

Passes = list[list[np.ndarray]]
"""Rows of one rank: passes of buckets."""


def deal(rows: np.ndarray, lengths: np.ndarray, num_workers: int) -> list[np.ndarray]:
    """An effective batch over ranks, as many examples to each; with several, all get short and long ones alike.

    Args:
        rows: (B,) examples.  lengths: (n,) tokens of each example.

    >>> [share.tolist() for share in deal(np.array([0, 1, 2, 3]), np.array([9, 2, 3, 8]), 2)]
    [[1, 3], [2, 0]]
    """
    if num_workers > 1:
        rows = rows[np.argsort(lengths[rows], kind="stable")]
    return [rows[rank::num_workers] for rank in range(num_workers)]


def cut(
    shares: Sequence[np.ndarray], lengths: np.ndarray, most: int, tokens: int | None, overhead: int | None
) -> list[Passes]:
    """Each rank's share as passes of buckets, with the least padding that the overhead allows.

    Args:
        shares: rows of each rank, as many of each.  lengths: (n,) tokens of each example.
        most: examples of a pass.
        tokens: of a pass, padding included (a single example may have more); None for any number.
        overhead: of a bucket in tokens; None for passes of one bucket, as large as they may be.

    >>> lengths = np.array([10, 100, 20, 50, 20])
    >>> (passes,) = cut([np.arange(5)], lengths, most=64, tokens=None, overhead=30)
    >>> [[bucket.tolist() for bucket in buckets] for buckets in passes]
    [[[0, 2, 4], [3], [1]]]
    >>> (passes,) = cut([np.arange(5)], lengths, most=64, tokens=120, overhead=None)
    >>> [[bucket.tolist() for bucket in buckets] for buckets in passes]
    [[[0, 2, 4]], [[3]], [[1]]]
    """
    ordered = [share[np.argsort(lengths[share], kind="stable")] for share in shares]
    longest = np.max([lengths[share] for share in ordered], axis=0)  # over ranks, so that one plan is everyone's
    limit = tokens or len(longest) * int(longest[-1])
    alone = np.inf if overhead is None else overhead
    spans = _buckets(longest, most, limit, float(min(alone, limit * len(longest))))
    passes: list[list[slice]] = []
    for span in spans:
        together = [*passes[-1], span] if passes and overhead is not None else []
        held = sum((s.stop - s.start) * int(longest[s.stop - 1]) for s in together)
        if together and held <= limit and span.stop - together[0].start <= most:
            passes[-1] = together
        else:
            passes.append([span])
    return [[[share[span] for span in group] for group in passes] for share in ordered]


def padded_tokens(passes: Passes, lengths: np.ndarray) -> int:
    """Tokens that a forward pass over these buckets computes, padding included."""
    return sum(len(bucket) * int(lengths[bucket].max()) for buckets in passes for bucket in buckets)


def _buckets(longest: np.ndarray, most: int, limit: int, overhead: float) -> list[slice]:
    """The cheapest cut of lengths in rising order, by dynamic programming over where a bucket ends."""
    count = len(longest)
    cost = np.zeros(count + 1)
    begins = np.zeros(count + 1, dtype=int)
    for end in range(1, count + 1):
        sizes = np.arange(1, min(end, most) + 1)
        padded = sizes * int(longest[end - 1])
        possible = (padded <= limit) | (sizes == 1)
        total = np.where(possible, cost[end - sizes] + overhead + padded, np.inf)
        cost[end], begins[end] = total.min(), end - sizes[total.argmin()]
    spans = []
    while count:
        spans.append(slice(int(begins[count]), count))
        count = int(begins[count])
    return spans[::-1]
