"""What a study leaves on disk: the public contract between training and analysis.

Layout of a study folder, schema version 2 (every file is written whole, aside, then renamed)::

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
        steps.parquet             one row a training step: what the objective saw (``study.training.metrics_log``)
        attempt.json              which attempt at an unfinished run may write here (``study.storage.locks``)
        checkpoint.json           which checkpoint-* folder an unfinished run goes on from
        (``study.training.checkpointing``) adapter/                  the trained weights, if asked for
        (``study.models.adapter``) predictions.parquet       utterance_id, split, modality, one column of summed
        log-probability per emotion finished.json             written last: dev and test figures, the epoch selected,
        seconds, where they went

A folder without ``finished.json`` is an unfinished run; nothing reads it but the run itself.
A storage location is a folder or a URL that ``pyarrow.fs`` knows, options of it included (``s3://bucket/path``,
``s3://bucket/path?endpoint_override=minio:9000``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from study.common.errors import RecordError
from study.common.groups import SCORE_COLUMNS
from study.storage.study_folder import StudyFolder

SCHEMA_VERSION = 2

UTTERANCE_COLUMNS = ("utterance_id", "split", "language", "gender", "speaker", "dialogue", "emotion")
PREDICTION_COLUMNS = ("utterance_id", "split", "modality", *SCORE_COLUMNS)


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
    hyperparameters: dict[str, Any]
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
        errors = error.errors(include_url=False)
        places = {id(message): ".".join(map(str, message["loc"])) for message in errors}
        lacking = [places[id(message)] for message in errors if message["type"] == "missing"]
        if lacking:
            raise RecordError(f"{folder.path(name)} lacks {', '.join(lacking)}. {remedy}") from error
        first = errors[0]
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


OBJECTIVES = (("dev_w_f1", "max"), ("dev_gap", "min"))


def objectives_of(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a study searched for, from its ``study.json``; W-F1 and gap where that, an older one, is silent."""
    return [(str(metric), str(mode)) for metric, mode in plan.get("objectives") or OBJECTIVES]
