"""Cache of inspected clips, so that a start does not decode a whole corpus again to find its unusable clips.

A cached result is valid while the clip's path, size and modification times are unchanged. Unusable clips are not
cached.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from study.common.errors import RecordError
from study.data.corpora.audio import ClipInfo
from study.storage.study_folder import StudyFolder

VERSION = 1  # raise it with every change of what ``inspect_clip`` refuses or returns
_STAMP = ("size", "mtime", "ctime")


class ClipCache:
    """Results of ``inspect_clip`` for the clips of one folder.

    Args:
        cache: folder of all caches.
        paths: the clips.

    Attributes:
        clips: cached results by path, of those ``paths`` that have not changed.
    """

    def __init__(self, cache: Path, paths: Sequence[str]):
        self._stamps = {path: stamp for path in paths if (stamp := _stamp(path))}  # taken before any clip is decoded
        key = f"{VERSION} {os.path.commonpath(paths) if len(paths) else ''}"
        self._name = f"clips/{hashlib.sha256(key.encode()).hexdigest()[:12]}.parquet"
        self._folder = StudyFolder(str(cache.absolute()))
        self._rows: dict[str, dict[Hashable, Any]] = {}
        self.clips: dict[str, ClipInfo] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # an absent or damaged cache is written again
            table = self._folder.read_parquet(self._name)
            self._rows = {row["path"]: row for row in table.to_dict("records")}
            self.clips = {
                path: ClipInfo(**{field.name: self._rows[path][field.name] for field in fields(ClipInfo)})
                for path, stamp in self._stamps.items()
                if path in self._rows and tuple(self._rows[path][name] for name in _STAMP) == stamp
            }

    def store(self, clips: Mapping[str, ClipInfo]) -> None:
        """Add results to the cache, except those of clips that changed while they were decoded."""
        unchanged = {
            path: {"path": path, **dict(zip(_STAMP, stamp, strict=True)), **asdict(clips[path])}
            for path, stamp in self._stamps.items()
            if path in clips and _stamp(path) == stamp
        }
        with suppress(RecordError):  # without a cache the next start is slower, no more
            self._folder.write_parquet(self._name, pd.DataFrame([*{**self._rows, **unchanged}.values()]))


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Return size in bytes, mtime and ctime in ns; None if there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
