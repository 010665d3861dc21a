"""Ranking by several objectives at once: fronts of non-dominated points, and the spread of points within a front.

What multi-objective successive halving promotes by (Schmucker et al., arXiv 2106.12639): non-dominated sorting, then
the epsilon-net of Salinas et al. (arXiv 2106.05680), which picks the best in the first objective and from there on
always the point farthest from those picked, so that few places still cover the front. Objectives are scaled by their
range in the front: no unit counts more than another.
"""

from __future__ import annotations

import numpy as np
from moocore import pareto_rank


def place(points: np.ndarray, index: int) -> int:
    """How many points stand before this one in the order of all.

    A point that is dominated stands behind the whole front that dominates it. Equal points keep their order, and only
    the first of them counts for the spread. A point with a NaN or infinite objective stands behind all others.

    Args:
        points: (n, d), every objective to be minimised.
        index: the row of the point.

    >>> points = np.array([[3.0, 0.0], [1.0, 2.0], [2.0, 3.0], [1.1, 1.9]])  # the third is dominated
    >>> [place(points, i) for i in range(4)]
    [1, 0, 3, 2]
    """
    measured = np.isfinite(points).all(axis=1)
    if not measured[index]:
        return int(measured.sum() + (~measured[:index]).sum())
    own = int(measured[:index].sum())
    ranks = pareto_rank(points[measured])
    front = np.flatnonzero(ranks == ranks[own])
    in_order = front[_spread(points[measured][front])]
    return int((ranks < ranks[own]).sum() + np.flatnonzero(in_order == own)[0])


def _spread(front: np.ndarray) -> np.ndarray:
    """Indices of a front's (k, d) points, farthest first; ties go to the better first objective."""
    by_value = np.lexsort(front.T[::-1])
    span = np.ptp(front, axis=0)
    scaled = ((front - front.min(axis=0)) / np.where(span > 0, span, 1.0))[by_value]
    chosen, distance = [0], np.full(len(front), np.inf)
    while len(chosen) < len(front):
        distance = np.minimum(distance, np.square(scaled - scaled[chosen[-1]]).sum(axis=1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return by_value[chosen]
