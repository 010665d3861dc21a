"""Ray Tune around the trainer: a driver a trial, the search, the records of what failed.

One trial is one configuration over its seeds in one worker group, which then takes the next
(``study.ray_backend.worker_group``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal import actor_manager  # Ray has no public way to what Tune takes for a dead actor
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller

from study.ray_backend.cluster import capacity, concurrent_trials, driver_resources, room_for_drivers
from study.ray_backend.failure_reason import reason_of
from study.ray_backend.scheduler import MoAsha
from study.ray_backend.searcher import Listed, make_searcher
from study.ray_backend.worker_group import WorkerGroup
from study.search.mo_asha import HalvingRule, Rungs, Standing
from study.search.objectives import epoch_metrics, mean_metrics
from study.search.optuna_study import Search, open_journal, open_study, reconcile
from study.search.trial_records import TrialTemplate, finished_figures, result_record, seeds_to_run, trial_record
from study.storage.records import read_trial, read_trials, run_directory, trials_done, write_trial
from study.storage.study_folder import StudyFolder

SHOWN = ("dev_w_f1", "dev_gap")
"""What the progress shows, whatever the objectives."""


def run_trials(
    template: TrialTemplate,
    search: Search,
    trials: int,
    callbacks: Sequence[tune.Callback],
    halving: HalvingRule | None = None,
) -> None:
    """Search until ``trials`` trials have finished or were stopped early; connected to Ray already.

    Trials that failed before are tried again first.
    """
    records = read_trials(template.folder)
    journal = _journal_path(template.folder)
    if not records:  # a journal without a single record is that of a study that was deleted or never got anywhere
        Path(journal).unlink(missing_ok=True)
    storage = open_journal(journal)
    study = open_study(storage, search, records)
    reconcile(study, records)
    for record in records.values():
        if record["state"] == "failed" and not record.get("retried"):
            write_trial(template.folder, {**record, "retried": True})
    searcher = make_searcher(storage, search, seed=len(study.get_trials(deepcopy=False)))
    scheduler = _scheduler(template, halving, search.search_objectives.objectives) if halving else None
    _tune(template, searcher, trials - trials_done(records.values()), search.retries, callbacks, scheduler)
    _drop_checkpoints(template)


def add_seeds(
    template: TrialTemplate, records: Sequence[dict[str, Any]], retries: int, callbacks: Sequence[tune.Callback]
) -> None:
    """Run the seeds that finished trials lack, and those alone."""
    given = [{**record["hyperparameters"], "number": record["number"], "label": record["label"]} for record in records]
    _tune(template, Listed(given), len(given), retries, callbacks)


def _tune(
    template: TrialTemplate,
    searcher: Any,
    samples: int,
    retries: int,
    callbacks: Sequence[tune.Callback],
    scheduler: MoAsha | None = None,
) -> None:
    # Tune (2.60) does not know the error of a driver that Ray's memory monitor has ended, and would end the search
    for module in (actor_manager, tune_controller):
        vars(module)["RayActorError"] = (RayActorError, OutOfMemoryError)
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
            max_concurrent_trials=min(concurrent_trials(template.parallelism, resources), room_for_drivers()),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=template.folder.path("ray"),
            callbacks=[FailureRecorder(template), *callbacks],
            failure_config=tune.FailureConfig(max_failures=retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # runs keep their own
            verbose=0,
        ),
    )
    tuner.fit()


def _scheduler(template: TrialTemplate, halving: HalvingRule, objectives: Sequence[tuple[str, str]]) -> MoAsha:
    """The scheduler of one call, with what earlier calls left at its rungs; it writes the records of pruned trials."""
    first_seed = template.seeds[0]
    rungs = Rungs(halving, template.settings.optimisation.epochs)
    rungs.refill(template.folder, first_seed, objectives)

    def keep(suggestion: dict[str, Any], result: dict[str, Any], standing: Standing) -> None:
        reason = f"stopped early, seed {first_seed}, {standing}"
        record = {"state": "pruned", "reason": reason, "seconds": result["time_total_s"]}
        write_trial(template.folder, {**trial_record(suggestion, template), **record})

    return MoAsha(rungs, objectives, first_seed, keep)


def _drop_checkpoints(template: TrialTemplate) -> None:
    """Give back the room of pruned trials, which nobody will go on with."""
    pruned = [record for record in read_trials(template.folder).values() if record["state"] == "pruned"]
    if pruned:
        from study.training import checkpointing  # torch

        for record in pruned:
            checkpointing.remove(template.folder, run_directory(record["config_id"], template.seeds[0]))


class FailureRecorder(tune.Callback):
    """Keeps why a trial failed, also where its driver died; a trial cut off by Ctrl-C has not failed.

    One that had finished, and failed in a seed that it was given since, keeps what it has: seed and reason stand in its
    ``failed_seeds``.
    """

    def __init__(self, template: TrialTemplate):
        self.template = template
        self.started: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.started[trial.trial_id] = time.time()

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = trial_record(trial.config, self.template)
        file = Path(trial.error_file or "")
        reason = reason_of(file.read_text(errors="replace") if file.is_file() else "")
        before = read_trial(self.template.folder, record["number"])
        if before and before["state"] == "finished":
            failed = {
                str(seed): reason for seed in seeds_to_run(self.template, record["config_id"])[:1]
            }  # the first to run
            write_trial(self.template.folder, {**before, "failed_seeds": failed})
            return
        now = time.time()  # one whose driver never lived was never started
        record |= {
            "state": "failed",
            "reason": reason,
            "log": self._log(record["config_id"], Path(trial.path).name, file.name),
            "seconds": now - self.started.get(trial.trial_id, now),
        }
        write_trial(self.template.folder, record)

    def _log(self, config_id: str, trial: str, error: str) -> str:
        """Where more stands: the folder of the workers' logs, or what Tune kept of a trial that no worker began."""
        folder = self.template.folder
        begun = any(name.endswith(".log") for name in folder.names(f"runs/{config_id}"))
        return folder.path("runs", config_id) if begun else folder.path("ray", "tune", trial, error)


class TrialDriver(tune.Trainable):
    """One trial in its Tune actor: runs what is missing of a configuration, writes its record, reports the objectives.

    The actor, and its workers, then take the next trial. The record is written before Optuna hears of it, see
    ``study.search.optuna_study.reconcile``.
    """

    def setup(self, suggestion: dict[str, Any], template: TrialTemplate) -> None:
        self.template = template
        self.workers: WorkerGroup | None = None
        self._take(suggestion)

    def _take(self, suggestion: dict[str, Any]) -> None:
        self.started = time.perf_counter()
        self.record = trial_record(suggestion, self.template)
        self.begun = self.at_work = False

    def _begin(self) -> None:
        """Give the trial to the workers; not before its first step, since Tune may set up an actor for a trial and then
        give the trial to another that has become free."""
        self.begun = True
        missing = seeds_to_run(self.template, self.record["config_id"])
        self.at_work = bool(missing)
        if missing:
            self.workers = self.workers or WorkerGroup(self.template)
            settings = self.template.settings.with_overrides(self.record["hyperparameters"])
            self.workers.start(settings, self.record["config_id"], tuple(missing))

    def step(self) -> dict[str, Any]:
        if not self.begun:
            self._begin()
        row = self.workers.next_row() if self.workers and self.at_work else None
        if row is not None:
            told = {key: row[key] for key in ("seed", "epoch", "config_id")}
            figures = epoch_metrics((*SHOWN, *self.template.search_objectives.metrics), row)
            return {**told, **figures, "number": self.record["number"], "complete": False}
        self.at_work = False
        return {**self._finished(), "complete": True, "done": True}

    def _finished(self) -> dict[str, Any]:
        template, number, identity = self.template, self.record["number"], self.record["config_id"]
        before = read_trial(template.folder, number) or {"seconds": 0.0}  # when it had fewer seeds
        seconds = before["seconds"] + time.perf_counter() - self.started
        outcome = {"state": "finished", "reason": None, "seconds": seconds, **result_record(template, identity)}
        write_trial(template.folder, {**self.record, **outcome})
        values = mean_metrics(
            dict.fromkeys((*SHOWN, *template.search_objectives.metrics)), finished_figures(template, identity)
        )
        return {**values, "config_id": identity, "number": number}

    def reset_config(self, suggestion: dict[str, Any]) -> bool:
        self._leave()
        self._take(suggestion)
        return True

    def cleanup(self) -> None:
        self._leave()
        if self.workers:
            self.workers.end()

    def _leave(self) -> None:
        """Of a trial that was stopped early, its workers still wait for the verdict."""
        if self.workers and self.at_work:
            self.workers.abandon()
            self.at_work = False


def _journal_path(folder: StudyFolder) -> str:
    """Optuna's journal lies in the study folder; for a study on an object store, on the machine that drives it."""
    if folder.is_local:
        return folder.path("journal.log")
    local = Path.home() / ".cache" / "fair-ser" / "journals" / folder.uri.replace("/", "_")
    local.parent.mkdir(parents=True, exist_ok=True)
    return str(local)
