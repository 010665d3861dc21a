"""Shared by the scripts that tests run under torchrun: read a ``RunPlan`` from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from study.config.settings import Parallelism, Settings
from study.storage.study_folder import StudyFolder
from study.training.run_plan import RunPlan


def read_plan(path: str) -> tuple[RunPlan, dict[str, Any]]:
    """Return the plan in a file with ``settings, parallelism, features, backbone, folder``, and the file's content."""
    spec = json.loads(Path(path).read_text())
    plan = RunPlan(
        settings=Settings.model_validate(spec["settings"]),
        parallelism=Parallelism(**spec["parallelism"]),
        config_id="abc",
        features=Path(spec["features"]),
        backbone=spec["backbone"],
        folder=StudyFolder(spec["folder"]),
    )
    return plan, spec
