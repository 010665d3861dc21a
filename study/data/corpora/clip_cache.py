"""Clips that were decoded before: a start need not decode a whole corpus again to find those that cannot be used.

A clip counts as the same while its path, size and times of change are. Only those in order are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from study.common.errors import RecordError
from study.data.corpora.audio import Clip
from study.storage.study_folder import StudyFolder

RULES = 1  # to be raised with every change to what ``inspect_clip`` refuses or finds
FIELDS = ("samples", "sample_rate", "level", "digest")

Stamp = tuple[int, int, int]


class KnownClips:
    """What earlier calls found of the clips of one folder.

    Attributes:
        clips: of these paths, those that have not changed since, by path.
    """

    def __init__(self, cache: Path, paths: Sequence[str]):
        self._stamps = {path: stamp for path in paths if (stamp := _stamp(path))}  # before any of them is decoded
        place = f"{RULES} {os.path.commonpath(paths) if len(paths) else ''}"
        self._name = f"clips/{hashlib.sha256(place.encode()).hexdigest()[:12]}.parquet"
        self._folder = StudyFolder(str(cache.absolute()))
        self._rows: dict[str, dict[str, Any]] = {}
        self.clips: dict[str, Clip] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or a damaged one, which is written anew
            table = self._folder.read_parquet(self._name)
            self._rows = {row["path"]: row for row in table.to_dict("records")}
            self.clips = {
                path: Clip(**{field: self._rows[path][field] for field in FIELDS})
                for path, stamp in self._stamps.items()
                if path in self._rows and tuple(self._rows[path][part] for part in ("size", "mtime", "ctime")) == stamp
            }

    def keep(self, clips: Mapping[str, Clip]) -> None:
        """Leave what was found to a later call, but for clips that have changed while they were decoded."""
        found = {
            path: {"path": path, **dict(zip(("size", "mtime", "ctime"), stamp, strict=True)), **asdict(clips[path])}
            for path, stamp in self._stamps.items()
            if path in clips and _stamp(path) == stamp
        }
        with suppress(RecordError):  # a cache that cannot be written costs time alone
            self._folder.write_parquet(self._name, pd.DataFrame([*{**self._rows, **found}.values()]))


def _stamp(path: str) -> Stamp | None:
    """Size in bytes and the last change of content, and of anything, in ns; None where there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
