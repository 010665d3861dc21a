"""Ray Tune's searcher on an Optuna study."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.searcher import Searcher
from ray.tune.utils import flatten_dict

from search_spaces import Space
from study.search.optuna_study import ASKS, Search, hyperparameters_of


class StudySearch(OptunaSearch):
    """``OptunaSearch`` that fails a trial without finite objectives, instead of leaving it running for ever, and tells
    the sampler about requirements.

    A trial that Tune's scheduler stopped is told as pruned: its result is ``done`` without being ``complete``.

    A proposal that repeats a configuration is failed at once and another one asked for, so that it takes no trial. What
    is queued, a reference or a failed trial's second try, always runs.
    """

    search: Search
    seen: set[str]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        for _ in range(ASKS):
            suggestion = super().suggest(trial_id)
            trial = self._ot_trials[trial_id]
            fixed = trial.user_attrs.get("fixed")
            queued = "fixed_params" in trial.storage.get_trial_system_attrs(trial._trial_id)
            identity = self.search.identity(fixed or trial.params)
            if fixed or queued or identity not in self.seen:
                self.seen.add(identity)
                return flatten_dict(suggestion)  # the name of a cell has a slash, at which Ray takes names apart
            self._ot_study.tell(self._ot_trials.pop(trial_id), state=TrialState.FAIL)
        point = self.search.unseen(self.seen)
        if point is None:
            return Searcher.FINISHED
        self._ot_study.enqueue_trial(point)
        return self.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        result = result or {}
        values = {metric: result.get(metric) for metric in self.search.search_objectives.metrics}
        finite = all(value is not None and math.isfinite(value) for value in values.values())
        if error or not finite or not result.get("complete"):
            stopped = not error and result.get("done") and not result.get("complete")
            if trial_id not in self._completed_trials and trial_id in self._ot_trials:
                state = TrialState.PRUNED if stopped else TrialState.FAIL
                self._ot_study.tell(self._ot_trials[trial_id], state=state)
                self._completed_trials.add(trial_id)
            return
        for words, violation in self.search.search_objectives.violations(values).items():
            self._ot_trials[trial_id].set_constraint(words, violation)
        super().on_trial_complete(trial_id, result, error)


def make_searcher(storage: BaseStorage, search: Search, seed: int) -> StudySearch:
    """The searcher of one call of a sweep.

    Args:
        seed: the number of trials so far: another one on every continuation, or it would repeat its suggestions.
    """
    searcher = StudySearch(
        space=partial(_suggest, search.space),
        metric=[metric for metric, _ in search.search_objectives.objectives],
        mode=[mode for _, mode in search.search_objectives.objectives],
        storage=storage,
        study_name=search.name,
        sampler=search.make_sampler(seed),
    )
    searcher.search = search
    ended = searcher._ot_study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
    searcher.seen = {search.identity(hyperparameters_of(trial)) for trial in ended}
    return searcher


class Listed(Searcher):
    """Configurations that are given: trials that have finished and lack seeds."""

    def __init__(self, suggestions: list[dict[str, Any]]):
        super().__init__()
        self.left = list(suggestions)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        return self.left.pop(0) if self.left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn: Optuna is told from the records (``open_study``)."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: Tune saves its searchers for a restore that we do not use."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study goes on from its records")


def _suggest(space: Space, trial: Any) -> dict[str, Any]:
    return {**space.suggest(trial), "number": trial.number, "label": trial.user_attrs.get("label")}
