"""The importance of each hyperparameter of a search for each search objective: ``python -m analysis importance``.

Two methods are used, as Optuna implements them. fANOVA (Hutter et al. 2014) fits a random forest to the trials and
computes the share of its variance that each hyperparameter explains by itself. PED-ANOVA (Watanabe et al. 2023; for
conditional hyperparameters 2026) compares the distribution of a hyperparameter among the best trials with that among
all trials; the best are a tenth of the trials, and at least five.

Conditional hyperparameters, such as the length of a ramp, exist in some trials only. Optuna's PED-ANOVA uses all trials
and treats those without the hyperparameter as a regime of their own. Its fANOVA omits such a hyperparameter unless it
is named, and then uses only the trials that have every named one. Each conditional hyperparameter is therefore assessed
among the trials that have it, together with the hyperparameters that all of these have. Its share refers to the
variance among these trials and must not be added to shares of unconditional ones. ``n`` is the number of these trials.

The shares of one method, objective and set of trials sum to 1 even if no hyperparameter has any effect: they rank
hyperparameters and do not show that one matters. If only a conditional hyperparameter has an effect, fANOVA would
distribute all of the variance among unconditional ones without effect. Its shares are therefore reported only if a
forest of the same hyperparameters predicts out-of-bag trials with an R² of at least ``MIN_EXPLAINED``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.trial import FrozenTrial, create_trial
from sklearn.ensemble import RandomForestRegressor

from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.pareto.front import eligible
from analysis.pareto.objectives_front import objectives_front
from search_spaces import Hyperparameter
from study.storage.schemas import OBJECTIVES, objectives_of

OBJECTIVE_NAMES = {"dev_w_f1": "W-F1", "dev_gap": "gap"}
EVALUATORS = ("fANOVA", "PED-ANOVA")
COLUMNS = ("objective", "evaluator", "hyperparameter", "importance", "n", "reason")

MIN_TRIALS = 20
"""Fewest trials for shares; with fewer, the five best trials of PED-ANOVA are more than a quarter of all. The value is
our choice and not the result of a measurement."""

MIN_EXPLAINED = 0.1
"""Smallest out-of-bag R² for which fANOVA shares are reported. Without this limit, simulated searches of 40 trials gave
shares of up to 48 % to hyperparameters without effect."""

FANOVA_TREES = 64
"""Trees of the forest of fANOVA, Optuna's default."""
OUT_OF_BAG_TREES = 200
"""Trees of the forest whose out-of-bag R² is computed."""
_BEST = 5


def importance(study: Study, seed: int = 0, evaluators: Sequence[str] = EVALUATORS) -> pd.DataFrame:
    """Compute the importance of each hyperparameter of the study's space for each search objective.

    Objective values are those of the trial records; of W-F1 and gap, the means over seeds with the study's class
    average. Excluded are configurations outside the space (ERM, named arms) and trials with a hyperparameter outside
    its range.

    Args:
        study: a search.
        seed: random seed of the forests; PED-ANOVA is deterministic.
        evaluators: among ``EVALUATORS``; fANOVA is slow with hundreds of trials.

    Returns:
        One row per (objective, evaluator, hyperparameter), with ``COLUMNS``: ``importance`` is a share, ``n`` the
        number of trials with the hyperparameter. Where they are too few or explain too little, ``importance`` is NaN
        and ``reason`` states why. A study without a searched space has one row, without a hyperparameter.
    """
    hyperparameters = [Hyperparameter.model_validate(values) for values in study.plan.get("hyperparameters", [])]
    if not hyperparameters:
        no_search = f"the space {study.plan['space']!r} has no hyperparameters: nothing was searched"
        return _table([{"hyperparameter": None, "n": 0, "reason": no_search}])
    objectives = objectives_of(study.plan)
    trials = list(_trials(study, hyperparameters, [metric for metric, _ in objectives]))
    trials_by_name = {h.name: [trial for trial in trials if h.name in trial.params] for h in hyperparameters}
    rows: list[dict[str, Any]] = []
    for axis, (objective, mode) in enumerate(objectives):
        for evaluator in evaluators:
            unexplained: dict[str, float] = {}
            if evaluator == "fANOVA":
                shares, unexplained = _fanova(trials_by_name, axis, seed)
            else:
                shares = _ped_anova(trials, axis, -1 if mode == "max" else 1)
            for name, with_it in trials_by_name.items():
                row: dict[str, Any] = {"objective": objective, "evaluator": evaluator, "hyperparameter": name}
                reason = _reason_without_share(with_it, axis, unexplained.get(name))
                row |= {"n": len(with_it), "reason": reason, "importance": None if reason else shares[name]}
                rows.append(row)
    return _table(rows)


def importance_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return shares in %: a row per hyperparameter with any share, a column per (objective, evaluator).

    Args:
        rows: output of :func:`importance`.
    """
    known = rows.dropna(subset=["importance"])
    known = known.assign(column=known["objective"].replace(OBJECTIVE_NAMES) + ", " + known["evaluator"])
    table = known.pivot_table(index=["hyperparameter", "n"], columns="column", values="importance", sort=False)
    return (POINTS * table).reset_index().rename_axis(columns=None)


def distribution(hyperparameter: Hyperparameter) -> BaseDistribution:
    """Return the range of a hyperparameter as an Optuna distribution."""
    if hyperparameter.choices:
        return CategoricalDistribution(hyperparameter.choices)
    low, high = (float(end) for end in hyperparameter.ends())
    if hyperparameter.integer:
        return IntDistribution(int(low), int(high), log=hyperparameter.scale == "log")
    return FloatDistribution(low, high, log=hyperparameter.scale == "log")


def _reason_without_share(trials: Sequence[FrozenTrial], axis: int, unexplained: float | None) -> str | None:
    """Return why the trials with a hyperparameter give no share of it, if so."""
    n = len(trials)
    if n < MIN_TRIALS:
        return f"{n} trials have this hyperparameter, at least {MIN_TRIALS} are needed"
    if len({trial.values[axis] for trial in trials}) == 1:
        return f"the {n} trials with this hyperparameter do not differ in this objective"
    if unexplained is not None:
        return (
            f"the hyperparameters common to the {n} trials with this one explain {max(0.0, unexplained):.0%} of this "
            f"objective out of bag, at least {MIN_EXPLAINED:.0%} is needed"
        )
    return None


def _trials(study: Study, hyperparameters: Sequence[Hyperparameter], metrics: Sequence[str]) -> Iterator[FrozenTrial]:
    """Yield the complete trials within the space, with their objective values."""
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in hyperparameters}
    distributions = {name: distribution(hyperparameter) for name, hyperparameter in by_name.items()}
    if set(objectives_of(study.plan)) != set(OBJECTIVES):
        rows = objectives_front(study.plan, study.trials)
    else:
        columns = study.configurations[["config_id", "hyperparameters"]]
        rows = eligible(study.configurations).merge(columns, on="config_id")
    for row in rows.to_dict("records"):
        params = row["hyperparameters"]
        if params and all(name in by_name and by_name[name].allows(value) for name, value in params.items()):
            yield create_trial(
                params=params,
                distributions={name: distributions[name] for name in params},
                values=[row[metric] for metric in metrics],
            )


def _fanova(
    trials_by_name: dict[str, list[FrozenTrial]], axis: int, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Compute fANOVA shares, each among the trials with the hyperparameter.

    Returns:
        The shares, and the out-of-bag R² of the hyperparameters whose forest explains too little. Hyperparameters of
        too few trials are in neither.
    """
    shares: dict[str, float] = {}
    unexplained: dict[str, float] = {}
    shares_of: dict[tuple[int, ...], dict[str, float]] = {}  # hyperparameters of the same trials share one forest
    explained: dict[tuple[int, ...], float] = {}
    for name, trials in trials_by_name.items():
        key = tuple(map(id, trials))
        if len(trials) < MIN_TRIALS or len({trial.values[axis] for trial in trials}) == 1:
            continue
        if key not in explained:
            common = [other for other, with_it in trials_by_name.items() if set(key) <= set(map(id, with_it))]
            explained[key] = _explained(trials, common, axis, seed)
            if explained[key] >= MIN_EXPLAINED:
                evaluator = FanovaImportanceEvaluator(n_trees=FANOVA_TREES, seed=seed)
                shares_of[key] = _shares(trials, evaluator, lambda trial: trial.values[axis], common)
        if key in shares_of:
            shares[name] = shares_of[key][name]
        else:
            unexplained[name] = explained[key]
    return shares, unexplained


def _explained(trials: Sequence[FrozenTrial], names: Sequence[str], axis: int, seed: int) -> float:
    """Return the out-of-bag R² of a forest that predicts an objective from these hyperparameters."""
    features = pd.get_dummies(pd.DataFrame([{name: trial.params[name] for name in names} for trial in trials]))
    forest = RandomForestRegressor(n_estimators=OUT_OF_BAG_TREES, oob_score=True, random_state=seed)
    return float(forest.fit(features, [trial.values[axis] for trial in trials]).oob_score_)


def _ped_anova(trials: Sequence[FrozenTrial], axis: int, sign: int) -> dict[str, float]:
    """Compute PED-ANOVA shares; ``sign`` is −1 for an objective to maximise, since the evaluator minimises."""
    if len(trials) < MIN_TRIALS:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _BEST / len(trials)))
    return _shares(trials, evaluator, lambda trial: sign * trial.values[axis])


def _shares(
    trials: Sequence[FrozenTrial],
    evaluator: BaseImportanceEvaluator,
    target: Callable[[FrozenTrial], float],
    names: list[str] | None = None,
) -> dict[str, float]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # hide the message about a new study
    study = optuna.create_study(directions=["minimize"] * len(trials[0].values))
    optuna.logging.set_verbosity(verbosity)
    study.add_trials(trials)
    with warnings.catch_warnings():
        # PED-ANOVA warns that ``target`` sets the direction, and of regimes with a single trial, which n shows
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(study, evaluator=evaluator, params=names, target=target)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame([dict.fromkeys(COLUMNS) | row for row in rows], columns=list(COLUMNS), dtype=object)
    return table.astype({"importance": float, "n": int})
