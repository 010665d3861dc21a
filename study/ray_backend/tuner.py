"""Ray Tune around the training code: the sweep, one driver for each trial, and the records of failed trials.

A trial is one configuration with all of its seeds. It runs in one worker group, which then takes the next trial
(``study.ray_backend.worker_group``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from study.ray_backend.cluster import capacity, driver_resources, driver_slots, max_concurrent_trials
from study.ray_backend.failure_reason import failure_reason
from study.ray_backend.ray_internals import treat_out_of_memory_as_dead_actor
from study.ray_backend.scheduler import MoAshaScheduler
from study.ray_backend.searcher import ListSearcher, ProposerSearcher
from study.ray_backend.worker_group import WorkerGroup
from study.search.mo_asha import MoAshaConfig, RungDecision, Rungs
from study.search.objectives import epoch_metrics, mean_metrics
from study.search.optuna_study import Proposer, Search
from study.search.trial_records import (
    TrialTemplate,
    read_finished_runs,
    result_record,
    trial_record,
    unfinished_seeds,
    unrecorded_points,
)
from study.storage.records import read_trial, run_directory, write_trial
from study.storage.study_state import StudyState

PROGRESS_METRICS = ("dev_w_f1", "dev_gap")
"""Shown while a trial runs, whatever the search objectives are."""
JOURNAL = "journal.log"


def run_trials(
    template: TrialTemplate,
    search: Search,
    state: StudyState,
    trials: int,
    callbacks: Sequence[tune.Callback],
    early_stopping: MoAshaConfig | None = None,
) -> None:
    """Search until ``trials`` trials have finished or were stopped early. Ray must be connected.

    Trials that failed in earlier calls are tried again once. The Optuna study is exported to ``journal.log`` at the
    start and after each trial.
    """
    proposer = Proposer(search, state.trials, unrecorded_points(template, search, state))

    def export_journal() -> None:
        template.folder.write_bytes(JOURNAL, proposer.journal())

    export_journal()
    if state.trials_done >= trials:
        return
    for record in proposer.retried:
        if not record.get("retried"):
            state.write_trial({**record, "retried": True})
    objectives = search.search_objectives.objectives
    scheduler = _scheduler(template, state, early_stopping, objectives) if early_stopping else None
    searcher = ProposerSearcher(proposer, export_journal)
    _tune(template, searcher, trials - state.trials_done, search.retries, callbacks, scheduler)
    state.refresh()
    _remove_checkpoints_of_pruned_trials(template, state)


def run_missing_seeds(
    template: TrialTemplate, records: Sequence[dict[str, Any]], retries: int, callbacks: Sequence[tune.Callback]
) -> None:
    """Run the missing seeds of finished trials.

    Args:
        records: of these trials.
    """
    suggestions = [
        {**record["hyperparameters"], "number": record["number"], "label": record["label"]} for record in records
    ]
    _tune(template, ListSearcher(suggestions), len(suggestions), retries, callbacks)


def _tune(
    template: TrialTemplate,
    searcher: ProposerSearcher | ListSearcher,
    samples: int,
    retries: int,
    callbacks: Sequence[tune.Callback],
    scheduler: MoAshaScheduler | None = None,
) -> None:
    treat_out_of_memory_as_dead_actor()
    resources = capacity()
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(TrialDriver, template=template),
            tune.PlacementGroupFactory([driver_resources(resources)]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=samples,
            max_concurrent_trials=min(max_concurrent_trials(template.parallelism, resources), driver_slots()),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=template.folder.path("ray"),
            callbacks=[FailureRecorder(template), *callbacks],
            failure_config=tune.FailureConfig(max_failures=retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs write their own checkpoints
            verbose=0,
        ),
    )
    tuner.fit()


def _scheduler(
    template: TrialTemplate, state: StudyState, config: MoAshaConfig, objectives: Sequence[tuple[str, str]]
) -> MoAshaScheduler:
    """Return a scheduler that knows the epochs of earlier calls and writes the records of the trials it stops."""
    first_seed = template.seeds[0]
    rungs = Rungs(config, template.settings.optimisation.epochs)
    rungs.load(state, first_seed, objectives)

    def write_pruned_record(suggestion: dict[str, Any], result: dict[str, Any], decision: RungDecision) -> None:
        reason = f"stopped early, seed {first_seed}, {decision}"
        outcome = {"state": "pruned", "reason": reason, "seconds": result["time_total_s"]}
        write_trial(template.folder, {**trial_record(suggestion, template), **outcome})

    return MoAshaScheduler(rungs, objectives, first_seed, write_pruned_record)


def _remove_checkpoints_of_pruned_trials(template: TrialTemplate, state: StudyState) -> None:
    pruned = [record for record in state.trials.values() if record["state"] == "pruned"]
    if pruned:
        from study.training import checkpointing  # imports torch

        for record in pruned:
            checkpointing.remove(template.folder, run_directory(record["config_id"], template.seeds[0]))


class FailureRecorder(tune.Callback):
    """Writes the record of a failed trial, also if its driver died. An interrupted trial has not failed.

    If the trial had finished before and failed in a seed that was added later, its record keeps its results; seed and
    reason are added as ``failed_seeds``.
    """

    def __init__(self, template: TrialTemplate):
        self.template = template
        self.started: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.started[trial.trial_id] = time.time()

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = trial_record(trial.config, self.template)
        error_file = Path(trial.error_file or "")
        reason = failure_reason(error_file.read_text(errors="replace") if error_file.is_file() else "")
        existing = read_trial(self.template.folder, record["number"])
        if existing and existing["state"] == "finished":
            failed_seed = unfinished_seeds(self.template, record["config_id"])[:1]  # they run in this order
            write_trial(self.template.folder, {**existing, "failed_seeds": {str(seed): reason for seed in failed_seed}})
            return
        now = time.time()
        outcome = {
            "state": "failed",
            "reason": reason,
            "log": self._log(record["config_id"], Path(trial.path).name, error_file.name),
            "seconds": now - self.started.get(trial.trial_id, now),  # never started: the driver died at once
        }
        write_trial(self.template.folder, {**record, **outcome})

    def _log(self, config_id: str, trial: str, error_file: str) -> str:
        """Return the folder of the workers' logs, or Tune's error file if no worker started."""
        folder = self.template.folder
        has_logs = any(name.endswith(".log") for name in folder.names(f"runs/{config_id}"))
        return folder.path("runs", config_id) if has_logs else folder.path("ray", "tune", trial, error_file)


class TrialDriver(tune.Trainable):
    """The Tune actor of one trial after another.

    It runs the unfinished seeds of a configuration, reports each epoch, and writes the trial's record. The record is
    written before Optuna is told, so a finished trial is never lost.
    """

    def setup(self, config: dict[str, Any], template: TrialTemplate) -> None:  # type: ignore[override]
        self.template = template  # from tune.with_parameters
        self.workers: WorkerGroup | None = None
        self._prepare(config)

    def _prepare(self, suggestion: dict[str, Any]) -> None:
        self.created = time.perf_counter()
        self.record = trial_record(suggestion, self.template)
        self.started = self.training = False

    def _start(self) -> None:
        """Start training; called by the first step, because Tune may set up an actor for a trial and then give the
        trial to another actor that has become free."""
        self.started = True
        seeds = unfinished_seeds(self.template, self.record["config_id"])
        self.training = bool(seeds)
        if seeds:
            self.workers = self.workers or WorkerGroup(self.template)
            settings = self.template.settings.with_overrides(self.record["hyperparameters"])
            self.workers.start(settings, self.record["config_id"], tuple(seeds))

    def step(self) -> dict[str, Any]:
        if not self.started:
            self._start()
        row = self.workers.next_row() if self.workers and self.training else None
        if row is not None:
            metrics = epoch_metrics((*PROGRESS_METRICS, *self.template.search_objectives.metrics), row)
            where = {key: row[key] for key in ("seed", "epoch", "config_id")}
            return {**where, **metrics, "number": self.record["number"], "complete": False}
        self.training = False
        return {**self._finish(), "complete": True, "done": True}

    def _finish(self) -> dict[str, Any]:
        template, number, config_id = self.template, self.record["number"], self.record["config_id"]
        existing = read_trial(template.folder, number) or {"seconds": 0.0}  # the trial had fewer seeds before
        seconds = existing["seconds"] + time.perf_counter() - self.created
        runs = read_finished_runs(template, config_id)
        outcome = {"state": "finished", "reason": None, "seconds": seconds}
        write_trial(template.folder, {**self.record, **outcome, **result_record(template.search_objectives, runs)})
        metrics = mean_metrics(dict.fromkeys((*PROGRESS_METRICS, *template.search_objectives.metrics)), runs)
        return {**metrics, "config_id": config_id, "number": number}

    def reset_config(self, suggestion: dict[str, Any]) -> bool:
        self._stop_training()
        self._prepare(suggestion)
        return True

    def cleanup(self) -> None:
        self._stop_training()
        if self.workers:
            self.workers.shut_down()

    def _stop_training(self) -> None:
        """Tell the workers of a trial that was stopped early, which wait for the decision about their last epoch."""
        if self.workers and self.training:
            self.workers.stop_training()
            self.training = False
