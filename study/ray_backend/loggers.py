"""Where trials can be followed besides the study's own records: MLflow and Weights & Biases, through Ray's callbacks.

TensorBoard needs none: Ray Tune leaves its files in the study folder's ``ray/tune``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

TRACKERS = ("mlflow", "wandb")


def tracker_errors(names: Sequence[str]) -> list[str]:
    """What is wrong with ``--report-to``; empty when nothing."""
    strangers = [name for name in names if name not in TRACKERS]
    absent = [name for name in names if name in TRACKERS and find_spec(name) is None]
    return [
        *(f"--report-to: there is no {name!r}; choose from {', '.join(TRACKERS)}" for name in strangers),
        *(f"--report-to: {name} is not installed; pip install {name}" for name in absent),
    ]


def make_trackers(names: Sequence[str], study: str, place: str) -> list:
    """Ray Tune callbacks that send every report of every trial to these trackers.

    Credentials come from the trackers' own environment variables and files.

    Args:
        study: becomes the experiment (MLflow) or the project (W&B).
        place: a folder for MLflow's data base where ``MLFLOW_TRACKING_URI`` names no server.
    """
    made = []
    if "mlflow" in names:
        from study.ray_backend.mlflow_logger import PlainlyNamed

        server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(place).absolute()}/mlflow.db"
        made.append(PlainlyNamed(tracking_uri=server, experiment_name=study))
    if "wandb" in names:
        from ray.air.integrations.wandb import WandbLoggerCallback

        made.append(WandbLoggerCallback(project=study, log_config=True))
    return made
