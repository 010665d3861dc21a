"""A study folder on a local disk or an object store: atomic writes, and retries while an object store is away."""

from __future__ import annotations

import io
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import fs
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from study.common.errors import RecordError

# user:password@, or an option such as ?client_secret= or &sig=
_SECRET = re.compile(r"://[^@]*:[^@]*@|[?&](?:[^=&]*(?:secret|password|token|key)[^=&]*|sig)=", re.IGNORECASE)

_TEMPORARY = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT|THROTTLING|INTERNAL_FAILURE|HTTP status 5"
)
"""Errors of an object store after which the same request may succeed later."""


def _is_temporary(error: BaseException) -> bool:
    return isinstance(error, (OSError, RecordError)) and bool(_TEMPORARY.search(str(error)))


_retried = retry(  # waits 1, 2, 4, 8, 16 and 16 s; each attempt of S3 takes about 6 s on its own
    retry=retry_if_exception(_is_temporary), wait=wait_exponential(max=16), stop=stop_after_attempt(7), reraise=True
)


FileVersion = tuple[int, int]
"""Size in bytes and modification time in nanoseconds; they change when a file is written again."""


def _split_options(uri: str) -> tuple[str, str]:
    """Split a URL into its address and its options from the question mark on; a path has no options."""
    address, mark, options = uri.partition("?") if "://" in uri else (uri, "", "")
    return address, mark + options


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study, on a local disk or an object store.

    Only ``uri``, a path or a URL, is pickled, so each worker opens its own connection.

    Raises:
        RecordError: the URL contains a password or key, which messages and records would repeat.
    """

    uri: str

    def __post_init__(self) -> None:
        if "://" in self.uri and _SECRET.search(self.uri):
            raise RecordError(
                "--storage: the URL contains a password or a key, which records and logs would repeat. Pass it in the "
                "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or in the provider's own file, and remove "
                "it from the URL. Then revoke the key that you typed: shells and job servers keep commands."
            )

    @classmethod
    def at(cls, storage: str, name: str) -> StudyFolder:
        """Return the folder of study ``name`` under ``storage``, a path or a URL."""
        storage = storage.removeprefix("file://")
        if "://" not in storage:
            storage = os.path.abspath(os.path.expanduser(storage))
        address, options = _split_options(storage)
        return cls(f"{address.rstrip('/')}/{name}{options}")

    @property
    def parent(self) -> StudyFolder:
        """The folder that contains this one."""
        address, options = _split_options(self.uri)
        return StudyFolder(address.rpartition("/")[0] + options)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk."""
        return "://" not in self.uri

    def _open(self) -> tuple[fs.FileSystem, str]:
        if self.is_local:
            return fs.LocalFileSystem(), self.uri
        try:
            return fs.FileSystem.from_uri(self.uri)
        except pa.ArrowInvalid as error:
            raise RecordError(f"{self.uri} cannot store studies ({error}); give a folder, s3:// or gs://") from error

    def path(self, *parts: str) -> str:
        """Return the full path or URL of a file in the folder."""
        address, options = _split_options(self.uri)
        return "/".join((address, *parts)) + options

    def require_storage(self) -> None:
        """Check once that the storage can be read, without the retries of later requests.

        Raises:
            RecordError: a remote storage does not answer, refuses access, or has no such bucket; or a local path is a
                file.
        """
        if self.is_local:
            existing = next(path for path in (Path(self.uri), *Path(self.uri).parents) if os.path.exists(path))
            if not existing.is_dir():
                raise RecordError(f"{existing} is a file, but studies are stored in folders: change --storage.")
            return
        try:
            system, root = self._open()  # S3 already asks for the region of the bucket here
            bucket = root.split("/")[0] or "/"
            entries = system.get_file_info(fs.FileSelector(root, allow_not_found=True))
            exists = bool(entries) or system.get_file_info(bucket).type != fs.FileType.NotFound
        except OSError as error:
            raise RecordError(
                f"--storage: cannot read {self.uri}: {error}. Check its address and options (endpoint_override, scheme,"
                " region), and the credentials in the environment or the provider's own file."
            ) from error
        if not exists and "allow_bucket_creation=true" not in self.uri:
            raise RecordError(
                f"--storage: there is no bucket {bucket!r} for {self.uri}. Create it, or add the option "
                "allow_bucket_creation=true after the question mark of the URL."
            )

    @_retried
    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file atomically: readers see the previous content or all of the new content.

        Raises:
            RecordError: the file cannot be written.
        """
        system, root = self._open()
        target = f"{root}/{name}"
        # a single upload to an object store is atomic by itself
        written = f"{target}.{uuid.uuid4().hex[:8]}.tmp" if self.is_local else target
        try:
            system.create_dir(os.path.dirname(target), recursive=True)
            with system.open_output_stream(written) as stream:
                stream.write(data)
            if written != target:
                system.move(written, target)
        except OSError as error:
            with suppress(OSError):  # also if the parent is not a directory
                if self.is_local:
                    Path(written).unlink()
            remedy = "Free some space" if self.is_local else "Check the permissions of its credentials"
            raise RecordError(f"cannot write {self.path(name)}: {error}. {remedy}, or change --storage.") from error

    @_retried
    def read_bytes(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        system, root = self._open()
        with system.open_input_stream(f"{root}/{name}") as stream:
            return bytes(stream.read())

    @_retried
    def exists(self, name: str) -> bool:
        """Return whether there is a file or directory of this name."""
        system, root = self._open()
        return bool(system.get_file_info(f"{root}/{name}").type != fs.FileType.NotFound)

    @_retried
    def names(self, directory: str) -> list[str]:
        """Return the sorted names of the files and directories in a directory; empty if it does not exist."""
        return sorted(info.base_name for info in self._list(directory) if not info.base_name.endswith(".tmp"))

    @_retried
    def version(self, name: str) -> FileVersion | None:
        """Return the version of a file, or None if there is no such file."""
        system, root = self._open()
        info = system.get_file_info(f"{root}/{name}")
        return (info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    @_retried
    def versions(self, directory: str) -> dict[str, FileVersion]:
        """Return the versions of all files below a directory, by path in the folder, in ascending order."""
        prefix = f"{self._open()[1]}/"
        files = [info for info in self._list(directory, recursive=True) if info.type == fs.FileType.File]
        versions = {info.path.removeprefix(prefix): (info.size, info.mtime_ns) for info in files}
        return {path: versions[path] for path in sorted(versions) if not path.endswith(".tmp")}

    @_retried
    def remove_temporary(self, directory: str) -> None:
        """Delete the partial files of killed writers from a directory. Nobody else may write there."""
        for info in self._list(directory):
            if info.base_name.endswith(".tmp") and info.type == fs.FileType.File:
                self._open()[0].delete_file(info.path)

    def _list(self, directory: str, recursive: bool = False) -> list[fs.FileInfo]:
        system, root = self._open()
        selector = fs.FileSelector(f"{root}/{directory}", allow_not_found=True, recursive=recursive)
        return list(system.get_file_info(selector))

    @_retried
    def remove(self, name: str) -> None:
        """Delete a file or a directory if it exists."""
        system, root = self._open()
        kind = system.get_file_info(f"{root}/{name}").type
        if kind == fs.FileType.Directory:
            system.delete_dir(f"{root}/{name}")
        elif kind == fs.FileType.File:
            system.delete_file(f"{root}/{name}")

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON; NaN is refused."""
        self.write_bytes(name, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Return the value of a JSON file.

        Raises:
            FileNotFoundError: there is no such file.
            RecordError: it is not JSON.
        """
        try:
            return json.loads(self.read_bytes(name))
        except ValueError as error:
            raise RecordError(
                f"{self.path(name)} is not JSON ({error}): move it away, and the study recreates it."
            ) from error

    def read_json_if_any(self, name: str) -> Any:
        """Return the value of a JSON file, or None if there is no such file.

        Raises:
            RecordError: it is not JSON.
        """
        try:
            return self.read_json(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_jsonl(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one line of JSON per row; NaN is refused."""
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        self.write_bytes(name, "".join(lines).encode())

    def read_jsonl(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a file with one line of JSON per row.

        Raises:
            FileNotFoundError: there is no such file.
            RecordError: a line is not JSON.
        """
        rows = []
        for number, line in enumerate(self.read_bytes(name).splitlines(), start=1):
            try:
                rows += [json.loads(line)] if line else []
            except ValueError as error:
                raise RecordError(
                    f"{self.path(name)}: line {number} is not JSON ({error}): move the folder of that run away and "
                    "start the study again, which then repeats the run."
                ) from error
        return rows

    def write_parquet(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table without its index."""
        self.write_bytes(name, frame.to_parquet(index=False, compression="zstd"))

    def read_parquet(self, name: str) -> pd.DataFrame:
        """Return a table.

        Raises:
            FileNotFoundError: there is no such file.
            OSError, ValueError, pyarrow.ArrowException: it is damaged.
        """
        return pd.read_parquet(io.BytesIO(self.read_bytes(name)))
