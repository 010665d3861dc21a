"""NSGA-II and NSGA-III (Deb et al., 2002 and 2014) for spaces with conditional hyperparameters.

Optuna's samplers cross only the hyperparameters that all completed trials share. A baseline outside the space, such as
plain ERM, has no hyperparameter of the space, and a conditional one is missing from some trials. Nothing would be left
to cross, and every generation would be random. Here a generation consists of the trials that lie in the space, and
hyperparameters that a parent lacks are drawn at random. A child uses such a value only where its other hyperparameters
require it.

This overrides methods of ``BaseGASampler`` as they are called by optuna 5.0 (``samplers/_ga/_base.py`` and
``samplers/nsgaii/_sampler.py``): ``infer_relative_search_space`` first, then ``get_trial_generation``,
``get_parent_population`` and ``get_population``. ``tests/study/search/test_nsga.py`` fails if that order changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, NSGAIIISampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class _ConditionalGASampler(BaseGASampler):
    """The changes that NSGA-II and NSGA-III share.

    Generations follow the order of the trials, so that a study which is rebuilt from its records has the same ones.
    The completed trials are read once per proposal, in ``infer_relative_search_space``.
    """

    _last_generation = 0  # the latest generation whose parents have been selected
    _trials: Sequence[FrozenTrial] = ()  # the completed trials that lie in the space
    _space: Mapping[str, BaseDistribution] = {}  # every hyperparameter that one of them has

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        self._trials = [trial for trial in completed if trial.params]
        self._space = _union(self._trials)
        return dict(self._space)

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        assert self.population_size
        return len(self._trials) // self.population_size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        assert self.population_size
        start = generation * self.population_size
        return list(self._trials[start : start + self.population_size])

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        # Oldest generation first: Optuna recurses through all earlier ones, deeper than Python allows.
        for earlier in range(self._last_generation + 1, generation):
            super().get_parent_population(study, earlier)
            self._last_generation = earlier
        return [self._completed(study, parent) for parent in super().get_parent_population(study, generation)]

    def _completed(self, study: Study, parent: FrozenTrial) -> FrozenTrial:
        """Return a copy of a parent that has every hyperparameter of the space."""
        drawn = {
            name: self.sample_independent(study, parent, name, distribution)
            for name, distribution in self._space.items()
            if name not in parent.params
        }
        completed = copy.copy(parent)
        completed.distributions = {**parent.distributions, **{name: self._space[name] for name in drawn}}
        completed.params = {**parent.params, **drawn}
        return completed


class Nsga2(_ConditionalGASampler, NSGAIISampler):
    """Optuna's NSGA-II for such spaces."""


class Nsga3(_ConditionalGASampler, NSGAIIISampler):
    """Optuna's NSGA-III for such spaces."""


def _union(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return every hyperparameter of the trials, without those that have a single value."""
    distributions = {name: distribution for trial in trials for name, distribution in trial.distributions.items()}
    return {name: distributions[name] for name in sorted(distributions) if not distributions[name].single()}
