"""The reason of a failed trial, from the text of its error."""

from __future__ import annotations

import pytest

from study.ray_backend.failure_reason import MAX_LENGTH, failure_reason

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
DEAD_WORKER = DEATH.format("SYSTEM_ERROR", "Worker unexpectedly exits with a connection error code 2.")
OUT_OF_MEMORY = """\
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
        (DEAD_WORKER, "killed: Worker unexpectedly exits with a connection error code 2."),
        (
            DEAD_WORKER + OUT_OF_MEMORY,
            "killed: 6 worker(s) were killed due to the node running low on memory. "
            "Memory on the node (IP: 127.0.0.1) was 13.55GB used",
        ),
        (WORKER, "FloatingPointError: epoch 2: the objective is nan; use a smaller optimisation.learning_rate"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.\n", "torch.cuda.OutOfMemoryError: CUDA out of memory."),
        ("ray.exceptions.ActorDiedError: The actor died\n  gone", "ray.exceptions.ActorDiedError: The actor died"),
        ("x\nWorkerGroupError: one\n", "WorkerGroupError: one"),  # a wrapper that is the only line
        (
            "\x1b[31mone\x1b[0m\na line with ValueError: inside\n",
            "a line with ValueError: inside",
        ),  # not an exception line
        ("a.b.LossNotFinite: epoch 1: nan\n", "a.b.LossNotFinite: epoch 1: nan"),
        (
            "ray.train.WorkerGroupError: Failed:\n[Rank 0 Error Snippet]:\nA worker health check failed.\nWorker(\n)",
            "A worker health check failed.",
        ),
        ("  \n", "ended without an error message"),
        ("KeyError: " + "x" * 600, ("KeyError: " + "x" * 600)[:MAX_LENGTH]),
    ],
)
def test_reason_is_the_cause(text, reason):
    assert failure_reason(text) == reason


def test_log_is_appended():
    assert failure_reason(WORKER, "runs/ab/worker-0.log").endswith("learning_rate (log: runs/ab/worker-0.log)")
