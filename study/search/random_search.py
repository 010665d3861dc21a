"""Random search as a reproducible sequence of points."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from search_spaces import Space


def random_points(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    """Yield random points of a space for ever, always the same ones for a seed.

    Every call of a sweep starts at the first point and skips those that have run, so an interrupted search proposes
    the same points as an uninterrupted one.
    """
    study = optuna.create_study()
    for index in itertools.count():
        yield space.suggest(_Draw(study, seed, index))


class _Draw:
    """Suggests one point. Each value depends on the seed, the index of the point and the name of the hyperparameter."""

    user_attrs: dict[str, Any] = {}

    def __init__(self, study: optuna.Study, seed: int, index: int):
        self.study, self.seed, self.index = study, seed, index
        self.trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return self._draw(name, FloatDistribution(low, high, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return self._draw(name, IntDistribution(low, high, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._draw(name, CategoricalDistribution(choices))

    def _draw(self, name: str, distribution: BaseDistribution) -> Any:
        entropy = (self.seed, self.index, zlib.crc32(name.encode()))
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return RandomSampler(seed=seed).sample_independent(self.study, self.trial, name, distribution)
