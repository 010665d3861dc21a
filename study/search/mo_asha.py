"""MO-ASHA: asynchronous successive halving for several objectives (Schmucker et al., arXiv 2106.12639).

This is the stopping variant. When a configuration reaches a rung, it is ranked at once among the configurations that
reached the rung before it. It continues if its rank is within the best 1/reduction_factor of them.

Configurations are ranked by non-dominated sorting. Within a front they are ordered by the epsilon-net of Salinas et al.
(arXiv 2106.05680): first the best in the first objective, then always the point farthest from those already chosen, so
that a few points cover the front. Objectives are scaled by their range in the front, so units do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from moocore import pareto_rank
from pydantic import Field

from study.common.base_model import Frozen
from study.common.errors import SettingsError
from study.config.settings import parse
from study.search.objectives import epoch_metrics
from study.storage.study_state import StudyState

NAME = "mo-asha"
Objectives = Sequence[tuple[str, str]]
"""Pairs of (metric, "max" | "min")."""


class MoAshaConfig(Frozen):
    """Settings of ``--early-stopping mo-asha``.

    Attributes:
        reduction_factor: one in ``reduction_factor`` configurations continues at a rung.
        grace_period: the epoch of the first rung.
    """

    reduction_factor: Annotated[int, Field(ge=2)] = 3
    grace_period: Annotated[int, Field(ge=1)] = 1

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs of the rungs, grace_period * reduction_factor**k, below the last epoch.

        >>> MoAshaConfig().rungs(20), MoAshaConfig(reduction_factor=4, grace_period=2).rungs(20)
        ((1, 3, 9), (2, 8))
        """
        rungs, rung = [], self.grace_period
        while rung < epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return tuple(rungs)

    def capacity(self, reached: int) -> int:
        """Return how many of the configurations that reached a rung continue: 1/reduction_factor, rounded up."""
        return -(-reached // self.reduction_factor)


def parse_early_stopping(text: str) -> MoAshaConfig | None:
    """Parse ``--early-stopping``: ``none``, ``mo-asha`` or ``mo-asha:reduction_factor=4,grace_period=2``.

    Raises:
        SettingsError: the text is none of these.

    >>> parse_early_stopping("mo-asha:reduction_factor=4")
    MoAshaConfig(reduction_factor=4, grace_period=1)
    """
    name, _, settings = text.partition(":")
    if text == "none":
        return None
    if name != NAME:
        raise SettingsError([f"{text!r} is unknown; choose none, {NAME} or {NAME}:reduction_factor=3,grace_period=1"])
    pairs = (item.partition("=") for item in settings.split(",") if item)
    return parse(MoAshaConfig, {key: value for key, _, value in pairs})


@dataclass(frozen=True)
class RungDecision:
    """The decision about one configuration at one rung.

    Attributes:
        epoch: of the rung.
        rank: of the configuration among those that reached the rung, from 1.
        reached: how many configurations have reached the rung.
        capacity: how many of them continue.
    """

    epoch: int
    rank: int
    reached: int
    capacity: int

    @property
    def continues(self) -> bool:
        return self.rank <= self.capacity

    def __str__(self) -> str:
        verb = "continues" if self.capacity == 1 else "continue"
        return f"epoch {self.epoch}: rank {self.rank} of {self.reached}, {self.capacity} {verb}"


class Rungs:
    """The objectives of every configuration at each rung, as the search would see them if training ended there.

    These are the objectives of the epoch selected so far: as in ``study.training.trainer.train``, the first epoch with
    the highest score.

    Attributes:
        reached: objective values by rung (epoch) and config_id, to be minimised, in order of arrival.
    """

    def __init__(self, config: MoAshaConfig, epochs: int):
        self.config = config
        self.reached: dict[int, dict[str, tuple[float, ...]]] = {epoch: {} for epoch in config.rungs(epochs)}
        self._selected: dict[str, tuple[float, tuple[float, ...]]] = {}

    def report(self, config_id: str, epoch: int, score: float, values: tuple[float, ...]) -> RungDecision | None:
        """Record the end of an epoch and decide whether the configuration continues.

        Args:
            score: selects the epoch; higher is better.
            values: the objectives, to be minimised; NaN where undefined.

        Returns:
            The decision; None if this epoch is not a rung.
        """
        self.record(config_id, epoch, score, values)
        if epoch not in self.reached:
            return None
        rung = self.reached[epoch]
        rank = 1 + multi_objective_rank(np.array(list(rung.values())), list(rung).index(config_id))
        return RungDecision(epoch, rank, len(rung), self.config.capacity(len(rung)))

    def record(self, config_id: str, epoch: int, score: float, values: tuple[float, ...]) -> None:
        """Record the end of an epoch. Arguments as for ``report``; this does not sort the rung."""
        best = self._selected.get(config_id)
        if best is None or epoch == 1 or score > best[0]:
            self._selected[config_id] = score, values
        if epoch in self.reached:
            self.reached[epoch][config_id] = self._selected[config_id][1]

    def finish(self, config_id: str) -> None:
        """Record that training has ended; its objectives then count at the rungs that it did not reach."""
        if config_id in self._selected:
            for rung in self.reached.values():
                rung.setdefault(config_id, self._selected[config_id][1])

    def load(self, state: StudyState, seed: int, objectives: Objectives) -> None:
        """Record the epochs of earlier calls, from the runs of one seed.

        Runs whose epochs lack one of the objectives are left out: they were written before all dev metrics were kept.
        """
        metrics = [metric for metric, _ in objectives]
        finished = set(state.finished_runs)
        for config_id, run_seed in state.started_runs:
            if run_seed != seed:
                continue
            for row in state.epochs(config_id, seed):
                try:
                    values = minimised(epoch_metrics(metrics, row), objectives)
                except KeyError:
                    continue
                self.record(config_id, row["epoch"], row["dev"]["w_f1"], values)
            if (config_id, seed) in finished:
                self.finish(config_id)


def minimised(metrics: Mapping[str, Any], objectives: Objectives) -> tuple[float, ...]:
    """Return the objectives with the sign changed where higher is better; NaN where undefined.

    >>> minimised({"dev_w_f1": 0.5, "dev_gap": None}, [("dev_w_f1", "max"), ("dev_gap", "min")])
    (-0.5, nan)
    """
    values = (math.nan if metrics[metric] is None else float(metrics[metric]) for metric, _ in objectives)
    return tuple(-value if mode == "max" else value for value, (_, mode) in zip(values, objectives, strict=True))


def multi_objective_rank(points: np.ndarray, index: int) -> int:
    """Return how many points rank before the given one.

    A dominated point ranks after the whole front that dominates it. Equal points keep their order, and only the first
    of them counts for the spread. A point with a NaN or infinite objective ranks after all others.

    Args:
        points: (n, d), every objective to be minimised.
        index: row of the point.

    >>> points = np.array([[3.0, 0.0], [1.0, 2.0], [2.0, 3.0], [1.1, 1.9]])  # the third is dominated
    >>> [multi_objective_rank(points, i) for i in range(4)]
    [1, 0, 3, 2]
    """
    finite = np.isfinite(points).all(axis=1)
    if not finite[index]:
        return int(finite.sum() + (~finite[:index]).sum())
    row = int(finite[:index].sum())
    fronts = pareto_rank(points[finite])
    front = np.flatnonzero(fronts == fronts[row])
    ordered = front[_epsilon_net(points[finite][front])]
    return int((fronts < fronts[row]).sum() + np.flatnonzero(ordered == row)[0])


def _epsilon_net(front: np.ndarray) -> np.ndarray:
    """Return the row indices of a (k, d) front, farthest point first; ties go to the better first objective."""
    by_value = np.lexsort(front.T[::-1])
    span = np.ptp(front, axis=0)
    scaled = ((front - front.min(axis=0)) / np.where(span > 0, span, 1.0))[by_value]
    chosen, distance = [0], np.full(len(front), np.inf)
    while len(chosen) < len(front):
        distance = np.minimum(distance, np.square(scaled - scaled[chosen[-1]]).sum(axis=1))
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return by_value[chosen]
