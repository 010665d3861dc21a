"""Random search whose n-th proposal is the same whatever came between: an interrupted study ends like one that was not.

A sampler with one stream of numbers would draw others after every interruption, or the same ones again.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

REPLAYED = "replayed"


class RandomSearch(BaseSampler):
    """Draws each knob by the sampler's seed, the knob's name, and how many different proposals came before.

    Named trials are no proposals, and one that was cut off and queued again counts once; so do those of a journal that
    was written anew from the records, which are marked ``REPLAYED``.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self._counted, self._drawn, self._replayed = 0, 0, set[str]()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        place = (self.seed, self._proposals_before(study, trial.number), zlib.crc32(param_name.encode()))
        seed = int(np.random.SeedSequence(place).generate_state(1)[0])
        return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def _proposals_before(self, study: optuna.Study, number: int) -> int:
        """Only trials since the last count are looked at: what is counted of a trial does not change."""
        if number == self._counted:  # its other knobs
            return self._drawn + len(self._replayed)
        if number < self._counted:  # one that was queued earlier and is drawn for only now
            self._counted, self._drawn, self._replayed = 0, 0, set()
        for trial in study.get_trials(deepcopy=False)[self._counted : number]:
            if not trial.user_attrs.get("label"):
                if trial.user_attrs.get(REPLAYED):
                    self._replayed.add(json.dumps(trial.params, sort_keys=True))
                else:
                    self._drawn += "fixed_params" not in trial.system_attrs
        self._counted = number
        return self._drawn + len(self._replayed)
