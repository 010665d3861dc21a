"""Ray around the trainer: a Tune driver a trial, a TorchTrainer in it, and the resources of both.

One trial is one configuration over its seeds in one worker group. Its driver takes a little memory and no core, so it
can never hold the place that workers, its own or another study's, wait for.
"""

from __future__ import annotations

import glob
import logging
import os
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

from study.groups import Cell
from study.machine import LIBRARIES
from study.records import StudyFolder, read_trials, run_directory, write_trial
from study.searcher import make_searcher, open_journal, open_study, reconcile
from study.settings import Placement, Settings, SettingsError, config_id

DRIVER = {"CPU": 0, "memory": 256 * 1024**2}
DRIVER_PLACE = "driver"
"""A resource that a cluster offers where drivers should live: on its head, which is no spot instance."""
ENVIRONMENT = {
    **LIBRARIES,
    "RAY_AIR_NEW_OUTPUT": "0",  # no banners
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches the script, which says what is kept
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


def connect() -> str:
    """Join the cluster of ``RAY_ADDRESS`` (Ray's jobs have it), or start a private local one.

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
        ray.init(address="local", include_dashboard=False, **quiet)
        where = "this machine"
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what failed is in the records; Tune would print it thrice
    have = capacity()
    return f"{where}: {have.get('CPU', 0):g} cores, {have.get('GPU', 0):g} GPUs"


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
    name: str,
    space: Any,
    trials: int,
    objectives: Sequence[tuple[str, str]],
    callbacks: Sequence[tune.Callback],
) -> None:
    """Search until ``trials`` trials have finished records; connected to Ray already.

    Trials that failed before are tried again first.
    """
    records = read_trials(template.folder)
    journal = _journal_path(template.folder)
    if not records:  # a journal without a single record is that of a study that was deleted or never got anywhere
        Path(journal).unlink(missing_ok=True)
    storage = open_journal(journal)
    study = open_study(storage, name, space, [mode for _, mode in objectives], records)
    reconcile(study, records)
    for record in records.values():
        if record["state"] == "failed" and not record.get("retried"):
            write_trial(template.folder, {**record, "retried": True})
    finished = sum(record["state"] == "finished" for record in records.values())
    resources = capacity()
    tuner = tune.Tuner(
        tune.with_resources(
            partial(drive_trial, template=template), tune.PlacementGroupFactory([driver_resources(resources)])
        ),
        tune_config=tune.TuneConfig(
            search_alg=make_searcher(
                storage, name, space, list(objectives), seed=len(study.get_trials(deepcopy=False))
            ),
            num_samples=trials - finished,
            max_concurrent_trials=concurrent_trials(template.placement, resources),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=_ray_path(template.folder),
            callbacks=[FailureRecorder(template), *callbacks],
            verbose=0,
        ),
    )
    tuner.fit()


class FailureRecorder(tune.Callback):
    """Keeps why a trial failed, also where its driver died; a trial cut off by Ctrl-C has not failed."""

    def __init__(self, template: TrialTemplate):
        self.template = template
        self.started: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.started[trial.trial_id] = time.time()

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        record = {
            **trial_record(trial.config, self.template),
            "state": "failed",
            "reason": _reason(trial.error_file),
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
    missing = [s for s in template.seeds if not template.folder.exists(f"{run_directory(identity, s)}/finished.json")]
    if missing:
        _train(template, template.settings.with_overrides(record["knobs"]), identity, missing, record["number"])
    values = _mean_objectives(template, identity)
    record |= {"state": "finished", "reason": None, "seconds": time.perf_counter() - started}
    write_trial(template.folder, {**record, "values": list(values.values())})
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


def _mean_objectives(template: TrialTemplate, identity: str) -> dict[str, float]:
    """The search's objectives: dev figures of the selected epochs, averaged over the seeds."""
    runs = [
        template.folder.read_json(f"{run_directory(identity, seed)}/finished.json")["dev"] for seed in template.seeds
    ]
    if any(run["gap"] is None for run in runs):
        raise ValueError("the dev gap is not defined: no cell of dev has both genders with an emotion in common")
    return {f"dev_{figure}": sum(run[figure] for run in runs) / len(runs) for figure in ("w_f1", "gap")}


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
