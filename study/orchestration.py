"""Ray around the trainer: a Tune driver a trial, a TorchTrainer in it, and the resources of both.

One trial is one configuration over its seeds in one worker group. Its driver takes a little memory and no core, so it
can never hold the place that workers, its own or another study's, wait for.
"""

from __future__ import annotations

import glob
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray import tune
from ray._private.state import state as ray_state  # Ray has no public way to its autoscaler's limits
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.execution import class_cache
from ray.tune.integration.ray_train import TuneReportCallback

from study.early_stopping import MoAsha
from study.goals import Goals, mean_metrics
from study.groups import Cell
from study.halving import Halving, Rungs, Standing
from study.machine import LIBRARIES
from study.records import StudyFolder, read_trial, read_trials, run_directory, trials_done, write_trial
from study.searcher import Listed, Search, make_searcher, open_journal, open_study, reconcile
from study.settings import Placement, Settings, SettingsError, config_id

SHOWN = ("dev_w_f1", "dev_gap")
"""What the progress shows, whatever the objectives."""
DRIVER = {"CPU": 0, "memory": 256 * 1024**2}
DRIVER_PLACE = "driver"
"""A resource that a cluster offers where drivers should live: on its head, which is no spot instance."""
ENVIRONMENT = {
    **LIBRARIES,
    "RAY_AIR_NEW_OUTPUT": "0",  # no banners
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the script, which says what is kept
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an epoch has not every objective; the end of a trial has
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon the controller sees a report and the end of a run
}
JOINED = {  # a machine that the autoscaler has to start, and to set up, takes minutes
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
}
CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"}
ALONE = {  # processes of Ray Train that a private Ray on one machine has no use for; each costs seconds a trial
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@dataclass(frozen=True)
class TrialTemplate:
    """What all trials of a study share; plain data, so that it travels."""

    settings: Settings
    placement: Placement
    seeds: tuple[int, ...]
    features: Path
    backbone: str
    cells: tuple[Cell, ...]
    corpus_hash: str
    backbone_hash: str
    folder: StudyFolder
    use_gpu: bool
    goals: Goals = Goals()


def in_reach() -> int | None:
    """GPUs, or cores if there are none, of this machine; None where a running cluster will be used instead."""
    if os.environ.get("RAY_ADDRESS"):
        return None
    return len(glob.glob("/dev/nvidia[0-9]*")) or os.cpu_count()


def set_environment() -> None:
    """Quiet the libraries in this process; to be called before they are imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not glob.glob("/dev/nvidia[0-9]*"):
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def connect(stops_trials: bool) -> str:
    """Join the cluster of ``RAY_ADDRESS`` (Ray's jobs have it), or start a private local one.

    Args:
        stops_trials: whether trials may be stopped early. Ray Train (2.60) then gives back the places of their workers
            only where the dashboard's server tells it that their controller is gone, and looks for that server in vain
            where several Rays run on the machine, unless it is told.

    Returns:
        Where the study runs, for the user.
    """
    # Tune would copy these to its workers by a runtime environment, which Ray logs; each machine has its own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    if os.environ.get("RAY_ADDRESS"):
        in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # then its working_dir is on every node's path already
        variables = ENVIRONMENT | JOINED | ({} if in_job else {"PYTHONPATH": path})
        ray.init(runtime_env={"env_vars": variables}, **quiet)
        where = "the Ray cluster"
    else:  # "auto" would also join the private Ray of another sweep, and die with it
        # By inheritance, not by a runtime_env: that would keep Ray from using the worker processes it has waiting.
        os.environ |= {**ALONE, "PYTHONPATH": path}
        if stops_trials:
            port = _free_port()
            os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
            quiet["dashboard_port"] = port
        ray.init(address="local", include_dashboard=stops_trials, **quiet)
        where = "this machine"
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what failed is in the records; Tune would print it thrice
    have = capacity()
    return f"{where}: {have.get('CPU', 0):g} cores, {have.get('GPU', 0):g} GPUs"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def capacity() -> dict[str, float]:
    """What the cluster has, or can grow to if it has an autoscaler, such as GPU workers that start from none."""
    have = ray.cluster_resources()
    most = ray_state.get_max_resources_from_cluster_config() or {}
    return {name: float(max(have.get(name, 0), most.get(name, 0))) for name in have | most}


def has_gpus() -> bool:
    """Whether workers get a GPU each."""
    return capacity().get("GPU", 0) > 0


def driver_resources(resources: dict[str, float]) -> dict[str, float]:
    """What a trial's driver asks for: a ``DRIVER_PLACE`` where the cluster offers any."""
    return {**DRIVER, DRIVER_PLACE: 1} if resources.get(DRIVER_PLACE) else dict(DRIVER)


def worker_resources(use_gpu: bool) -> dict[str, float]:
    """What each rank of a trial asks for."""
    return {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}


def require_room(placement: Placement) -> None:
    """Refuse a trial that could never be placed, instead of waiting for ever.

    Raises:
        SettingsError: the cluster has fewer GPUs (or cores, if it has none) than ``--ranks``.
    """
    resources = capacity()
    if not concurrent_trials(placement, resources):
        have = f"{resources.get('GPU', 0):g} GPUs and {resources.get('CPU', 0):g} cores"
        raise SettingsError([f"--ranks: {placement.ranks} workers asked for, the cluster has {have}; use fewer"])


def concurrent_trials(placement: Placement, resources: dict[str, float]) -> int:
    """How many trials the cluster holds at once; 0 if not even one."""
    slots = resources.get("GPU", 0) or resources.get("CPU", 0)
    return int(slots // placement.ranks)


def run_trials(
    template: TrialTemplate,
    search: Search,
    trials: int,
    callbacks: Sequence[tune.Callback],
    halving: Halving | None = None,
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
    scheduler = _scheduler(template, halving, search.goals.objectives) if halving else None
    _tune(template, searcher, trials - trials_done(records.values()), callbacks, scheduler)
    _drop_checkpoints(template)


def trials_without_seeds(template: TrialTemplate) -> list[dict[str, Any]]:
    """The records of finished trials that lack seeds of the study, which has got more since; one a configuration."""
    lacking = {
        record["config_id"]: record
        for record in read_trials(template.folder).values()
        if record["state"] == "finished" and _missing(template, record["config_id"])
    }
    return sorted(lacking.values(), key=lambda record: record["number"])


def add_seeds(template: TrialTemplate, records: Sequence[dict[str, Any]], callbacks: Sequence[tune.Callback]) -> None:
    """Run the seeds that finished trials lack, and those alone."""
    given = [{**record["knobs"], "number": record["number"], "label": record["label"]} for record in records]
    _tune(template, Listed(given), len(given), callbacks)


def refresh_trials(template: TrialTemplate) -> None:
    """Bring records up to the seeds that have finished: a configuration may stand under two numbers, and a call may be
    cut off between a run and its record."""
    seeds = {str(seed) for seed in template.seeds}
    for record in read_trials(template.folder).values():
        behind = record["state"] == "finished" and set(record.get("by_seed", {})) != seeds
        if behind and not _missing(template, record["config_id"]):
            whole = {key: value for key, value in record.items() if key != "failed_seeds"}
            write_trial(template.folder, {**whole, **result_record(template, record["config_id"])})


def _tune(
    template: TrialTemplate,
    searcher: Any,
    samples: int,
    callbacks: Sequence[tune.Callback],
    scheduler: MoAsha | None = None,
) -> None:
    resources = capacity()
    tuner = tune.Tuner(
        tune.with_resources(
            partial(drive_trial, template=template), tune.PlacementGroupFactory([driver_resources(resources)])
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=samples,
            max_concurrent_trials=concurrent_trials(template.placement, resources),
            reuse_actors=not scheduler,  # the driver of a stopped trial still waits for its workers, and goes with them
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=_ray_path(template.folder),
            callbacks=[FailureRecorder(template), *callbacks],
            verbose=0,
        ),
    )
    tuner.fit()
    _drop_checkpoints(template)


def _scheduler(template: TrialTemplate, halving: Halving, objectives: Sequence[tuple[str, str]]) -> MoAsha:
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
        from study import checkpoints  # torch

        for record in pruned:
            checkpoints.remove(template.folder, run_directory(record["config_id"], template.seeds[0]))


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
        reason = _reason(trial.error_file)
        before = read_trial(self.template.folder, record["number"])
        if before and before["state"] == "finished":
            failed = {
                str(seed): reason for seed in _missing(self.template, record["config_id"])[:1]
            }  # the first to run
            write_trial(self.template.folder, {**before, "failed_seeds": failed})
            return
        record |= {
            "state": "failed",
            "reason": reason,
            "seconds": time.time() - self.started.get(trial.trial_id, time.time()),
        }
        write_trial(self.template.folder, record)


def trial_record(suggestion: dict[str, Any], template: TrialTemplate) -> dict[str, Any]:
    """What is known of a trial from its suggestion: number, label, knobs, and the configuration's name."""
    knobs = {key: value for key, value in suggestion.items() if key not in ("number", "label")}
    settings = template.settings.with_overrides(knobs)
    return {
        "number": suggestion["number"],
        "label": suggestion["label"],
        "knobs": knobs,
        "config_id": config_id(settings, template.cells, template.corpus_hash, template.backbone_hash),
    }


def drive_trial(suggestion: dict[str, Any], template: TrialTemplate) -> None:
    """One trial, in its Tune driver: run what is missing of its configuration, write its record, report the objectives.

    The record is written before Optuna hears of it, see ``study.searcher.reconcile``.
    """
    started = time.perf_counter()
    record = trial_record(suggestion, template)
    identity = record["config_id"]
    missing = _missing(template, identity)
    if missing:
        _train(template, template.settings.with_overrides(record["knobs"]), identity, missing, record["number"])
    before = read_trial(template.folder, record["number"]) or {"seconds": 0.0}  # when it had fewer seeds
    seconds = before["seconds"] + time.perf_counter() - started
    record |= {"state": "finished", "reason": None, "seconds": seconds}
    write_trial(template.folder, {**record, **result_record(template, identity)})
    values = mean_metrics(dict.fromkeys((*SHOWN, *template.goals.metrics)), _finished(template, identity))
    tune.report({**values, "config_id": identity, "number": record["number"], "complete": True})


def _train(template: TrialTemplate, settings: Settings, identity: str, seeds: list[int], number: int) -> None:
    placement = template.placement
    TorchTrainer(
        partial(_work, template=replace(template, settings=settings), identity=identity, seeds=seeds),
        train_loop_config={"number": number},
        torch_config=TorchConfig(backend="nccl" if template.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.ranks,
            use_gpu=template.use_gpu,
            resources_per_worker=worker_resources(template.use_gpu),
        ),
        run_config=ray.train.RunConfig(
            name=f"trial-{number:05d}",
            storage_path=_ray_path(template.folder),
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
        ),
    ).fit()


def _work(loop: dict[str, Any], template: TrialTemplate, identity: str, seeds: list[int]) -> None:
    """One rank: train and score every seed, reporting each epoch."""
    rank = ray.train.get_context().get_world_rank()
    if template.folder.is_local:
        _log_to(template.folder.path("runs", identity, f"worker-{rank}.log"))
    from study.trainer import RunPlan, train  # here, so that a driver does not spend seconds on importing it

    plan = RunPlan(
        settings=template.settings,
        placement=template.placement,
        config_id=identity,
        features=template.features,
        backbone=template.backbone,
        folder=template.folder,
    )
    for seed in seeds:
        train(plan, seed, lambda row: ray.train.report({**row, "config_id": identity, **loop, "complete": False}))


def _log_to(path: str) -> None:
    """Send everything this process prints, also from C, to a file of its own."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def result_record(template: TrialTemplate, identity: str) -> dict[str, Any]:
    """What a trial's record holds of its outcome: the objectives on dev, averaged over the seeds and of each seed, and
    by how much the requirements are missed."""
    runs, goals = _finished(template, identity), template.goals
    names = [metric for metric, _ in goals.objectives]
    means = mean_metrics(goals.metrics, runs)
    return {
        "values": [means[name] for name in names],
        "by_seed": {str(run["seed"]): list(mean_metrics(names, [run]).values()) for run in runs},
        "violations": goals.violations(means),
    }


def _finished(template: TrialTemplate, identity: str) -> list[dict[str, Any]]:
    return [template.folder.read_json(f"{run_directory(identity, seed)}/finished.json") for seed in template.seeds]


def _missing(template: TrialTemplate, identity: str) -> list[int]:
    """The seeds of a configuration that have not finished."""
    exists = template.folder.exists
    return [seed for seed in template.seeds if not exists(f"{run_directory(identity, seed)}/finished.json")]


def _reason(error_file: str | None) -> str:
    """The last line of what Tune kept of an error, which names the worker's own."""
    text = Path(error_file).read_text(errors="replace") if error_file and os.path.exists(error_file) else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "ended without saying why")[:500]


def _ray_path(folder: StudyFolder) -> str:
    return folder.path("ray")


def _journal_path(folder: StudyFolder) -> str:
    """Optuna's journal lies in the study folder; for a study on an object store, on the machine that drives it."""
    if folder.is_local:
        return folder.path("journal.log")
    local = Path.home() / ".cache" / "fair-ser" / "journals" / folder.uri.replace("/", "_")
    local.parent.mkdir(parents=True, exist_ok=True)
    return str(local)
