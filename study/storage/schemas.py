"""The fields of the records, and the checks that a file on disk has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from study.common.errors import RecordError
from study.common.groups import SCORE_COLUMNS
from study.storage.study_folder import StudyFolder

SCHEMA_VERSION = 2

UTTERANCE_COLUMNS = ("utterance_id", "split", "language", "gender", "speaker", "dialogue", "emotion")
PREDICTION_COLUMNS = ("utterance_id", "split", "modality", *SCORE_COLUMNS)

OBJECTIVES = (("dev_w_f1", "max"), ("dev_gap", "min"))
"""The search objectives of a study that does not name others: (metric, "max" or "min")."""


def objectives_of(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the search objectives in a ``study.json``; ``OBJECTIVES`` if it is an older one that has none."""
    return [(str(metric), str(mode)) for metric, mode in plan.get("objectives") or OBJECTIVES]


class Record(BaseModel):
    """The base of record schemas: the declared fields are checked, and further ones are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


_Values = list[float | None] | None


class TrialRecord(Record):
    """``trials/<number>.json``."""

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
    def _require_values(cls, values: _Values, info: ValidationInfo) -> _Values:
        if values is None and info.data.get("state") == "finished":
            raise ValueError("a finished trial needs one value for each search objective")
        return values


def check_record(folder: StudyFolder, name: str, model: type[Record], record: Any, remedy: str) -> None:
    """Check a record against its schema.

    Args:
        name: of the file, for the message.
        record: the content of the file.
        remedy: a sentence that ends the message.

    Raises:
        RecordError: a field is missing or has the wrong type; the message names the file, the field and the remedy.
    """
    if not isinstance(record, Mapping):
        raise RecordError(f"{folder.path(name)} does not contain a record. {remedy}")
    try:
        model.model_validate(record)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        missing = [_field(each) for each in errors if each["type"] == "missing"]
        if missing:
            raise RecordError(f"{folder.path(name)} lacks {', '.join(missing)}. {remedy}") from error
        raise RecordError(f"{folder.path(name)}: {_field(errors[0])}: {errors[0]['msg']}. {remedy}") from error


def _field(error: Mapping[str, Any]) -> str:
    return ".".join(map(str, error["loc"]))
