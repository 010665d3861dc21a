"""NSGA-II and NSGA-III on spaces with conditional hyperparameters and with baselines outside the space.

These tests also check the calls of optuna 5.0 that ``study.search.nsga`` overrides.
"""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution

from search_spaces import Hyperparameter, Space
from study.search.nsga import Nsga2
from study.search.optuna_study import POPULATION_SIZE, Proposer
from tests.study.search.test_proposer import SPACE, Sweep, search_of

pytestmark = pytest.mark.filterwarnings("ignore:Nsga. is experimental", "ignore:NSGAIIISampler is experimental")


def test_nsga_converges_with_baselines_outside_the_space():
    names = ("warmup_fraction", "weight_decay", "gradient_clipping")
    hyperparameters = tuple(
        Hyperparameter(name=f"optimisation.{name}", reason="-", default=1.0, low=0.0, high=1.0) for name in names
    )
    space = Space("box", hyperparameters, SPACE.baselines[::2])  # ERM with and without balanced batches

    def mean_distance(sampler):
        """Return the mean distance of the last 20 of 200 trials to the front, where the last two values are 0."""
        proposer, distances = Proposer(search_of(sampler, space), {}), []
        for _ in range(200):
            proposal = proposer.propose()
            first, *others = (proposal.hyperparameters.get(each.name, 1.0) for each in hyperparameters)
            distances.append(sum(others))
            metrics = {"dev_w_f1": first - distances[-1], "dev_gap": first + distances[-1]}
            proposer.finish(proposal.trial, metrics)
        assert [trial.user_attrs.get("label") for trial in proposer.study.trials[:3]] == ["ERM", "ERM, balanced", None]
        return sum(distances[-20:]) / 20

    distances = {sampler: mean_distance(sampler) for sampler in ("random", "nsga2", "nsga3")}
    assert distances["random"] > 0.8 and max(distances["nsga2"], distances["nsga3"]) < 0.7, distances


@pytest.mark.parametrize("resumed", [False, True])
def test_nsga2_crosses_conditional_hyperparameters(resumed):
    sweep = Sweep(search_of("nsga2"), lambda number: {"dev_w_f1": 0.4, "dev_gap": 0.01})
    first = POPULATION_SIZE + 4
    proposals = [*sweep.run(first), *sweep.run(10)] if resumed else sweep.run(first + 10)
    parents = {item for proposal in proposals[:first] for item in proposal.hyperparameters.items()}
    inherited = [
        sum(item in parents for item in proposal.hyperparameters.items() if "." in str(item[1]))
        for proposal in proposals[first:]
    ]
    assert sum(inherited) >= 10  # values that a parent had; random numbers would not be among them


def test_nsga2_continues_after_more_generations_than_the_recursion_limit():
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=Nsga2(seed=0, population_size=2))
    distributions = {"x": FloatDistribution(0.0, 1.0)}
    for i in range(1200):
        values = [i / 1200, 1 - i / 1200]
        params = {"x": values[0]}
        study.add_trial(optuna.trial.create_trial(values=values, params=params, distributions=distributions))
    assert 0 <= study.ask(distributions).params["x"] <= 1


def test_proposal_reads_the_trials_once(monkeypatch):
    reads = []
    original = optuna.Study.get_trials
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *a, **k: reads.append(1) or original(*a, **k))

    def reads_per_proposal(hyperparameters):
        study = optuna.create_study(directions=["minimize"] * 2, sampler=Nsga2(seed=0, population_size=20))
        distributions = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(hyperparameters)}
        for _ in range(45):
            study.tell(study.ask(distributions), [0.1, 0.2])
        before = len(reads)
        study.ask(distributions)
        return len(reads) - before

    assert reads_per_proposal(1) == reads_per_proposal(6) == 1
