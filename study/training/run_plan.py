"""The plan of one training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.config.settings import Parallelism, Settings
from study.storage.study_folder import StudyFolder


@dataclass(frozen=True)
class RunPlan:
    """Everything a worker needs to train one configuration; it is pickled and sent to workers.

    Attributes:
        features: the folder written by ``study.data.features.build``.
        backbone: a hub id or a folder; the tiny backbone is already written to one.
        folder: the study folder that gets the records.
    """

    settings: Settings
    parallelism: Parallelism
    config_id: str
    features: Path
    backbone: str
    folder: StudyFolder
