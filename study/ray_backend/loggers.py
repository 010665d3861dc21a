"""Experiment trackers besides the study's own records: MLflow and Weights & Biases, through Ray's callbacks.

TensorBoard needs no callback: Ray Tune writes its files to ``ray/tune`` in the study folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.tune import Callback

TRACKERS = ("mlflow", "wandb")


def tracker_errors(names: Sequence[str]) -> list[str]:
    """Return an error message for each value of ``--report-to`` that is unknown or not installed."""
    unknown = [name for name in names if name not in TRACKERS]
    not_installed = [name for name in names if name in TRACKERS and find_spec(name) is None]
    return [
        *(f"--report-to: there is no {name!r}; choose from {', '.join(TRACKERS)}" for name in unknown),
        *(f"--report-to: {name} is not installed; pip install {name}" for name in not_installed),
    ]


def make_trackers(names: Sequence[str], study: str, folder: str) -> list[Callback]:
    """Return Ray Tune callbacks that send every report of every trial to the trackers.

    The trackers read credentials from their own environment variables and files.

    Args:
        study: name of the experiment (MLflow) or project (W&B).
        folder: for MLflow's database if ``MLFLOW_TRACKING_URI`` names no server.
    """
    callbacks: list[Callback] = []
    if "mlflow" in names:
        from study.ray_backend.mlflow_logger import MlflowLogger

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(folder).absolute()}/mlflow.db"
        callbacks.append(MlflowLogger(tracking_uri=uri, experiment_name=study))
    if "wandb" in names:
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks.append(WandbLoggerCallback(project=study, log_config=True))
    return callbacks
