"""The search: which configuration runs next, with Optuna.

The trial records are the only source. Every call of a sweep builds an Optuna study in memory from them, and proposes
from there. ``journal.log`` is an export of that study for optuna-dashboard and is never read.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FixedTrial, FrozenTrial, Trial, TrialState

from search_spaces import Space
from search_spaces.space import walk
from study.common.groups import LANGUAGES, MODALITIES, Cell, cells
from study.config.config_id import config_id
from study.config.settings import Settings, flatten
from study.search.nsga import Nsga2, Nsga3
from study.search.objectives import SearchObjectives
from study.search.random_search import random_points

Direction = Literal["maximize", "minimize"]
DIRECTIONS: dict[str, Direction] = {"max": "maximize", "min": "minimize"}
STARTUP_TRIALS = 5  # before TPE fits a model; the baselines are among them
POPULATION_SIZE = 20  # of NSGA-II and NSGA-III, which search at random up to this number of trials
MAX_REPEATS = 50  # proposals in a row of configurations that have run, before the space is searched for a new one
SEED_STRIDE = 1_000_003  # between sampler seeds; larger than the number of trials of a study

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    "nsga2": lambda seed: Nsga2(seed=seed, population_size=POPULATION_SIZE),
    "nsga3": lambda seed: Nsga3(seed=seed, population_size=POPULATION_SIZE),
}
"""Samplers that learn from trials. ``random`` and ``grid`` are sequences of points instead (``Search.points``)."""


@dataclass(frozen=True)
class Search:
    """What a sweep searches, and how.

    Attributes:
        name: of the study.
        settings: of every trial, before its hyperparameters are applied.
        sampler: one of ``SAMPLERS``, ``random`` or ``grid``.
        seed: of the sampler.
        retries: how often a failing trial is tried again within one call.
        cells: of the study; they decide which coefficients make the same configuration.
    """

    name: str
    space: Space
    settings: Settings
    search_objectives: SearchObjectives = SearchObjectives()
    sampler: str = "tpe"
    seed: int = 0
    retries: int = 0
    cells: tuple[Cell, ...] = cells(LANGUAGES, MODALITIES)

    @property
    def directions(self) -> list[Direction]:
        return [DIRECTIONS[mode] for _, mode in self.search_objectives.objectives]

    def points(self) -> Iterator[dict[str, Any]] | None:
        """Return the points of a grid (shuffled) or of random search in their order; None for other samplers."""
        if self.sampler == "grid":
            points = list(self.space.points())
            return (points[i] for i in np.random.default_rng(self.seed).permutation(len(points)))
        return random_points(self.space, self.seed * SEED_STRIDE % 2**32) if self.sampler == "random" else None

    def config_key(self, hyperparameters: Mapping[str, Any]) -> str:
        """Return a key that is equal for hyperparameters which make the same configuration."""
        return config_id(self.settings.with_overrides(hyperparameters), self.cells, "", "")

    def point_of(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the point of the space that a trial ran at, None if it lies outside the space.

        A hyperparameter that was not searched then has the value of the study's settings.
        """
        point = self.point_with(flatten(self.settings.with_overrides(hyperparameters).model_dump(mode="json")))
        return point if point is not None and hyperparameters.keys() <= point.keys() else None

    def point_with(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the point of the space with these settings (by dotted name), None if one of them is out of range."""
        searched = self.space.hyperparameters
        point = walk(searched, lambda hyperparameter: settings.get(hyperparameter.name, hyperparameter.default))
        inside = all(each.allows(point[each.name]) for each in searched if each.name in point)
        return point if inside else None


@dataclass(frozen=True)
class Proposal:
    """A configuration to run. ``label`` is the name of a baseline."""

    trial: Trial
    hyperparameters: dict[str, Any]

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def label(self) -> str | None:
        return self.trial.user_attrs.get("label")


class Proposer:
    """Proposes the configurations of one call of a sweep.

    First come, in this order: the baselines that have not finished, the trials that failed, and the trials that were
    cut off. They always run. After that no configuration is proposed that has run.

    A trial keeps the number of its record. New trials are numbered after the last record.

    Attributes:
        study: the Optuna study in memory.
        retried: records of the failed trials that this call runs again.
    """

    def __init__(
        self, search: Search, records: Mapping[int, dict[str, Any]], unrecorded: Sequence[dict[str, Any]] = ()
    ):
        """Build the study.

        Args:
            records: the trial records by number.
            unrecorded: points of the space whose trials were cut off before they had a record.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search = search
        self._journal = _MemoryJournal()
        self.study = optuna.create_study(
            storage=JournalStorage(self._journal), study_name=search.name, directions=search.directions
        )
        for number in range(max(records, default=-1) + 1):
            record = records.get(number)  # None: the trial was cut off
            self.study.add_trial(
                _past_trial(search, record) if record else optuna.trial.create_trial(state=TrialState.FAIL)
            )

        done = [record for record in records.values() if record["state"] != "failed"]
        self._seen = {search.config_key(record["hyperparameters"]) for record in done}
        self._queue: deque[tuple[dict[str, Any], dict[str, Any]]] = deque()  # hyperparameters and user attributes
        self.retried: list[dict[str, Any]] = []
        self._fill_queue(records, unrecorded)

        self._points = search.points()
        self._finite = bool(search.space.hyperparameters) and search.space.finite
        self._candidates = search.space.points() if self._finite else iter(())
        self._candidate = next(self._candidates, None)
        if search.sampler in SAMPLERS:
            # Another seed at each call, or a sampler would repeat its proposals.
            trials = len(self.study.get_trials(deepcopy=False)) + len(self._queue)
            self.study.sampler = SAMPLERS[search.sampler]((search.seed * SEED_STRIDE + trials) % 2**32)

    def _fill_queue(self, records: Mapping[int, dict[str, Any]], unrecorded: Sequence[dict[str, Any]]) -> None:
        search = self.search
        failed = [record for record in records.values() if record["state"] == "failed"]
        finished_labels = {record["label"] for record in records.values() if record["state"] != "failed"}
        baselines = [baseline for baseline in search.space.baselines if baseline.label not in finished_labels]
        queued = set()
        for baseline in baselines:
            attributes = {"label": baseline.label, **({"fixed": dict(baseline.fixed)} if baseline.fixed else {})}
            self._queue.append((dict(baseline.hyperparameters), attributes))
            queued.add(search.config_key(baseline.fixed or baseline.hyperparameters))
        labels = {baseline.label for baseline in baselines}
        self.retried += [record for record in failed if record["label"] in labels]
        for record in failed:
            key = search.config_key(record["hyperparameters"])
            if record["label"] or key in self._seen:
                continue
            self.retried.append(record)
            if key not in queued:
                point = search.point_of(record["hyperparameters"])
                self._queue.append((point, {}) if point is not None else ({}, {"fixed": record["hyperparameters"]}))
                queued.add(key)
        for point in unrecorded:
            key = search.config_key(point)
            if key not in self._seen | queued:
                self._queue.append((point, {}))
                queued.add(key)

    def propose(self) -> Proposal | None:
        """Return the next configuration, None if the space has no other."""
        if self._queue:
            return self._propose(*self._queue.popleft())
        if self._points is not None:
            if self._finite and self._remaining_point() is None:
                return None
            return self._propose(next(point for point in self._points if not self._has_run(point)), {})
        for _ in range(MAX_REPEATS):
            trial = self.study.ask()
            hyperparameters = self.search.space.suggest(trial)
            if not self._has_run(hyperparameters):
                self._seen.add(self.search.config_key(hyperparameters))
                return Proposal(trial, hyperparameters)
            self.fail(trial)
        point = self._remaining_point()
        return None if point is None else self._propose(point, {})

    def _has_run(self, hyperparameters: Mapping[str, Any]) -> bool:
        return self.search.config_key(hyperparameters) in self._seen

    def _remaining_point(self) -> dict[str, Any] | None:
        """Return the first point of a finite space that has not run, None if there is none or the space is infinite."""
        while self._candidate is not None and self._has_run(self._candidate):
            self._candidate = next(self._candidates, None)
        return self._candidate

    def _propose(self, point: dict[str, Any], attributes: dict[str, Any]) -> Proposal:
        self.study.enqueue_trial(point, user_attrs=attributes)
        trial = self.study.ask()
        hyperparameters = self.search.space.suggest(trial)
        self._seen.add(self.search.config_key(hyperparameters))
        return Proposal(trial, hyperparameters)

    def finish(self, trial: Trial, metrics: Mapping[str, float | None]) -> None:
        """Tell Optuna the metrics of a finished trial; the trial fails if one of them is missing or not finite."""
        search_objectives = self.search.search_objectives
        values = {metric: value for metric in search_objectives.metrics if (value := metrics.get(metric)) is not None}
        if len(values) < len(search_objectives.metrics) or not all(map(math.isfinite, values.values())):
            self.fail(trial)
            return
        for constraint, violation in search_objectives.violations(values).items():
            trial.set_constraint(constraint, violation)
        self.study.tell(trial, [values[metric] for metric, _ in search_objectives.objectives])

    def prune(self, trial: Trial) -> None:
        """Tell Optuna that a trial was stopped early."""
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial) -> None:
        self.study.tell(trial, state=TrialState.FAIL)

    def journal(self) -> bytes:
        """Return the study as a journal that ``optuna.storages.journal.JournalFileBackend`` reads."""
        return "".join(self._journal.lines).encode()


class _MemoryJournal(BaseJournalBackend):
    """Keeps the log of Optuna's ``JournalStorage`` in memory, in the format of its files."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.lines[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.lines += [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]


def _past_trial(search: Search, record: dict[str, Any]) -> FrozenTrial:
    """Return a record as an Optuna trial.

    A trial outside the space keeps its values and its hyperparameters (as ``fixed``), but has no parameters that a
    sampler could learn from.
    """
    label, hyperparameters = record["label"], record["hyperparameters"]
    baseline = next((baseline for baseline in search.space.baselines if baseline.label == label), None)
    outside = bool(baseline.fixed) if baseline else label is not None
    point = None if outside else search.point_of(hyperparameters)
    placed = FixedTrial(point or {})
    if point:
        search.space.suggest(placed)
    values = record["values"] if record["state"] == "finished" else None
    complete = values is not None and None not in values
    unfinished = TrialState.PRUNED if record["state"] == "pruned" else TrialState.FAIL
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if complete else unfinished,
        values=values if complete else None,
        constraints=record.get("violations", {}) if complete else None,
        params=placed.params,
        distributions=placed.distributions,
        user_attrs={
            **({"label": label} if label else {}),
            **({"fixed": hyperparameters} if point is None else {}),
        },
    )
