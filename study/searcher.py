"""Optuna behind Ray Tune: two objectives on a journal that survives interruptions.

The records are the truth; the journal follows them. A trial's record is written before Optuna is told, so whatever
was cut off can be set right at the next start (``reconcile``).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search.optuna import OptunaSearch

from search_spaces import Space

DIRECTIONS = {"max": "maximize", "min": "minimize"}
STARTUP_TRIALS = 5  # random ones before TPE models anything, the references among them


def open_journal(path: str) -> BaseStorage:
    """Optuna's storage in one append-only file; one process writes it."""
    return JournalStorage(JournalFileBackend(path))


def open_study(
    storage: BaseStorage, name: str, space: Space, modes: list[str], records: dict[int, dict[str, Any]]
) -> optuna.Study:
    """The Optuna study; an empty one is filled from the records, and the space's references are queued first.

    What another call queued by a name that this space does not have is not run.

    Args:
        records: ``trials/*.json`` by trial number.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=[DIRECTIONS[mode] for mode in modes], load_if_exists=True
    )
    if not study.get_trials(deepcopy=False):
        _replay(study, space, records)
    told = set()
    wanted = {reference.label for reference in space.references}
    for trial in study.get_trials(deepcopy=False):
        label = trial.user_attrs.get("label")
        if trial.state == TrialState.WAITING and label and label not in wanted:
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # queued by another call, for other arms
        elif trial.state != TrialState.FAIL:
            told.add(label)
    for reference in space.references:
        if reference.label not in told:
            study.enqueue_trial(dict(reference.knobs), user_attrs=_attributes(space, reference.label))
    return study


def _replay(study: optuna.Study, space: Space, records: dict[int, dict[str, Any]]) -> None:
    """Rebuild a journal that is gone: every trial of the records, under its number and with its values."""
    for number in range(max(records, default=-1) + 1):
        record = records.get(number)
        if record is None:  # cut off before it left a record
            study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
            continue
        attributes = _attributes(space, record["label"], record["knobs"])
        study.enqueue_trial({} if "fixed" in attributes else record["knobs"], user_attrs=attributes)
        trial = study.ask()
        space.suggest(trial)
        if record["state"] == "finished":
            study.tell(trial, record["values"])
        else:
            study.tell(trial, state=TrialState.PRUNED if record["state"] == "pruned" else TrialState.FAIL)


def _attributes(space: Space, label: str | None, knobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """What Optuna keeps of a reference beside its knobs; ``knobs`` stand in for one that the space does not have."""
    fixed = next(
        (dict(reference.fixed) for reference in space.references if reference.label == label), knobs if label else {}
    )
    return {**({"label": label} if label else {}), **({"fixed": fixed} if fixed else {})}


def reconcile(study: optuna.Study, records: dict[int, dict[str, Any]]) -> None:
    """Make the journal follow the records after an interruption.

    A trial that Optuna thinks is running is told what its record says, its values or that it was pruned; without such a
    record it is failed and its parameters queued again, ahead of new suggestions. So are those of failed trials: the
    next start retries them.

    Args:
        records: ``trials/*.json`` by trial number.
    """
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        record = records.get(trial.number)
        if trial.state == TrialState.RUNNING:
            if record is not None and record["state"] == "finished":
                study.tell(trial.number, record["values"])
                continue
            if record is not None and record["state"] == "pruned":
                study.tell(trial.number, state=TrialState.PRUNED)
                continue
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs=_kept(trial.user_attrs))
        elif trial.state == TrialState.FAIL and _can_be_retried(trial, record):
            study.enqueue_trial(trial.params, user_attrs=_kept(trial.user_attrs))


def _can_be_retried(trial: FrozenTrial, record: dict[str, Any] | None) -> bool:
    """A failed trial is queued again once; a named one by ``open_study``, as long as its space has it."""
    return record is not None and not record.get("retried") and not trial.user_attrs.get("label")


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key in ("label", "fixed")}


class StudySearch(OptunaSearch):
    """``OptunaSearch`` that fails a trial without finite objectives, instead of leaving it running for ever.

    One that Tune's scheduler stopped is told as pruned: its result is ``done`` without being ``complete``.
    """

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        result = result or {}
        values = [result.get(metric) for metric in self._metric]
        finite = all(value is not None and math.isfinite(value) for value in values)
        if error or not finite or not result.get("complete"):
            stopped = not error and result.get("done") and not result.get("complete")
            if trial_id not in self._completed_trials and trial_id in self._ot_trials:
                state = TrialState.PRUNED if stopped else TrialState.FAIL
                self._ot_study.tell(self._ot_trials[trial_id], state=state)
                self._completed_trials.add(trial_id)
            return
        super().on_trial_complete(trial_id, result, error)


def make_searcher(
    storage: BaseStorage, name: str, space: Space, objectives: list[tuple[str, str]], seed: int
) -> StudySearch:
    """The searcher of one call of a sweep.

    Args:
        objectives: (metric, "max" | "min").
        seed: of the sampler; another one on every continuation, or it would repeat its suggestions.
    """
    return StudySearch(
        space=partial(_suggest, space),
        metric=[metric for metric, _ in objectives],
        mode=[mode for _, mode in objectives],
        storage=storage,
        study_name=name,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    )


def _suggest(space: Space, trial: Any) -> dict[str, Any]:
    return {**space.suggest(trial), "number": trial.number, "label": trial.user_attrs.get("label")}
