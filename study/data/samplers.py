"""Batches of one epoch: natural, balanced or weighted by group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from study.common.groups import UNKNOWN_GROUP
from study.losses.base import Sampling


def batches_of_epoch(
    sampling: Sampling, groups: np.ndarray, batch_size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The batches of one epoch, len(groups) // batch_size of them, each (batch_size,) positions.

    Args:
        groups: (n,) group of each example.
    """
    if sampling == "natural":
        return natural_batches(len(groups), batch_size, rng)
    return {"balanced": balanced_batches, "weighted": weighted_batches}[sampling](groups, batch_size, rng)


def natural_batches(n: int, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One epoch in random order, in whole batches; the rest of fewer than ``batch_size`` is left for another epoch."""
    order = rng.permutation(n)
    return [order[i : i + batch_size] for i in range(0, n - batch_size + 1, batch_size)]


def balanced_batches(groups: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """As many batches as a natural epoch has, each with the same number of every (cell, gender) group.

    Small groups are repeated, large ones are not used up; both are walked in random order without replacement until
    exhausted. Examples of unknown gender keep their natural share. Where ``batch_size`` does not divide, the groups
    that get one more are drawn anew for each batch.
    """
    known = np.unique(groups[groups >= 0])
    unknown = np.flatnonzero(groups == UNKNOWN_GROUP)
    walks = {group: _endless(np.flatnonzero(groups == group), rng) for group in known}
    others = _endless(unknown, rng)
    batches = []
    for _ in range(len(groups) // batch_size):
        n_unknown = int(rng.binomial(batch_size, len(unknown) / len(groups)))
        share, more = divmod(batch_size - n_unknown, len(known))
        lucky = set(rng.permutation(known)[:more].tolist())
        batch = [next(others) for _ in range(n_unknown)]
        for group in known:
            batch += [next(walks[group]) for _ in range(share + (group in lucky))]
        batches.append(rng.permutation(np.array(batch)))
    return batches


def weighted_batches(groups: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Independent draws with replacement, every (cell, gender) group with the same probability (ours to compare with).

    Unlike in ``balanced_batches``, the groups of one batch have different sizes, and one may be absent. Examples of
    unknown gender keep their natural share.
    """
    known = groups >= 0
    sizes = np.bincount(groups[known], minlength=1)
    probability = np.full(len(groups), 1.0 / len(groups))
    probability[known] = known.mean() / (np.count_nonzero(sizes) * sizes[groups[known]])
    n_batches = len(groups) // batch_size
    return list(rng.choice(len(groups), size=(n_batches, batch_size), p=probability))


def _endless(members: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(members).tolist()
