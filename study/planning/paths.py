"""Absolute paths of studies, corpora and backbones, from what the user typed."""

from __future__ import annotations

import os
from pathlib import Path

from study.common.environment import REPO
from study.storage.study_folder import StudyFolder


def find_study(study: str, storage: str | None) -> StudyFolder:
    """Return the folder of a study.

    Args:
        study: its path or URL, or its name in the storage.
        storage: folder or URL of the studies; None for the default.
    """
    if "/" in study or os.path.isdir(study):
        return StudyFolder(study.rstrip("/") if "://" in study else os.path.abspath(os.path.expanduser(study)))
    return StudyFolder.at(storage or default_storage(), study)


def default_storage() -> str:
    """Return ``results/`` of this checkout; in a Ray job, whose checkout is a temporary copy, a folder in the home."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return str(Path.home() / "fair-ser-results")
    return str(REPO / "results")


def absolute_corpus(spec: str, directory: Path = Path()) -> str:
    """Return a corpus spec with an absolute path; a relative one starts at ``directory``."""
    kind, colon, path = spec.partition(":")
    return f"{kind}:{(directory / Path(path).expanduser()).resolve()}" if colon and path else spec


def absolute_backbone(spec: str) -> str:
    """Return the absolute path of a local backbone, since adapters record it; return a hub id unchanged."""
    path = Path(spec).expanduser()
    return str(path.resolve()) if spec != "tiny" and path.is_dir() else spec
