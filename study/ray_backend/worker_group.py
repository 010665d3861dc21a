"""A worker group of Ray Train that lives longer than a trial: it takes one configuration after another.

New workers cost ten seconds and more: processes, imports, the backbone. These keep all of it, and what their last run
can leave to the next (``study.training.run_data``, ``study.models.base_weights``). Trial and workers meet in a small
actor, to which configurations come from one side and the rows of epochs from the other. After each epoch the workers
wait for the verdict on it, so that a trial which is stopped early has stopped there, and its workers are free.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.util import get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.config.settings import Settings
from study.ray_backend.cluster import give_back_places, worker_resources
from study.ray_backend.job_queue import Job, JobQueue
from study.search.trial_records import TrialTemplate

CHECK_SECONDS = 1.0  # how often a waiting trial looks whether its workers still live
FAREWELL_SECONDS = 20.0  # for workers to leave by themselves


class Abandoned(Exception):
    """The study has stopped the trial early."""


class _Trainer(TorchTrainer):
    """Ray Train's (2.60), without the process that gives back the places of a group whose controller was killed: it is
    waited for, needs a dashboard's server, and ``study.ray_backend.cluster.give_back_places`` does its work."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]


class WorkerGroup:
    """The workers of one trial after another, seen from its driver.

    A group that has lost a worker, or in which training raised, has ended: ``next_row`` raises what Ray Train says.
    """

    def __init__(self, template: TrialTemplate):
        num_workers = template.parallelism.num_workers
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._exchange = ray.remote(num_cpus=0, scheduling_strategy=here)(JobQueue).remote(num_workers)
        self._awaits_verdict = False
        self._at_work = False
        self._placed = False
        self._ended: Future[None] = Future()
        trainer = _Trainer(
            partial(_serve, template=template, job_queue=self._exchange),
            torch_config=TorchConfig(backend="nccl" if template.use_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=num_workers,
                use_gpu=template.use_gpu,
                resources_per_worker=worker_resources(template.use_gpu),
            ),
            run_config=ray.train.RunConfig(
                name=f"workers-{uuid.uuid4().hex[:8]}",
                storage_path=template.folder.path("ray"),
                failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
            ),
        )
        Thread(target=self._live, args=(trainer,), daemon=True).start()

    def _live(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
            self._ended.set_result(None)
        except BaseException as error:
            self._ended.set_exception(error)

    def start(self, settings: Settings, config_id: str, seeds: tuple[int, ...]) -> None:
        """Give the workers a configuration; ``next_row`` then brings its epochs."""
        self._at_work = True
        ray.get(self._exchange.give.remote(Job(settings, config_id, seeds, time.time())))

    def next_row(self) -> dict[str, Any] | None:
        """The figures of the next epoch, for which the workers go on; None where the configuration has finished.

        Raises:
            ray.train.TrainingFailedError: a worker raised, or died.
        """
        if self._awaits_verdict:
            self._decide(True)
        row = self._received()
        self._awaits_verdict, self._at_work = row is not None, row is not None
        return row

    def abandon(self) -> None:
        """Leave the configuration where it stands, with its last checkpoint."""
        while self._at_work and not self._ended.done():
            if self._awaits_verdict:
                self._decide(False)
            self._at_work = self._received() is not None
            self._awaits_verdict = self._at_work

    def end(self) -> None:
        """Let the workers go, and wait until their places are free."""
        if not self._ended.done():
            self._exchange.give.remote(None)
        with suppress(TimeoutError):  # then Ray ends them with the driver
            self._ended.exception(timeout=FAREWELL_SECONDS)
        ray.kill(self._exchange)

    def _decide(self, goes_on: bool) -> None:
        self._awaits_verdict = False
        self._exchange.decide.remote(goes_on)

    def _received(self) -> dict[str, Any] | None:
        asked = self._exchange.next_row.remote()
        while not ray.wait([asked], timeout=CHECK_SECONDS)[0]:
            if self._ended.done():
                self._ended.result()
                raise RuntimeError("the workers have ended before their trial")
            if not self._placed:  # what they wait for may be the places of others that died
                give_back_places()
        self._placed = True
        return ray.get(asked)


def _serve(template: TrialTemplate, job_queue: Any) -> None:
    """One rank: train and score every seed of every configuration that comes."""
    born = time.time()
    rank = ray.train.get_context().get_world_rank()
    while job := ray.get(job_queue.take.remote(rank)):
        if template.folder.is_local:
            _log_to(template.folder.path("runs", job.config_id, f"worker-{rank}.log"))
        waited = _waited(born - job.sent)
        began = time.perf_counter()
        from study.training.run_plan import RunPlan  # here, where the log is, and torch is not yet imported
        from study.training.trainer import train

        waited["imports"] = time.perf_counter() - began
        plan = RunPlan(
            settings=job.settings,
            parallelism=template.parallelism,
            config_id=job.config_id,
            features=template.features,
            backbone=template.backbone,
            folder=template.folder,
        )
        report = partial(_report, job_queue, rank, job.config_id)
        try:
            for seed in job.seeds:
                train(plan, seed, report, waited=waited, profile=template.profile and seed == template.seeds[0])
                waited = {}
        except Abandoned:
            print("stopped early", flush=True)
        if rank == 0:
            ray.get(job_queue.end_job.remote())


def _waited(seconds: float) -> dict[str, float]:
    """What a configuration waited for workers: for their places, as Ray counts it, and for their processes, those of
    Ray Train among them. Nothing where they were there already."""
    if seconds <= 0:
        return {"placement": 0.0, "processes": 0.0}
    stats = placement_group_table(get_current_placement_group())["stats"]
    placement = min(seconds, stats["end_to_end_creation_latency_ms"] / 1000)
    return {"placement": placement, "processes": seconds - placement}


def _report(job_queue: Any, rank: int, config_id: str, row: dict[str, Any]) -> None:
    if not ray.get(job_queue.report.remote(rank, {**row, "config_id": config_id})):
        raise Abandoned


def _log_to(path: str) -> None:
    """Send everything this process prints, also from C, to a file of its own."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
