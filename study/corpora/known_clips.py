"""Clips that were decoded before: a start need not decode a whole corpus again to find those that cannot be used.

A clip counts as the same while its path, size and time of change are. Only those in order are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow as pa

from study.corpora.audio import Clip
from study.records import RecordError, StudyFolder

RULES = 1  # to be raised with every change to what ``inspect_clip`` refuses or finds
FIELDS = ("samples", "sample_rate", "level", "digest")


def recall(cache: Path, paths: Iterable[str]) -> dict[str, Clip]:
    """What an earlier call left of these clips, by path, without those that have changed since."""
    paths = list(paths)
    try:
        table = StudyFolder(str(cache.absolute())).read_parquet(_name(paths))
    except (OSError, pa.ArrowInvalid):  # none yet, or a damaged one, which is then written anew
        return {}
    clips = (Clip(*values) for values in table[list(FIELDS)].itertuples(index=False))
    stamps = zip(table["size"], table["mtime_ns"], strict=True)
    known = zip(table["path"], stamps, clips, strict=True)
    return {path: clip for path, stamp, clip in known if _stamp(path) == stamp}


def keep(cache: Path, paths: Iterable[str], clips: Mapping[str, Clip]) -> None:
    """Leave what is known of these clips to a later call."""
    rows = [
        {"path": path, "size": stamp[0], "mtime_ns": stamp[1], **asdict(clip)}
        for path, clip in clips.items()
        if (stamp := _stamp(path))
    ]
    with suppress(RecordError):  # a cache that cannot be written costs time alone
        StudyFolder(str(cache.absolute())).write_parquet(_name(list(paths)), pd.DataFrame(rows))


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _name(paths: list[str]) -> str:
    key = hashlib.sha256("\n".join([str(RULES), *paths]).encode()).hexdigest()[:12]
    return f"clips/{key}.parquet"
