"""Which knobs of a search mattered, for each objective: ``python -m analysis importance STUDY_DIR``.

By fANOVA and PED-ANOVA, as Optuna computes them.

fANOVA (Hutter et al. 2014) fits a forest to the trials and asks how much of its variance each knob makes by itself.
PED-ANOVA (Watanabe et al. 2023; of conditional knobs 2026) asks how differently a knob is spread among the best trials
and among all; "the best" are a tenth of the trials, and at least five.

Each treats a conditional knob, such as the length of a ramp, in its own way. Optuna's PED-ANOVA handles it: all trials
enter, and those without the knob are a regime of their own. Its fANOVA leaves such a knob out unless it is named, and
then uses only trials that have every knob named. So each conditional knob is assessed among the trials that have it,
beside the knobs that all of those have: its share is of the variance *there*, and is not to be added to the shares of
knobs that every trial has. ``n`` says how many trials have the knob.

Shares of one evaluator, objective and set of trials sum to 1 even where no knob matters at all: they say which knob
mattered most, not that any did. Where all that matters is a conditional knob, fANOVA would spread the whole over the
unconditional ones, of which none matters. So its shares are given only where a forest of the same knobs predicts trials
that it has not seen (out of bag) better than their mean does, by ``MIN_EXPLAINED`` of the variance.
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
"""Below this, shares are those of chance. A guess at what is bearable, not a measurement: with fewer, the five best
trials that PED-ANOVA wants are more than a quarter of all."""

MIN_EXPLAINED = 0.1
"""R² out of bag below which a forest has nothing to share out. In simulated searches of 40 trials the shares without it
went up to 48 % for knobs that do nothing."""

_BEST = 5


def importance(study: Study, seed: int = 0, evaluators: Sequence[str] = EVALUATORS) -> pd.DataFrame:
    """The importance of each knob of the study's space for each objective that the study searched for.

    Values are those of the trials' records (of W-F1 and gap, the same means over seeds, by the study's class average).
    Trials of settings outside the space (plain ERM, arms with a name) do not enter, nor those of a knob outside its
    range.

    Args:
        seed: of the forest; PED-ANOVA has no chance in it.
        evaluators: of ``EVALUATORS``; the forest takes long where there are hundreds of trials.

    Returns:
        One row an (objective, evaluator, knob), with ``COLUMNS``: ``importance`` is a share, ``n`` the number of trials
        with this knob. Where there are too few of them, or they explain too little, ``importance`` is NaN and
        ``reason`` says so; a study without a searched space has one row, of no knob.
    """
    plan = study.plan
    hyperparameters = [
        Hyperparameter.model_validate(hyperparameter) for hyperparameter in plan.get("hyperparameters", [])
    ]
    if not hyperparameters:
        reason = f"the space {plan['space']!r} has no knobs: nothing was searched"
        return _table([{"hyperparameter": None, "n": 0, "reason": reason}])
    objectives = objectives_of(plan)
    trials = list(_trials(study, hyperparameters, [metric for metric, _ in objectives]))
    having = {
        hyperparameter.name: [trial for trial in trials if hyperparameter.name in trial.params]
        for hyperparameter in hyperparameters
    }
    rows: list[dict[str, Any]] = []
    for axis, (objective, mode) in enumerate(objectives):
        for evaluator in evaluators:
            unexplained: dict[str, float] = {}
            if evaluator == "fANOVA":
                shares, unexplained = _fanova(having, axis, seed)
            else:
                shares = _ped_anova(trials, axis, -1 if mode == "max" else 1)
            for hyperparameter, of_hyperparameter in having.items():
                n = len(of_hyperparameter)
                row = {
                    "objective": objective,
                    "evaluator": evaluator,
                    "hyperparameter": hyperparameter,
                    "n": n,
                    "reason": None,
                }
                if n < MIN_TRIALS:
                    row["reason"] = f"{n} trials have this knob, at least {MIN_TRIALS} are needed"
                elif len({trial.values[axis] for trial in of_hyperparameter}) == 1:
                    row["reason"] = f"the {n} trials with this knob do not differ in this objective"
                elif hyperparameter in unexplained:
                    share = max(0.0, unexplained[hyperparameter])
                    row["reason"] = (
                        f"the knobs that all {n} trials with this one have explain {share:.0%} of this objective out "
                        f"of bag, at least {MIN_EXPLAINED:.0%} is needed"
                    )
                else:
                    row["importance"] = shares[hyperparameter]
                rows.append(row)
    return _table(rows)


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """The shares in %, a row a knob and a column an (objective, evaluator); knobs without any share have no row.

    Args:
        found: output of :func:`importance`.
    """
    known = found.dropna(subset=["importance"])
    known = known.assign(column=known["objective"].replace(OBJECTIVE_NAMES) + ", " + known["evaluator"])
    table = known.pivot_table(index=["hyperparameter", "n"], columns="column", values="importance", sort=False)
    return (POINTS * table).reset_index().rename_axis(columns=None)


def distribution(hyperparameter: Hyperparameter) -> BaseDistribution:
    """A knob's range as Optuna writes it."""
    if hyperparameter.choices:
        return CategoricalDistribution(hyperparameter.choices)
    low, high = (float(end) for end in hyperparameter.ends())
    if hyperparameter.integer:
        return IntDistribution(int(low), int(high), log=hyperparameter.scale == "log")
    return FloatDistribution(low, high, log=hyperparameter.scale == "log")


def _trials(study: Study, hyperparameters: Sequence[Hyperparameter], metrics: Sequence[str]) -> Iterator[FrozenTrial]:
    """The complete trials that lie in the space, with their objectives."""
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in hyperparameters}
    distributions = {hyperparameter.name: distribution(hyperparameter) for hyperparameter in hyperparameters}
    if set(objectives_of(study.plan)) != set(OBJECTIVES):
        rows = objectives_front(study.plan, study.trials)
    else:
        rows = eligible(study.configurations).merge(
            study.configurations[["config_id", "hyperparameters"]], on="config_id"
        )
    for row in rows.to_dict("records"):
        known = row["hyperparameters"]
        if known and all(name in by_name and by_name[name].allows(value) for name, value in known.items()):
            yield create_trial(
                params=known,
                distributions={name: distributions[name] for name in known},
                values=[row[metric] for metric in metrics],
            )


def _fanova(having: dict[str, list[FrozenTrial]], axis: int, seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Shares by knob, each among the trials that have it; the knobs of enough trials only.

    Returns:
        The shares, and by knob the R² out of bag of those whose forest explains too little to have any.
    """
    shares: dict[str, float] = {}
    unexplained: dict[str, float] = {}
    of_trials: dict[tuple[int, ...], dict[str, float]] = {}  # knobs of the same trials share one forest
    explained: dict[tuple[int, ...], float] = {}
    for hyperparameter, trials in having.items():
        key = tuple(map(id, trials))
        if len(trials) < MIN_TRIALS or len({trial.values[axis] for trial in trials}) == 1:
            continue
        if key not in of_trials:
            common = [other for other, theirs in having.items() if set(key) <= set(map(id, theirs))]
            evaluator = FanovaImportanceEvaluator(seed=seed)
            of_trials[key] = _shares(trials, evaluator, lambda trial: trial.values[axis], common)
            explained[key] = _explained(trials, common, axis, seed)
        if explained[key] < MIN_EXPLAINED:
            unexplained[hyperparameter] = explained[key]
        else:
            shares[hyperparameter] = of_trials[key][hyperparameter]
    return shares, unexplained


def _explained(trials: Sequence[FrozenTrial], hyperparameters: Sequence[str], axis: int, seed: int) -> float:
    """R² out of bag of a forest that predicts an objective from these knobs."""
    known = pd.get_dummies(
        pd.DataFrame(
            [{hyperparameter: trial.params[hyperparameter] for hyperparameter in hyperparameters} for trial in trials]
        )
    )
    forest = RandomForestRegressor(n_estimators=200, oob_score=True, random_state=seed)
    return float(forest.fit(known, [trial.values[axis] for trial in trials]).oob_score_)


def _ped_anova(trials: Sequence[FrozenTrial], axis: int, sign: int) -> dict[str, float]:
    """Shares by knob; ``sign`` makes less better, as the evaluator wants it."""
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
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce the study
    study = optuna.create_study(directions=["minimize"] * len(trials[0].values))
    optuna.logging.set_verbosity(verbosity)
    study.add_trials(trials)
    with warnings.catch_warnings():
        # PED-ANOVA reminds of what ``target`` already does, and of regimes of a single trial, which n shows
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(study, evaluator=evaluator, params=names, target=target)


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame([dict.fromkeys(COLUMNS) | row for row in rows], columns=list(COLUMNS), dtype=object)
    return table.astype({"importance": float, "n": int})
