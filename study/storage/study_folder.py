"""A study folder on a local disk or an object store: atomic writes, reads with retries."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from study.common.errors import RecordError

# user:password@, or an option such as ?client_secret= or &sig=
_SECRET = re.compile(r"://[^@]*:[^@]*@|[?&](?:[^=&]*(?:secret|password|token|key)[^=&]*|sig)=", re.IGNORECASE)


PAUSES = (1, 2, 4, 8, 16, 16)  # seconds between attempts at a storage that is away; S3's own take 6 s each beside


AWAY = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT|THROTTLING|INTERNAL_FAILURE|HTTP status 5"
)
"""What errors of an object store say if the same request may succeed later."""


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """Ask a remote storage again, for 47 s at least, while it does not answer."""

    @wraps(method)
    def asked(self: StudyFolder, *args: Any) -> Any:
        for pause in () if self.is_local else PAUSES:
            try:
                return method(self, *args)
            except (OSError, RecordError) as error:
                if not AWAY.search(str(error)):
                    raise
                time.sleep(pause)
        return method(self, *args)

    return asked


def _divided(uri: str) -> tuple[str, str]:
    """A path or URL without the options behind its question mark, and these."""
    place, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return place, mark + options


@dataclass(frozen=True)
class StudyFolder:
    """One study on a local disk or an object store.

    ``uri`` is a path or a URL; the object pickles as that string alone, so workers open their own connection.

    Raises:
        RecordError: the URL holds a password or key, which messages and records would repeat.
    """

    uri: str

    def __post_init__(self) -> None:
        if "://" in self.uri and _SECRET.search(self.uri):
            raise RecordError(
                "--storage: the URL holds a password or a key, which records and logs would repeat. Give them by the "
                "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or the provider's own file, and the URL "
                "without them; change those that were typed here, since shells and job servers keep commands."
            )

    @classmethod
    def at(cls, storage: str, name: str) -> StudyFolder:
        """The folder of study ``name`` under ``storage`` (a path or a URL)."""
        storage = storage.removeprefix("file://")
        if "://" not in storage:
            storage = os.path.abspath(os.path.expanduser(storage))
        place, options = _divided(storage)
        return cls(f"{place.rstrip('/')}/{name}{options}")

    @property
    def parent(self) -> StudyFolder:
        """The storage that the study lies in."""
        place, options = _divided(self.uri)
        return StudyFolder(place.rpartition("/")[0] + options)

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    def _open(self) -> tuple[fs.FileSystem, str]:
        if self.is_local:
            return fs.LocalFileSystem(), self.uri
        try:
            return fs.FileSystem.from_uri(self.uri)
        except pa.ArrowInvalid as error:
            raise RecordError(f"{self.uri} is no place for studies ({error}); give a folder, s3:// or gs://") from error

    def path(self, *parts: str) -> str:
        """The full name of a file of the study, as a user would type it."""
        place, options = _divided(self.uri)
        return "/".join((place, *parts)) + options

    def require_storage(self) -> None:
        """Ask a remote storage once, before anything is prepared: a wrong address is not worth the patience that a run
        has with one that is away.

        Raises:
            RecordError: it does not answer, refuses, or has no such bucket; or a local one is a file.
        """
        if self.is_local:
            place = next(place for place in (Path(self.uri), *Path(self.uri).parents) if os.path.exists(place))
            if not place.is_dir():
                raise RecordError(
                    f"{place} is a file: a study is a folder, and so is the --storage that it lies in; give one."
                )
            return
        try:
            system, root = self._open()  # which asks for the region of a bucket
            bucket = root.split("/")[0] or "/"
            known = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
            there = bool(known) or system.get_file_info(bucket).type != fs.FileType.NotFound
        except OSError as error:
            raise RecordError(
                f"--storage: cannot read {self.uri}: {error}. Check its address and options (endpoint_override, scheme,"
                " region), and the credentials in the environment or the provider's own file."
            ) from error
        if not there and "allow_bucket_creation=true" not in self.uri:
            raise RecordError(
                f"--storage: there is no bucket {bucket!r} for {self.uri}. Make it, or add the option "
                "allow_bucket_creation=true behind the URL's question mark."
            )

    @_patient
    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file aside and rename it, so that no reader ever sees half of it."""
        system, root = self._open()
        target = f"{root}/{name}"
        aside = f"{target}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            system.create_dir(os.path.dirname(target), recursive=True)
            if not self.is_local:  # one upload of an object store is atomic by itself
                aside = target
            with system.open_output_stream(aside) as stream:
                stream.write(data)
            if aside != target:
                system.move(aside, target)
        except OSError as error:
            if self.is_local and os.path.exists(aside):
                os.unlink(aside)
            remedy = "Free some space" if self.is_local else "Check the rights of its credentials"
            raise RecordError(
                f"cannot write {self.path(name)}: {error}. {remedy}, or point --storage elsewhere."
            ) from error

    @_patient
    def read_bytes(self, name: str) -> bytes:
        system, root = self._open()
        with system.open_input_stream(f"{root}/{name}") as stream:
            return stream.read()

    @_patient
    def exists(self, name: str) -> bool:
        system, root = self._open()
        return system.get_file_info(f"{root}/{name}").type != fs.FileType.NotFound

    @_patient
    def names(self, directory: str) -> list[str]:
        """The sorted base names inside a directory of the study; empty where there is none."""
        system, root = self._open()
        selector = fs.FileSelector(f"{root}/{directory}", allow_not_found=True)
        return sorted(i.base_name for i in system.get_file_info(selector) if not i.base_name.endswith(".tmp"))

    @_patient
    def files(self, directory: str) -> list[str]:
        """Return the sorted paths, relative to ``directory``, of all files below it; empty where there is none."""
        system, root = self._open()
        selector = fs.FileSelector(f"{root}/{directory}", allow_not_found=True, recursive=True)
        found = [info.path for info in system.get_file_info(selector) if info.type == fs.FileType.File]
        return sorted(path.removeprefix(f"{root}/{directory}/") for path in found if not path.endswith(".tmp"))

    @_patient
    def sweep(self, directory: str) -> None:
        """Delete what writers that were killed left half-written in a directory of the study; nobody else may write."""
        system, root = self._open()
        for file in system.get_file_info(fs.FileSelector(f"{root}/{directory}", allow_not_found=True)):
            if file.base_name.endswith(".tmp") and file.type == fs.FileType.File:
                system.delete_file(file.path)

    @_patient
    def remove(self, name: str) -> None:
        """Delete a file or a directory of the study; nothing happens where there is none."""
        system, root = self._open()
        kind = system.get_file_info(f"{root}/{name}").type
        if kind == fs.FileType.Directory:
            system.delete_dir(f"{root}/{name}")
        elif kind == fs.FileType.File:
            system.delete_file(f"{root}/{name}")

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise RecordError(
                f"{self.path(name)} is not JSON ({error}): move it away, the study then redoes it."
            ) from error

    def write_jsonl(self, name: str, rows: list[dict]) -> None:
        self.write_bytes(
            name, "".join(json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in rows).encode()
        )

    def read_jsonl(self, name: str) -> list[dict]:
        rows = []
        for number, line in enumerate(self.read_bytes(name).splitlines(), start=1):
            try:
                rows += [json.loads(line)] if line else []
            except ValueError as error:
                raise RecordError(
                    f"{self.path(name)}: line {number} is not JSON ({error}): move that run's folder away and start "
                    "the study again, which then redoes the run."
                ) from error
        return rows

    def write_parquet(self, name: str, frame: pd.DataFrame) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="zstd")
        self.write_bytes(name, sink.getvalue().to_pybytes())

    def read_parquet(self, name: str) -> pd.DataFrame:
        return pq.read_table(pa.BufferReader(self.read_bytes(name))).to_pandas()
