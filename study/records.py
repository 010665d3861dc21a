"""What a study leaves on disk: the public contract between training and analysis.

Layout of a study folder, schema version 1 (every file is written whole, aside, then renamed)::

    study.json                    the plan: settings, space, seeds, corpus, backbone, versions, command
    utterances.parquet            dev and test utterances: id, split, language, gender, speaker, dialogue, emotion
    journal.log                   Optuna's journal (``optuna-dashboard journal.log`` reads it)
    trials/00000.json             one searched trial: number, config_id, knobs, state (finished|failed|pruned), reason;
                                  objectives as means over seeds, by seed and their standard deviation over seeds,
                                  and what the requirements lack
    confirm/                      the front again, on fresh seeds: a study folder like this one
    runs/<config_id>/worker-0.log what each rank printed, over all seeds; not on an object store
    runs/<config_id>/<seed>/
        settings.json             every setting of the run, resolved
        epochs.jsonl              one line an epoch: losses, fairness weight, gaps, dev figures, seconds
        steps.parquet             one row a training step: what the objective saw (``study.step_records``)
        attempt.json              which attempt at an unfinished run may write here (``study.holding``)
        checkpoint.json           which checkpoint-* folder an unfinished run goes on from (``study.checkpoints``)
        adapter/                  the trained weights, if asked for (``study.adapter``)
        predictions.parquet       utterance_id, split, modality, one column of summed log-probability per emotion
        finished.json             written last: dev and test figures, the epoch selected, seconds, where they went

A folder without ``finished.json`` is an unfinished run; nothing reads it but the run itself.
A storage location is a folder or a URL that ``pyarrow.fs`` knows, options of it included (``s3://bucket/path``,
``s3://bucket/path?endpoint_override=minio:9000``).
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from study.groups import EMOTIONS

SCHEMA_VERSION = 1

UTTERANCE_COLUMNS = ("utterance_id", "split", "language", "gender", "speaker", "dialogue", "emotion")
SCORE_COLUMNS = tuple(f"score_{emotion}" for emotion in EMOTIONS)
PREDICTION_COLUMNS = ("utterance_id", "split", "modality", *SCORE_COLUMNS)


# user:password@, or an option such as ?client_secret= or &sig=
_SECRET = re.compile(r"://[^@]*:[^@]*@|[?&](?:[^=&]*(?:secret|password|token|key)[^=&]*|sig)=", re.IGNORECASE)


PAUSES = (1, 2, 4, 8, 16, 16)  # seconds between attempts at a storage that is away; S3's own take 6 s each beside
AWAY = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|REQUEST_TIMEOUT|THROTTLING|INTERNAL_FAILURE|HTTP status 5"
)
"""What errors of an object store say if the same request may succeed later."""


class RecordError(RuntimeError):
    """A study folder that cannot be read or written; the message names the file and the remedy."""


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


def run_directory(config_id: str, seed: int) -> str:
    """The folder of one run inside a study folder."""
    return f"runs/{config_id}/{seed}"


def finished_runs(folder: StudyFolder) -> list[tuple[str, int]]:
    """Every (config_id, seed) whose marker stands, in order."""
    return _runs_with(folder, "finished.json")


def begun_runs(folder: StudyFolder) -> list[tuple[str, int]]:
    """Every (config_id, seed) that has an epoch behind it, in order."""
    return _runs_with(folder, "epochs.jsonl")


def _runs_with(folder: StudyFolder, file: str) -> list[tuple[str, int]]:
    found = []
    for config_id in folder.names("runs"):
        for seed in folder.names(f"runs/{config_id}"):
            if seed.isdigit() and folder.exists(f"{run_directory(config_id, int(seed))}/{file}"):
                found.append((config_id, int(seed)))
    return found


def missing_seeds(
    folder: StudyFolder, trials: Iterable[Mapping[str, Any]], seeds: Iterable[int]
) -> dict[str, list[int]]:
    """The seeds that finished trials lack, by configuration, because the study has got more since."""
    runs = set(finished_runs(folder))
    finished = dict.fromkeys(trial["config_id"] for trial in trials if trial["state"] == "finished")
    lacking = {config_id: [seed for seed in seeds if (config_id, seed) not in runs] for config_id in finished}
    return {config_id: missing for config_id, missing in lacking.items() if missing}


def read_study(folder: StudyFolder) -> dict:
    """The plan of a study.

    Raises:
        RecordError: there is no study there, or it was written by another schema version.
    """
    if not folder.exists("study.json"):
        raise RecordError(
            f"no study at {folder.uri}: study.json is missing. Give the folder that holds it: a sweep's is named by "
            "its --storage and --study."
        )
    study = folder.read_json("study.json")
    if not isinstance(study, dict):
        raise RecordError(f"{folder.path('study.json')} holds no plan of a study: restore it from a copy.")
    if study.get("schema_version") != SCHEMA_VERSION:
        raise RecordError(
            f"{folder.path('study.json')} has schema version {study.get('schema_version')}, "
            f"this code reads {SCHEMA_VERSION}."
        )
    return study


class Record(BaseModel):
    """A record of a study: only what is read is checked, and it may hold more."""

    model_config = ConfigDict(strict=True, extra="allow")


_Values = list[float | None] | None


class _Trial(Record):
    config_id: str
    state: Literal["finished", "failed", "pruned"]
    number: int
    label: str | None
    knobs: dict[str, Any]
    seconds: float
    reason: str | None = None
    values: _Values = Field(default=None, validate_default=True)
    by_seed: dict[str, list[float | None]] = {}
    spread: list[float] | None = None
    violations: dict[str, float] = {}
    failed_seeds: dict[str, str] = {}

    @field_validator("values")
    @classmethod
    def _of_each_objective(cls, values: _Values, info: ValidationInfo) -> _Values:
        if values is None and info.data.get("state") == "finished":
            raise ValueError("a finished trial has one for each objective")
        return values


def check_record(folder: StudyFolder, name: str, model: type[Record], found: Any, remedy: str) -> None:
    """Refuse what lacks a field or has another kind of value in it.

    Raises:
        RecordError: it does; the message names the file, the field and the remedy.
    """
    if not isinstance(found, Mapping):
        raise RecordError(f"{folder.path(name)} holds no record. {remedy}")
    try:
        model.model_validate(found)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        places = {id(fault): ".".join(map(str, fault["loc"])) for fault in faults}
        lacking = [places[id(fault)] for fault in faults if fault["type"] == "missing"]
        if lacking:
            raise RecordError(f"{folder.path(name)} lacks {', '.join(lacking)}. {remedy}") from error
        first = faults[0]
        raise RecordError(f"{folder.path(name)}: {places[id(first)]}: {first['msg']}. {remedy}") from error


def write_trial(folder: StudyFolder, record: dict[str, Any]) -> None:
    """Keep what became of one trial; a retry of the same number replaces it."""
    folder.write_json(f"trials/{record['number']:05d}.json", record)


def trials_done(trials: Iterable[Mapping[str, Any]]) -> int:
    """How many trials need not run again: those that finished, and those that were stopped early ("pruned")."""
    return sum(trial["state"] in ("finished", "pruned") for trial in trials)


def read_trial(folder: StudyFolder, number: int) -> dict[str, Any] | None:
    """The record of one trial, None if it has none yet.

    Raises:
        RecordError: it is damaged.
    """
    name = f"trials/{number:05d}.json"
    return _trial(folder, name) if folder.exists(name) else None


def read_trials(folder: StudyFolder) -> dict[int, dict[str, Any]]:
    """Every trial record by its number, in their order.

    Raises:
        RecordError: one of them is damaged.
    """
    records = [_trial(folder, f"trials/{name}") for name in folder.names("trials")]
    return {record["number"]: record for record in records}


def _trial(folder: StudyFolder, name: str) -> dict[str, Any]:
    record: dict[str, Any] = folder.read_json(name)
    check_record(folder, name, _Trial, record, "Move it away: the study then redoes it.")
    return record
