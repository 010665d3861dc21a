"""Read and check the files of a study. An error names the file that is missing or damaged, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_numeric_dtype
from pydantic import AfterValidator, Field

from analysis.constants import SPLITS
from search_spaces import Hyperparameter
from study.common.errors import RecordError
from study.common.groups import EMOTIONS, LANGUAGES, MODALITIES, SCORE_COLUMNS, Gender, cells
from study.evaluation.metrics import GAP_KINDS, labels_from_scores
from study.storage.records import run_directory
from study.storage.schemas import PREDICTION_COLUMNS, UTTERANCE_COLUMNS, Record, check_record
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

_REDO_RUN = "Delete {}/finished.json and start the study again with the same command: it redoes this run alone."
_REWRITE = "Start the study again with the same command: it writes this file anew."
_RESTORE = "Restore it from a copy."
_CATEGORIES = {
    "split": SPLITS,
    "language": LANGUAGES,
    "gender": tuple(gender.value for gender in Gender),
    "emotion": EMOTIONS,
    "modality": MODALITIES,
}
_STEP_FIGURES = ("epoch", "step", "fairness_weight", "negative_weights")
_CELLS = {str(cell) for cell in cells(LANGUAGES, MODALITIES)}


def _check_gaps(gaps: dict[str, float | None]) -> dict[str, float | None]:
    missing = [kind for kind in GAP_KINDS if gaps and kind not in gaps]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    return gaps


def _check_cell(name: str) -> str:
    if name not in _CELLS:
        raise ValueError("is not a language and modality such as en/speech")
    return name


_Figure = float | None
_Gaps = Annotated[dict[str, _Figure], AfterValidator(_check_gaps)]


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


class _CellFigures(Record):
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


class _SplitFigures(Record):
    w_f1: _Figure
    accuracy: _Figure
    gap: _Figure
    cells: dict[Annotated[str, AfterValidator(_check_cell)], _CellFigures]
    __pydantic_extra__: dict[str, float | str | None]


class _Finished(Record):
    config_id: str
    seed: int
    dev: _SplitFigures
    test: _SplitFigures
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


def read_plan(state: StudyState) -> dict[str, Any]:
    """Return ``study.json``.

    Raises:
        RecordError: it is missing or damaged.
    """
    check_record(state.folder, "study.json", _Plan, state.plan, _RESTORE)
    return state.plan


def read_finished(state: StudyState, config_id: str, seed: int) -> dict[str, Any]:
    """Return ``finished.json`` of a run.

    Raises:
        RecordError: it is damaged, or belongs to another run.
    """
    directory = run_directory(config_id, seed)
    name, remedy = f"{directory}/finished.json", _REDO_RUN.format(directory)
    finished = state.finished(config_id, seed)
    check_record(state.folder, name, _Finished, finished, remedy)
    if (finished["config_id"], finished["seed"]) != (config_id, seed):
        raise RecordError(
            f"{state.folder.path(name)} belongs to configuration {finished['config_id']}, seed {finished['seed']}. "
            f"{remedy}"
        )
    return finished


class StudyRecords:
    """The larger files of a study: utterances, predictions, epochs and steps.

    ``utterances.parquet`` and the ``predictions.parquet`` of each run are read once, when they are first needed, and
    kept in a compact form (about six bytes per prediction).
    """

    def __init__(self, folder: StudyFolder):
        self.folder = folder
        self._predictions: dict[tuple[str, int], dict[str, pd.DataFrame]] = {}

    @cached_property
    def utterances(self) -> pd.DataFrame:
        """``utterances.parquet``: one row per dev or test utterance, with ``UTTERANCE_COLUMNS``.

        Raises:
            RecordError: it is missing or damaged, lacks a column, contains an unknown category, or lists an utterance
                twice.
        """
        name = "utterances.parquet"
        frame = _read_table(self.folder, name, UTTERANCE_COLUMNS, _REWRITE)
        _require_categories(self.folder, name, frame, ("split", "language", "gender", "emotion"), _REWRITE)
        repeated = frame.duplicated(["utterance_id", "split"])
        if repeated.any():
            first = frame["utterance_id"][repeated].iloc[0]
            raise RecordError(f"{self.folder.path(name)} lists {first!r} twice. {_REWRITE}")
        return frame

    def predictions(self, config_id: str, seed: int, split: str) -> pd.DataFrame:
        """Return the predictions of one run on one split, joined with the utterances.

        Args:
            split: "dev" or "test".

        Returns:
            One row per utterance and modality: ``UTTERANCE_COLUMNS``, ``modality`` and ``predicted`` (an emotion).

        Raises:
            RecordError: ``predictions.parquet`` is missing or damaged, lacks a column or a split, has a score that is
                not a number, or has predictions of utterances that the study does not list.
        """
        run = (config_id, seed)
        if run not in self._predictions:
            self._predictions[run] = self._read_predictions(config_id, seed)
        compact = self._predictions[run][split]
        joined = self.utterances.iloc[compact["row"]].reset_index(drop=True)
        return joined.assign(modality=compact["modality"].astype(str), predicted=compact["predicted"].astype(str))

    def _read_predictions(self, config_id: str, seed: int) -> dict[str, pd.DataFrame]:
        """Return by split: ``row`` (in ``utterances``), ``modality`` and ``predicted`` (both categorical)."""
        directory = run_directory(config_id, seed)
        name, remedy = f"{directory}/predictions.parquet", _REDO_RUN.format(directory)
        path = self.folder.path(name)
        whole = _read_table(self.folder, name, PREDICTION_COLUMNS, remedy)
        _require_numbers(self.folder, name, whole, SCORE_COLUMNS, remedy)
        _require_categories(self.folder, name, whole, ("split", "modality"), remedy)
        utterances = self.utterances
        compact = {}
        for split in SPLITS:
            frame = whole[whole["split"] == split]
            if frame.empty:
                raise RecordError(f"{path} has no {split} predictions. {remedy}")
            repeated = frame.duplicated(["utterance_id", "modality"])
            if repeated.any():
                raise RecordError(f"{path} has {frame['utterance_id'][repeated].iloc[0]!r} twice. {remedy}")
            try:
                labels = labels_from_scores(frame)
            except ValueError as error:
                raise RecordError(f"{path}: {error}. {remedy}") from error
            listed = np.flatnonzero(utterances["split"] == split)
            positions = pd.Index(utterances["utterance_id"].iloc[listed]).get_indexer(pd.Index(frame["utterance_id"]))
            if (positions < 0).any():
                raise RecordError(
                    f"{path} has {(positions < 0).sum()} {split} predictions of utterances that utterances.parquet "
                    "does not list: the folder mixes two studies."
                )
            columns = {
                "row": listed[positions].astype(np.int32),
                "modality": pd.Categorical(frame["modality"], MODALITIES),
                "predicted": pd.Categorical(labels, EMOTIONS),
            }
            compact[split] = pd.DataFrame(columns)
        return compact

    def epochs(self, config_id: str, seed: int, epochs_run: float | None) -> list[dict[str, Any]]:
        """Return ``epochs.jsonl`` of a finished run, one dict per epoch.

        Args:
            epochs_run: the number of epochs that the run trained; ``None`` or NaN if unknown.

        Raises:
            RecordError: it is missing or damaged, or lacks epochs.
        """
        directory = run_directory(config_id, seed)
        name, remedy = f"{directory}/epochs.jsonl", _REDO_RUN.format(directory)
        epochs: list[dict[str, Any]] = _read(self.folder, name, self.folder.read_jsonl, remedy)
        for epoch in epochs:
            check_record(self.folder, name, _Epoch, epoch, remedy)
        if epochs_run is not None and len(epochs) < epochs_run:
            raise RecordError(f"{self.folder.path(name)} has {len(epochs)} of {epochs_run:g} epochs. {remedy}")
        return epochs

    def steps(self, config_id: str, seed: int) -> pd.DataFrame:
        """Return ``steps.parquet`` of a run, one row per training step; empty if the run has no such file.

        Raises:
            RecordError: it is damaged.
        """
        directory = run_directory(config_id, seed)
        name, remedy = f"{directory}/steps.parquet", _REDO_RUN.format(directory)
        if not self.folder.exists(name):
            return pd.DataFrame()
        frame = _read_table(self.folder, name, (*_STEP_FIGURES, "active"), remedy)
        by_cell = [column for column in map(str, frame) if column.startswith(("gap/", "fairness_weight/"))]
        _require_numbers(self.folder, name, frame, [*_STEP_FIGURES, *by_cell], remedy)
        return frame


def _read(folder: StudyFolder, name: str, read: Callable[[str], Any], remedy: str) -> Any:
    try:
        return read(name)
    except FileNotFoundError as error:
        raise RecordError(f"{folder.path(name)} is missing. {remedy}") from error
    except (pa.ArrowException, OSError, ValueError) as error:  # which one depends on where the file was cut
        raise RecordError(f"{folder.path(name)} cannot be read ({error}). {remedy}") from error


def _read_table(folder: StudyFolder, name: str, columns: Sequence[str], remedy: str) -> pd.DataFrame:
    frame: pd.DataFrame = _read(folder, name, folder.read_parquet, remedy)
    missing = [column for column in columns if column not in frame]
    if missing:
        raise RecordError(f"{folder.path(name)} lacks {', '.join(missing)}. {remedy}")
    return frame


def _require_numbers(folder: StudyFolder, name: str, frame: pd.DataFrame, columns: Sequence[str], remedy: str) -> None:
    for column in columns:
        # the gap of a cell that never had both genders is a column of nulls
        if not is_numeric_dtype(frame[column]) and frame[column].notna().any():
            raise RecordError(f"{folder.path(name)}: {column} is not a column of numbers. {remedy}")


def _require_categories(
    folder: StudyFolder, name: str, frame: pd.DataFrame, columns: Sequence[str], remedy: str
) -> None:
    for column in columns:
        unknown = [value for value in frame[column].unique() if value not in _CATEGORIES[column]]
        if unknown:
            raise RecordError(
                f"{folder.path(name)}: {unknown[0]!r} is not a {column}; expected one of "
                f"{', '.join(_CATEGORIES[column])}. {remedy}"
            )
