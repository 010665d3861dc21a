"""The files of a study as tables need them: whatever is missing, cut short or damaged is named, with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import pandas as pd
import pyarrow as pa
from pandas.api.types import is_numeric_dtype
from pydantic import AfterValidator, Field

from analysis.constants import SPLITS
from search_spaces import Hyperparameter
from study.common.errors import RecordError
from study.common.groups import EMOTIONS, LANGUAGES, MODALITIES, SCORE_COLUMNS, Gender, cells
from study.evaluation.metrics import GAP_KINDS, labels_from_scores
from study.storage.records import read_study, run_directory
from study.storage.schemas import PREDICTION_COLUMNS, UTTERANCE_COLUMNS, Record, check_record
from study.storage.study_folder import StudyFolder

_REDO_RUN = "Delete {}/finished.json and start the study again with the same command: it redoes this run alone."
_REWRITE = "Start the study again with the same command: it writes this file anew."
_RESTORE = "Restore it from a copy."
_WORDS = {
    "split": SPLITS,
    "language": LANGUAGES,
    "gender": tuple(gender.value for gender in Gender),
    "emotion": EMOTIONS,
    "modality": MODALITIES,
}
_STEP_FIGURES = ("epoch", "step", "fairness_weight", "negative_weights")
_CELLS = {str(cell) for cell in cells(LANGUAGES, MODALITIES)}


def _gaps(found: dict[str, float | None]) -> dict[str, float | None]:
    lacking = [kind for kind in GAP_KINDS if found and kind not in found]
    if lacking:
        raise ValueError(f"lacks {', '.join(lacking)}")
    return found


def _cell(name: str) -> str:
    if name not in _CELLS:
        raise ValueError("is no language and modality")
    return name


_Figure = float | None
_Gaps = Annotated[dict[str, _Figure], AfterValidator(_gaps)]


class _Corpus(Record):
    spec: str
    name: str
    hash: str
    counts: dict[str, int]
    notes: list[str] = []
    skipped: int = 0


class _Backbone(Record):
    spec: str
    hash: str


class _Plan(Record):
    name: str
    corpus: _Corpus
    backbone: _Backbone
    languages: list[str]
    modalities: list[str]
    space: str
    seeds: Annotated[list[int], Field(min_length=1)]
    settings: dict[str, Any]
    versions: dict[str, str]
    command: str
    created: str
    hyperparameters: list[Hyperparameter] = []
    objectives: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    trials: int | None = None


class _OfCell(Record):
    n_female: int
    n_male: int
    n_unknown: int
    w_f1: _Figure
    accuracy: _Figure
    gap: _Figure
    signed: _Gaps
    absolute: _Gaps
    standardised: _Gaps = {}
    by_group: dict[Literal["female", "male"], dict[str, _Figure]]
    __pydantic_extra__: dict[str, _Figure]


class _OfSplit(Record):
    w_f1: _Figure
    accuracy: _Figure
    gap: _Figure
    cells: dict[Annotated[str, AfterValidator(_cell)], _OfCell]
    __pydantic_extra__: dict[str, float | str | None]


class _Finished(Record):
    config_id: str
    seed: int
    dev: _OfSplit
    test: _OfSplit
    epoch: int | None = None
    epochs_run: int | None = None
    seconds: dict[str, float] | None = None
    startup: dict[str, float] | None = None


class _EpochDev(Record):
    w_f1: _Figure = None
    gap: _Figure = None


class _Epoch(Record):
    epoch: int
    loss: _Figure = None
    fairness_weight: _Figure = None
    penalty: _Figure = None
    dev: _EpochDev | None = None


def plan_of(folder: StudyFolder) -> dict[str, Any]:
    """``study.json``.

    Raises:
        RecordError: there is no study there, or its plan is damaged.
    """
    plan = read_study(folder)
    check_record(folder, "study.json", _Plan, plan, _RESTORE)
    return plan


def finished_of(folder: StudyFolder, config_id: str, seed: int) -> dict[str, Any]:
    """``finished.json`` of a run.

    Raises:
        RecordError: it is damaged, or of another run.
    """
    directory = run_directory(config_id, seed)
    name, remedy = f"{directory}/finished.json", _REDO_RUN.format(directory)
    finished: dict[str, Any] = folder.read_json(name)
    check_record(folder, name, _Finished, finished, remedy)
    if (finished["config_id"], finished["seed"]) != (config_id, seed):
        raise RecordError(
            f"{folder.path(name)} says it is of configuration {finished['config_id']}, seed {finished['seed']}. "
            f"{remedy}"
        )
    return finished


def epochs_of(folder: StudyFolder, config_id: str, seed: int, run: float | None) -> list[dict[str, Any]]:
    """``epochs.jsonl`` of a finished run, one dict an epoch.

    Args:
        run: how many epochs were run, ``None`` or NaN where that is not known.

    Raises:
        RecordError: it is missing or damaged, or some of the epochs are.
    """
    directory = run_directory(config_id, seed)
    name, remedy = f"{directory}/epochs.jsonl", _REDO_RUN.format(directory)
    epochs: list[dict[str, Any]] = _read(folder, name, folder.read_jsonl, remedy)
    for epoch in epochs:
        check_record(folder, name, _Epoch, epoch, remedy)
    if run is not None and len(epochs) < run:
        raise RecordError(f"{folder.path(name)} has {len(epochs)} of {run:g} epochs. {remedy}")
    return epochs


def steps_of(folder: StudyFolder, config_id: str, seed: int) -> pd.DataFrame:
    """``steps.parquet`` of a run; no rows where there is none.

    Raises:
        RecordError: it is damaged.
    """
    directory = run_directory(config_id, seed)
    name, remedy = f"{directory}/steps.parquet", _REDO_RUN.format(directory)
    if not folder.exists(name):
        return pd.DataFrame()
    frame = _table(folder, name, (*_STEP_FIGURES, "active"), remedy)
    by_cell = [column for column in map(str, frame) if column.startswith(("gap/", "fairness_weight/"))]
    _numbers(folder, name, frame, [*_STEP_FIGURES, *by_cell], remedy)
    return frame


def utterances_of(folder: StudyFolder) -> pd.DataFrame:
    """``utterances.parquet``.

    Raises:
        RecordError: it is missing, damaged, lacks a column, holds a word that is none, or lists an utterance twice.
    """
    name = "utterances.parquet"
    frame = _table(folder, name, UTTERANCE_COLUMNS, _REWRITE)
    _words(folder, name, frame, ("split", "language", "gender", "emotion"), _REWRITE)
    twice = frame.duplicated(["utterance_id", "split"])
    if twice.any():
        raise RecordError(f"{folder.path(name)} lists {frame['utterance_id'][twice].iloc[0]!r} twice. {_REWRITE}")
    return frame


def predictions_of(
    folder: StudyFolder, utterances: pd.DataFrame, config_id: str, seed: int, split: str
) -> pd.DataFrame:
    """The predictions of one run on one split, joined with what is known of the utterances.

    Args:
        utterances: from :func:`utterances_of`.

    Returns:
        One row an utterance and modality: the columns of ``utterances``, ``modality`` and ``predicted``.

    Raises:
        RecordError: the file is missing, damaged, lacks a column or has nothing on this split; a score is not a
            number; or a prediction is of an utterance that the study does not list.
    """
    directory = run_directory(config_id, seed)
    name, remedy = f"{directory}/predictions.parquet", _REDO_RUN.format(directory)
    frame = _table(folder, name, PREDICTION_COLUMNS, remedy)
    _numbers(folder, name, frame, SCORE_COLUMNS, remedy)
    _words(folder, name, frame, ("split", "modality"), remedy)
    frame = frame[frame["split"] == split]
    if frame.empty:
        raise RecordError(f"{folder.path(name)} has no {split} predictions. {remedy}")
    twice = frame.duplicated(["utterance_id", "modality"])
    if twice.any():
        raise RecordError(f"{folder.path(name)} has {frame['utterance_id'][twice].iloc[0]!r} twice. {remedy}")
    try:
        frame = frame.assign(predicted=labels_from_scores(frame))[["utterance_id", "modality", "predicted"]]
    except ValueError as error:
        raise RecordError(f"{folder.path(name)}: {error}. {remedy}") from error
    known = utterances[utterances["split"] == split]
    strangers = ~frame["utterance_id"].isin(known["utterance_id"])
    if strangers.any():
        raise RecordError(
            f"{folder.path(name)} has {strangers.sum()} {split} predictions of utterances that "
            "utterances.parquet does not list: the folder mixes two studies."
        )
    return frame.merge(known, on="utterance_id", how="inner")


def _read(folder: StudyFolder, name: str, read: Callable[[str], Any], remedy: str) -> Any:
    try:
        return read(name)
    except FileNotFoundError as error:
        raise RecordError(f"{folder.path(name)} is missing. {remedy}") from error
    except (pa.ArrowException, OSError, ValueError) as error:  # a file cut short is one or the other, by where it was
        raise RecordError(f"{folder.path(name)} cannot be read ({error}). {remedy}") from error


def _table(folder: StudyFolder, name: str, columns: Sequence[str], remedy: str) -> pd.DataFrame:
    """A parquet file of the study that has these columns."""
    frame: pd.DataFrame = _read(folder, name, folder.read_parquet, remedy)
    lacking = [column for column in columns if column not in frame]
    if lacking:
        raise RecordError(f"{folder.path(name)} lacks {', '.join(lacking)}. {remedy}")
    return frame


def _numbers(folder: StudyFolder, name: str, frame: pd.DataFrame, columns: Sequence[str], remedy: str) -> None:
    for column in columns:
        # a cell that never had a gap is a column of nothing
        if not is_numeric_dtype(frame[column]) and frame[column].notna().any():
            raise RecordError(f"{folder.path(name)}: {column} is not a column of numbers. {remedy}")


def _words(folder: StudyFolder, name: str, frame: pd.DataFrame, columns: Sequence[str], remedy: str) -> None:
    for column in columns:
        strange = [word for word in frame[column].unique() if word not in _WORDS[column]]
        if strange:
            raise RecordError(
                f"{folder.path(name)}: {strange[0]!r} is no {column}; known are {', '.join(_WORDS[column])}. {remedy}"
            )
