"""NSGA-II and NSGA-III (Deb et al., 2002 and 2014) on spaces with conditional knobs and references outside the space.

Optuna's samplers cross what all completed trials have in common. A reference such as plain ERM has no knob at all, and
conditional knobs are not in every trial, so nothing would be left to cross and every generation would be random. Here
a generation is made of the trials that lie in the space, and what a parent lacks of the space is drawn at random:
genes that are not expressed in it, and in its child only where the child's other knobs call for them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, NSGAIIISampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class _Evolution(BaseGASampler):
    """What both share: the generations of a study in the order of its trials, so that a journal that was written anew
    from the records has the same ones.

    Optuna asks for the relative search space first: what has completed is looked at there, once a proposal, and not
    again for every earlier generation.
    """

    _chosen = 0  # the last generation whose parents are known to stand in the journal
    _inside: Sequence[FrozenTrial] = ()  # the completed trials that lie in the space
    _space: Mapping[str, BaseDistribution] = {}  # every parameter of some of them

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        completed = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        self._inside = [trial for trial in completed if trial.params]
        self._space = _union(self._inside)
        return dict(self._space)

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        assert self.population_size
        return len(self._inside) // self.population_size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        assert self.population_size
        start = generation * self.population_size
        return list(self._inside[start : start + self.population_size])

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        # oldest first: Optuna would go back through all generations by recursion, deeper than Python allows
        for earlier in range(self._chosen + 1, generation):
            super().get_parent_population(study, earlier)
            self._chosen = earlier
        return [self._whole(study, parent) for parent in super().get_parent_population(study, generation)]

    def _whole(self, study: Study, parent: FrozenTrial) -> FrozenTrial:
        """A copy of a parent with every parameter of the space."""
        drawn = {
            name: self.sample_independent(study, parent, name, distribution)
            for name, distribution in self._space.items()
            if name not in parent.params
        }
        whole = copy.copy(parent)
        whole.distributions = {**parent.distributions, **{name: self._space[name] for name in drawn}}
        whole.params = {**parent.params, **drawn}
        return whole


class Nsga2(_Evolution, NSGAIISampler):
    """Optuna's NSGA-II on such spaces."""


class Nsga3(_Evolution, NSGAIIISampler):
    """Optuna's NSGA-III on such spaces."""


def _union(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Every parameter of some trials; one with a single value has nothing to cross."""
    found = {name: distribution for trial in trials for name, distribution in trial.distributions.items()}
    return {name: found[name] for name in sorted(found) if not found[name].single()}
