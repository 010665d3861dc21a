"""The one line that a failed trial is recorded with."""

from __future__ import annotations

import pytest

from study.ray_backend.failure_reason import LENGTH, failure_reason

WORKER = """\
\x1b[36mray::drive_trial()\x1b[39m (pid=7, ip=127.0.0.1)
  File "study/ray_backend/tuner.py", line 1, in drive_trial
ray.train.v2.api.exceptions.WorkerGroupError: Training failed due to worker errors:
[Rank 0 Error Snippet]:
Traceback (most recent call last):
  File "study/training/trainer.py", line 2, in train
FloatingPointError: epoch 2: the objective is nan; use a smaller optimisation.learning_rate
The above exception was the direct cause of the following exception:
ray.exceptions.RayTaskError(WorkerGroupError): the task failed
\x1b[33m(raylet)\x1b[0m A worker died or was killed while executing a task by an unexpected system error.
"""

DEATH = """\
ray.train.v2.api.exceptions.WorkerGroupError: Training failed due to worker errors:
[Rank 0 Error Snippet]:
RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2043
[Rank 1 Error Snippet]:
A worker health check failed.
Worker info: Worker(
The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
The actor is dead because its worker process has died. Worker exit type: {} Worker exit detail: {}
"""
ENDED = DEATH.format("SYSTEM_ERROR", "Worker unexpectedly exits with a connection error code 2.")
STARVED = """\
ray.train.v2.api.exceptions.WorkerGroupError: Training failed due to worker errors:
[Rank 0 Error Snippet]:
A worker health check failed.
Worker info: Worker(
)
6 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1) was 13.55GB used
OOM kill reason: Memory usage 14377754624B exceeded threshold of 14352004096B
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENDED, "killed: Worker unexpectedly exits with a connection error code 2."),
        (
            ENDED + STARVED,
            "killed: 6 worker(s) were killed due to the node running low on memory. "
            "Memory on the node (IP: 127.0.0.1) was 13.55GB used",
        ),
        (WORKER, "FloatingPointError: epoch 2: the objective is nan; use a smaller optimisation.learning_rate"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.\n", "torch.cuda.OutOfMemoryError: CUDA out of memory."),
        ("ray.exceptions.ActorDiedError: The actor died\n  gone", "ray.exceptions.ActorDiedError: The actor died"),
        ("x\nWorkerGroupError: one\n", "WorkerGroupError: one"),  # a wrapper is better than a sentence
        ("\x1b[31mone\x1b[0m\nsay that a ValueError: came\n", "say that a ValueError: came"),  # no line of an exception
        ("a.b.LossNotFinite: epoch 1: nan\n", "a.b.LossNotFinite: epoch 1: nan"),
        (
            "ray.train.WorkerGroupError: Failed:\n[Rank 0 Error Snippet]:\nA worker health check failed.\nWorker(\n)",
            "A worker health check failed.",
        ),
        ("  \n", "ended without saying why"),
        ("KeyError: " + "x" * 600, ("KeyError: " + "x" * 600)[:LENGTH]),
    ],
)
def test_the_reason_is_the_exceptions_own_line(text, reason):
    assert failure_reason(text) == reason


def test_the_log_is_named():
    assert failure_reason(WORKER, "runs/ab/worker-0.log").endswith("learning_rate (log: runs/ab/worker-0.log)")
