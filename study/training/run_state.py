"""The state of a run that changes from step to step and is checkpointed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from study.losses.base import LossState


def _no_seconds() -> dict[str, float]:
    return {"setup": 0.0, "train": 0.0, "evaluate": 0.0, "total": 0.0}


@dataclass
class RunState:
    """What a checkpoint holds, apart from the engine's own files, the best epoch and torch's random state.

    Attributes:
        rng: draws the batches of each epoch.
        micro_batch_tokens: the most tokens of a micro-batch, padding included; None for no limit.
        dual_variables: current values of an adaptive fairness weight, one or C of them; empty for other schedules.
        loss_state: tensors that the loss carries from step to step.
        steps, epochs: the rows of ``steps.parquet`` and ``epochs.jsonl``.
        seconds: time spent so far in each activity, over all attempts.
    """

    rng: np.random.Generator
    micro_batch_tokens: int | None = None
    dual_variables: list[float] = field(default_factory=list)
    loss_state: LossState = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=_no_seconds)
