"""Batches of one epoch: natural, balanced or weighted by group.

To add a sampler, write a function and add a line to ``SAMPLERS`` and a name to ``study.losses.base.Sampling``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from study.common.groups import UNKNOWN_GROUP
from study.losses.base import Sampling

Sampler = Callable[[np.ndarray, int, np.random.Generator], list[np.ndarray]]
"""Takes the group of each example (n,), the batch size and a generator. Returns len(groups) // batch_size batches, each
(batch_size,) positions."""


def natural_batches(groups: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return all examples in random order, without a smaller last batch."""
    order = rng.permutation(len(groups))
    return [order[i : i + batch_size] for i in range(0, len(groups) - batch_size + 1, batch_size)]


def balanced_batches(groups: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return batches with the same number of examples of every (cell, gender) group.

    Small groups are repeated, and large ones are not exhausted. Each group is sampled in random order without
    replacement until it is exhausted, then again. Examples of unknown gender keep their natural share. If the batch
    size is not divisible by the number of groups, each batch draws the groups that get one more.
    """
    known = np.unique(groups[groups >= 0])
    unknown = np.flatnonzero(groups == UNKNOWN_GROUP)
    streams = {group: _cycle(np.flatnonzero(groups == group), rng) for group in known}
    unknown_stream = _cycle(unknown, rng)
    batches = []
    for _ in range(len(groups) // batch_size):
        n_unknown = int(rng.binomial(batch_size, len(unknown) / len(groups)))
        share, remainder = divmod(batch_size - n_unknown, len(known))
        with_one_more = set(rng.permutation(known)[:remainder].tolist())
        batch = [next(unknown_stream) for _ in range(n_unknown)]
        for group in known:
            batch += [next(streams[group]) for _ in range(share + (group in with_one_more))]
        batches.append(rng.permutation(np.array(batch)))
    return batches


def weighted_batches(groups: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return independent draws with replacement, in which every (cell, gender) group has the same probability.

    This is our baseline for ``balanced_batches``. The groups of one batch differ in size, and one may be absent.
    Examples of unknown gender keep their natural share.
    """
    known = groups >= 0
    sizes = np.bincount(groups[known], minlength=1)
    probability = np.full(len(groups), 1.0 / len(groups))
    probability[known] = known.mean() / (np.count_nonzero(sizes) * sizes[groups[known]])
    n_batches = len(groups) // batch_size
    return list(rng.choice(len(groups), size=(n_batches, batch_size), p=probability))


SAMPLERS: dict[Sampling, Sampler] = {
    "natural": natural_batches,
    "balanced": balanced_batches,
    "weighted": weighted_batches,
}


def _cycle(members: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yield the members in random order, again and again."""
    while True:
        yield from rng.permutation(members).tolist()
