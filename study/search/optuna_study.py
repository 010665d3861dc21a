"""Optuna behind Ray Tune: several objectives and requirements on a journal that survives interruptions.

The records are the truth; the journal follows them. A trial's record is written before Optuna is told, so whatever
was cut off can be set right at the next start (``reconcile``); and a journal that says otherwise than the records,
because it was cut off, trials have got more seeds, or the space more knobs, is written anew from them (``open_study``).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from search_spaces import Space
from search_spaces.space import walk
from study.common.groups import LANGUAGES, MODALITIES, Cell, cells
from study.config.config_id import config_id
from study.config.settings import Settings, flatten
from study.search.nsga import Nsga2, Nsga3
from study.search.objectives import SearchObjectives
from study.search.random_sampler import REPLAYED, RandomSearch

DIRECTIONS = {"max": "maximize", "min": "minimize"}
STARTUP_TRIALS = 5  # random ones before TPE models anything, the references among them
POPULATION = 20  # of NSGA-II and NSGA-III; a study of fewer trials is a random search to them
ASKS = 50  # of a sampler that proposes what has run; then a finite space is searched for what has not
FAR = 1_000_003  # between the seeds of two samplers, more than a study has trials
BEGUN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
SPACE = "space"  # the journal's note of the knobs that it was written with

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    "nsga2": lambda seed: Nsga2(seed=seed, population_size=POPULATION),
    "nsga3": lambda seed: Nsga3(seed=seed, population_size=POPULATION),
    "random": RandomSearch,
    "grid": RandomSearch,  # it is never asked: every point of the grid is queued
}


@dataclass(frozen=True)
class Search:
    """What one call of a sweep searches, and how.

    Attributes:
        name: of the study.
        settings: what every trial starts from.
        sampler: one of ``SAMPLERS``.
        seed: of the sampler.
        retries: how often a trial that fails is tried again within one call.
        cells: those of the study, by which coefficients are told apart.
    """

    name: str
    space: Space
    settings: Settings
    search_objectives: SearchObjectives = SearchObjectives()
    sampler: str = "tpe"
    seed: int = 0
    retries: int = 0
    cells: tuple[Cell, ...] = cells(LANGUAGES, MODALITIES)

    def make_sampler(self, trials: int) -> BaseSampler:
        """The sampler of a call that finds so many trials: most draw from one stream, and would repeat themselves."""
        by_call = 0 if self.sampler == "random" else trials
        return SAMPLERS[self.sampler]((self.seed * FAR + by_call) % 2**32)

    def identity(self, hyperparameters: dict[str, Any]) -> str:
        """The same for knobs that make the same configuration."""
        return config_id(self.settings.with_overrides(hyperparameters), self.cells, "", "")

    def unseen(self, seen: Container[str]) -> dict[str, Any] | None:
        """The first point of a finite space whose identity is not among these; None if there is none."""
        points = self.space.points() if self.space.finite else iter(())
        return next((point for point in points if self.identity(point) not in seen), None)

    @property
    def directions(self) -> list[str]:
        return [DIRECTIONS[mode] for _, mode in self.search_objectives.objectives]

    def attributes(self, label: str | None, hyperparameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """What Optuna keeps of a named trial; ``knobs`` stand in for a name that is not the space's."""
        fixed = next(
            (dict(baseline.fixed) for baseline in self.space.baselines if baseline.label == label),
            hyperparameters if label else {},
        )
        return {**({"label": label} if label else {}), **({"fixed": fixed} if fixed else {})}

    def position(self, hyperparameters: dict[str, Any]) -> dict[str, Any] | None:
        """Where a trial that ran with these knobs lies in the space: the value that each knob had there, whether or not
        it was searched then. None if it lies outside."""
        had = flatten(self.settings.with_overrides(hyperparameters).model_dump(mode="json"))
        values = walk(
            self.space.hyperparameters, lambda hyperparameter: had.get(hyperparameter.name, hyperparameter.default)
        )
        by_name = {hyperparameter.name: hyperparameter for hyperparameter in self.space.hyperparameters}
        inside = hyperparameters.keys() <= values.keys() and all(
            by_name[name].holds(value) for name, value in values.items()
        )
        return values if inside else None


def open_journal(path: str) -> BaseStorage:
    """Optuna's storage in one append-only file; one process writes it.

    Nothing is kept from the first line on that a full disk or a machine's crash has cut off: Optuna would refuse to
    read the journal ever again, and the records have the rest.
    """
    if os.path.exists(path):
        with open(path, "rb+") as file:
            file.truncate(sum(map(len, itertools.takewhile(_is_whole, file))))
    return JournalStorage(JournalFileBackend(path))


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict) and line.endswith(b"\n")
    except ValueError:
        return False


def open_study(storage: BaseStorage, search: Search, records: dict[int, dict[str, Any]]) -> optuna.Study:
    """The Optuna study, in step with the records, with the space's references queued first, and the grid if it is one.

    What another call queued by a name that this space does not have is not run.

    Args:
        records: ``trials/*.json`` by trial number.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make = partial(optuna.create_study, storage=storage, study_name=search.name, directions=search.directions)
    study = make(load_if_exists=True)
    hyperparameters = json.dumps(
        [hyperparameter.model_dump(mode="json") for hyperparameter in search.space.hyperparameters]
    )
    before = study.get_trials(deepcopy=False)
    if before and not _in_step(study, search, hyperparameters, records):
        optuna.delete_study(study_name=search.name, storage=storage)
        study = make()
    study.set_user_attr(SPACE, hyperparameters)
    anew = not study.get_trials(deepcopy=False)
    if anew:
        _replay(study, search, records)
    _queue_baselines(study, storage, search, records)
    for trial in before if anew else ():  # those without a record: it was moved away, or they were running
        if trial.number not in records and trial.state in BEGUN and not trial.user_attrs.get("label"):
            study.enqueue_trial(trial.params, user_attrs=_kept(trial.user_attrs))
    if search.sampler == "grid":
        _queue_grid(study, search)
    return study


def _queue_baselines(
    study: optuna.Study, storage: BaseStorage, search: Search, records: dict[int, dict[str, Any]]
) -> None:
    """Queue the space's references that have not begun, in its order and ahead of all else; those of other arms go."""
    trials = study.get_trials(deepcopy=False)
    named = [trial for trial in trials if trial.user_attrs.get("label")]
    begun = {trial.user_attrs["label"] for trial in named if trial.state in BEGUN and not _cut_off(trial, records)}
    queue = [baseline for baseline in search.space.baselines if baseline.label not in begun]
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    labels = [baseline.label for baseline in queue]
    if [trial.user_attrs.get("label") for trial in waiting if trial.user_attrs.get("label")] == labels:
        return
    for trial in waiting:  # Optuna takes the oldest first
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    for baseline in queue:
        study.enqueue_trial(dict(baseline.hyperparameters), user_attrs=search.attributes(baseline.label))
    for trial in waiting:
        if not trial.user_attrs.get("label"):
            study.enqueue_trial(trial.system_attrs["fixed_params"], user_attrs=_kept(trial.user_attrs))


def _in_step(study: optuna.Study, search: Search, hyperparameters: str, records: dict[int, dict[str, Any]]) -> bool:
    """Whether the journal was written for these knobs and has the trials and values that the records have."""
    if study.user_attrs.get(SPACE) != hyperparameters:
        return False
    begun = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    if not records.keys() <= {trial.number for trial in begun}:  # it was cut off, or another head went on
        return False
    return all(_agrees(trial, records.get(trial.number), search) for trial in begun)


def _agrees(trial: FrozenTrial, record: dict[str, Any] | None, search: Search) -> bool:
    if trial.state == TrialState.RUNNING:  # its record, if there is one, may be another head's
        return record is None or search.identity(hyperparameters_of(trial)) == search.identity(
            record["hyperparameters"]
        )
    if record is None:
        return trial.state == TrialState.FAIL
    if trial.state == TrialState.COMPLETE or record["state"] == "finished":
        return _values(record) == trial.values
    return True


def _replay(study: optuna.Study, search: Search, records: dict[int, dict[str, Any]]) -> None:
    """Write a journal from the records, a line a trial: every trial under its number and with its values."""
    for number in range(max(records, default=-1) + 1):
        record = records.get(number)  # None: cut off before it left one
        study.add_trial(_past(search, record) if record else optuna.trial.create_trial(state=TrialState.FAIL))


def _past(search: Search, record: dict[str, Any]) -> FrozenTrial:
    """A record as Optuna's trial.

    One from before a knob was added has the value that it ran with; one that lies outside the space keeps its values
    and informs no knob.
    """
    attributes = search.attributes(record["label"], record["hyperparameters"])
    position = None if "fixed" in attributes else search.position(record["hyperparameters"])
    if position is None:
        attributes = {**attributes, "fixed": record["hyperparameters"]}
    placed = FixedTrial(position or {})
    if position:
        search.space.suggest(placed)
    values = _values(record) if record["state"] == "finished" else None
    ended = TrialState.PRUNED if record["state"] == "pruned" else TrialState.FAIL
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if values else ended,
        values=values,
        constraints=record.get("violations", {}) if values else None,
        params=placed.params,
        distributions=placed.distributions,
        user_attrs={**attributes, REPLAYED: True},
    )


def _values(record: dict[str, Any]) -> list[float] | None:
    """The objectives of a record, None if one of them is undefined: Optuna then counts the trial as failed."""
    values = record.get("values")
    return None if values is None or None in values else values


def tell(study: optuna.Study, trial: Trial, record: dict[str, Any]) -> None:
    """Give Optuna the values of a finished trial, and by how much it misses the requirements."""
    for words, violation in record.get("violations", {}).items():
        trial.set_constraint(words, violation)
    study.tell(trial, record["values"])


def _queue_grid(study: optuna.Study, search: Search) -> None:
    """Queue the points of a grid that the study does not have, in an order that is shuffled but always the same."""
    trials = study.get_trials(deepcopy=False)
    there = [trial.params for trial in trials if trial.state not in (TrialState.WAITING, TrialState.FAIL)]
    there += [trial.system_attrs["fixed_params"] for trial in trials if trial.state == TrialState.WAITING]
    known = {json.dumps(values, sort_keys=True) for values in there}
    points = list(search.space.points())
    for i in np.random.default_rng(search.seed).permutation(len(points)):
        if json.dumps(points[i], sort_keys=True) not in known:
            study.enqueue_trial(points[i])


def reconcile(study: optuna.Study, records: dict[int, dict[str, Any]]) -> None:
    """Make the journal follow the records after an interruption.

    A trial that Optuna thinks is running is told what its record says, its values or that it was pruned; without such a
    record it is failed and its parameters queued again, ahead of new suggestions. So are those of failed trials: the
    next start retries them. Named ones ``open_study`` has queued.

    Args:
        records: ``trials/*.json`` by trial number.
    """
    trials = study.get_trials(deepcopy=False)
    queued = [trial.system_attrs.get("fixed_params") for trial in trials if trial.state == TrialState.WAITING]
    for trial in trials:
        record = records.get(trial.number)
        if _cut_off(trial, records):
            study.tell(trial.number, state=TrialState.FAIL)
            if not trial.user_attrs.get("label"):
                study.enqueue_trial(trial.params, user_attrs=_kept(trial.user_attrs))
        elif trial.state == TrialState.RUNNING and record["state"] == "finished":
            tell(study, Trial(study, trial._trial_id), record)
        elif trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.PRUNED)
        elif trial.state == TrialState.FAIL and _can_be_retried(trial, record) and trial.params not in queued:
            study.enqueue_trial(trial.params, user_attrs=_kept(trial.user_attrs))


def hyperparameters_of(trial: FrozenTrial) -> dict[str, Any]:
    return trial.user_attrs.get("fixed") or trial.params


def _cut_off(trial: FrozenTrial, records: dict[int, dict[str, Any]]) -> bool:
    """Whether Optuna thinks that it is running, and no record says how it ended."""
    ended = records.get(trial.number, {}).get("state") in ("finished", "pruned")
    return trial.state == TrialState.RUNNING and not ended


def _can_be_retried(trial: FrozenTrial, record: dict[str, Any] | None) -> bool:
    """A failed trial is queued again once; by ``open_study`` a named one, as long as its space has it, and a grid's."""
    return record is not None and not record.get("retried") and not trial.user_attrs.get("label")


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key in ("label", "fixed")}
