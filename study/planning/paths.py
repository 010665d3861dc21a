"""Where studies, corpora and backbones lie: full paths from what the user typed."""

from __future__ import annotations

import os
from pathlib import Path

from study.common.environment import REPO
from study.storage.study_folder import StudyFolder


def folder_of(study: str, storage: str | None) -> StudyFolder:
    """A study by its path or URL, or by its name in the storage."""
    if "/" in study or os.path.isdir(study):
        return StudyFolder(study.rstrip("/") if "://" in study else os.path.abspath(os.path.expanduser(study)))
    return StudyFolder.at(storage or default_storage(), study)


def default_storage() -> str:
    """``results/`` of this checkout; in a Ray job the checkout is a copy that is thrown away, so the home folder."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return str(Path.home() / "fair-ser-results")
    return str(REPO / "results")


def resolved(spec: str, where: Path = Path()) -> str:
    """The corpus with the full path of its folder or file, if that is relative to ``where``."""
    kind, colon, place = spec.partition(":")
    return f"{kind}:{(where / Path(place).expanduser()).resolve()}" if colon and place else spec


def resolved_backbone(spec: str) -> str:
    """A folder's full path, since an adapter keeps it; a hub id as it is."""
    place = Path(spec).expanduser()
    return str(place.resolve()) if spec != "tiny" and place.is_dir() else spec
