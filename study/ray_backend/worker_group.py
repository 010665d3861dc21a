"""A Ray Train worker group that outlives a trial and trains one configuration after another.

Starting workers costs ten seconds and more: processes, imports, the backbone. These workers keep all of it, and what
one run can hand to the next (``study.training.run_data``, ``study.models.base_weights``). Driver and workers meet in a
``JobQueue``: configurations go in one direction, the metrics of each epoch in the other. After each epoch the workers
wait for the decision of the scheduler, so a trial that is stopped early trains no further and frees its workers.
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
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray.train.torch import TorchConfig
from ray.util import get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.config.settings import Settings
from study.ray_backend.cluster import worker_resources
from study.ray_backend.job_queue import Job, JobQueue
from study.ray_backend.ray_internals import TorchTrainerWithoutCleaner, remove_orphaned_placement_groups
from study.search.trial_records import TrialTemplate

if TYPE_CHECKING:  # ray.train exports these classes at run time, but mypy sees those of Train V1
    from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
else:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

POLL_SECONDS = 1.0  # between checks that the workers are alive
SHUTDOWN_SECONDS = 20.0  # for workers to end by themselves


class StoppedEarly(Exception):
    """The scheduler has stopped the trial."""


class WorkerGroup:
    """The workers, as seen by the trial driver.

    The group ends when a worker dies or training raises; ``next_row`` then raises the error of Ray Train.
    """

    def __init__(self, template: TrialTemplate):
        num_workers = template.parallelism.num_workers
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor_class: Any = ray.remote(JobQueue)
        self._job_queue = actor_class.options(num_cpus=0, scheduling_strategy=this_node).remote(num_workers)
        self._decision_pending = False
        self._training = False
        self._workers_started = False
        self._ended: Future[None] = Future()
        trainer = TorchTrainerWithoutCleaner(
            partial(_worker_loop, template=template, job_queue=self._job_queue),
            torch_config=TorchConfig(backend="nccl" if template.use_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu=template.use_gpu,
                resources_per_worker=worker_resources(template.use_gpu),
            ),
            run_config=RunConfig(
                name=f"workers-{uuid.uuid4().hex[:8]}",
                storage_path=template.folder.path("ray"),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),
            ),
        )
        Thread(target=self._run, args=(trainer,), daemon=True).start()

    def _run(self, trainer: TorchTrainerWithoutCleaner) -> None:
        try:
            trainer.fit()
            self._ended.set_result(None)
        except BaseException as error:
            self._ended.set_exception(error)

    def start(self, settings: Settings, config_id: str, seeds: tuple[int, ...]) -> None:
        """Start to train a configuration; ``next_row`` then returns its epochs."""
        self._training = True
        ray.get(self._job_queue.submit.remote(Job(settings, config_id, seeds, time.time())))

    def next_row(self) -> dict[str, Any] | None:
        """Let the workers continue and return the metrics of the next epoch; None when the configuration has finished.

        Raises:
            ray.train.TrainingFailedError: a worker raised or died.
        """
        if self._decision_pending:
            self._decide(True)
        row = self._wait_for_row()
        self._decision_pending = self._training = row is not None
        return row

    def stop_training(self) -> None:
        """Stop the current configuration; its last checkpoint stays."""
        while self._training and not self._ended.done():
            if self._decision_pending:
                self._decide(False)
            self._training = self._wait_for_row() is not None
            self._decision_pending = self._training

    def shut_down(self) -> None:
        """End the workers and wait until their resources are free."""
        if not self._ended.done():
            self._job_queue.submit.remote(None)
        with suppress(TimeoutError):  # Ray ends them together with the driver
            self._ended.exception(timeout=SHUTDOWN_SECONDS)
        ray.kill(self._job_queue)

    def _decide(self, proceed: bool) -> None:
        self._decision_pending = False
        self._job_queue.decide.remote(proceed)

    def _wait_for_row(self) -> dict[str, Any] | None:
        row = self._job_queue.next_row.remote()
        while not ray.wait([row], timeout=POLL_SECONDS)[0]:
            if self._ended.done():
                self._ended.result()
                raise RuntimeError("the workers ended before their trial")
            if not self._workers_started:  # they may be waiting for resources that dead actors still hold
                remove_orphaned_placement_groups()
        self._workers_started = True
        return ray.get(row)


def _worker_loop(template: TrialTemplate, job_queue: Any) -> None:
    """Train and evaluate every seed of every configuration in the queue; runs on each rank."""
    created = time.time()
    rank = ray.train.get_context().get_world_rank()
    while job := ray.get(job_queue.next_job.remote(rank)):
        if template.folder.is_local:
            _redirect_output(template.folder.path("runs", job.config_id, f"worker-{rank}.log"))
        waited = _startup_seconds(created - job.submitted)
        import_started = time.perf_counter()
        from study.training.run_plan import RunPlan
        from study.training.trainer import train  # imports torch; only after output goes to the log

        waited["imports"] = time.perf_counter() - import_started
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
        except StoppedEarly:
            print("stopped early", flush=True)
        if rank == 0:
            ray.get(job_queue.finish_job.remote())


def _startup_seconds(seconds: float) -> dict[str, float]:
    """Split the seconds that a configuration waited for its workers into the placement of the group, as measured by
    Ray, and the start of processes. Both are 0 if the workers existed already."""
    if seconds <= 0:
        return {"placement": 0.0, "processes": 0.0}
    stats = placement_group_table(get_current_placement_group())["stats"]
    placement = min(seconds, stats["end_to_end_creation_latency_ms"] / 1000)
    return {"placement": placement, "processes": seconds - placement}


def _report(job_queue: Any, rank: int, config_id: str, row: dict[str, Any]) -> None:
    if not ray.get(job_queue.report.remote(rank, {**row, "config_id": config_id})):
        raise StoppedEarly


def _redirect_output(path: str) -> None:
    """Append the output of this process, including that of C libraries, to a file."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
