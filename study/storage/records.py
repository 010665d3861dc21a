"""Read and write the records that a study leaves on disk: the public contract between training and analysis.

Layout of a study folder, schema version 2. Every file is written under a temporary name and then renamed, so readers
only see complete files::

    study.json                    the plan: settings, space, seeds, corpus, backbone, versions, command
    utterances.parquet            dev and test utterances: id, split, language, gender, speaker, dialogue, emotion
    journal.log                   Optuna's journal, for ``optuna-dashboard journal.log``
    trials/00000.json             one trial of the search: number, config_id, hyperparameters, state
                                  (finished|failed|pruned), reason; the search objectives as means over seeds, by seed,
                                  and as standard deviation over seeds; how far each constraint is violated
    confirm/                      the front, trained again on fresh seeds: a study folder like this one
    runs/<config_id>/worker-0.log output of each worker, over all seeds; not on an object store
    runs/<config_id>/<seed>/
        settings.json             every setting of the run, resolved
        epochs.jsonl              one line per epoch: losses, fairness weight, gaps, dev figures, seconds
        steps.parquet             one row per training step: what the loss computed (``study.training.metrics_log``)
        attempt.json              which attempt at an unfinished run may write here (``study.storage.locks``)
        checkpoint.json           the checkpoint-* folder that an unfinished run resumes from
                                  (``study.training.checkpointing``)
        adapter/                  the trained weights, if they were asked for (``study.models.adapter``)
        predictions.parquet       utterance_id, split, modality, one column of summed log-probabilities per emotion
        finished.json             written last: dev and test figures, the selected epoch, seconds by purpose

A run folder without ``finished.json`` is an unfinished run; only the run itself reads it.
A storage location is a folder or a URL that ``pyarrow.fs`` accepts, with its options (``s3://bucket/path``,
``s3://bucket/path?endpoint_override=minio:9000``).
"""

from __future__ import annotations

from typing import Any

from study.common.errors import RecordError
from study.storage.schemas import SCHEMA_VERSION, TrialRecord, check_record
from study.storage.study_folder import StudyFolder


def run_directory(config_id: str, seed: int) -> str:
    """Return the path of a run inside its study folder."""
    return f"runs/{config_id}/{seed}"


def read_study(folder: StudyFolder) -> dict[str, Any]:
    """Return the plan of a study, its ``study.json``.

    Raises:
        RecordError: the file is missing, damaged, or of another schema version.
    """
    plan = read_study_if_any(folder)
    if plan is None:
        raise RecordError(
            f"no study at {folder.uri}: study.json is missing. Give the folder that contains it; the folder of a sweep "
            "is named by its --storage and --study."
        )
    return plan


def read_study_if_any(folder: StudyFolder) -> dict[str, Any] | None:
    """Return the plan of a study, or None if there is no ``study.json``.

    Raises:
        RecordError: the file is damaged or of another schema version.
    """
    try:
        plan = folder.read_json("study.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(plan, dict):
        raise RecordError(f"{folder.path('study.json')} does not contain the plan of a study: restore it from a copy.")
    if plan.get("schema_version") != SCHEMA_VERSION:
        raise RecordError(
            f"{folder.path('study.json')} has schema version {plan.get('schema_version')}, "
            f"this code reads {SCHEMA_VERSION}."
        )
    return plan


def write_trial(folder: StudyFolder, record: dict[str, Any]) -> None:
    """Write the record of a trial; a retry replaces the record of the same number."""
    folder.write_json(trial_file(record["number"]), record)


def read_trial(folder: StudyFolder, number: int) -> dict[str, Any] | None:
    """Return the record of one trial, or None if it has none yet.

    Raises:
        RecordError: the record is damaged.
    """
    try:
        return read_trial_file(folder, trial_file(number))
    except FileNotFoundError:
        return None


def trial_file(number: int) -> str:
    """Return the path of a trial's record inside its study folder."""
    return f"trials/{number:05d}.json"


def read_trial_file(folder: StudyFolder, name: str) -> dict[str, Any]:
    """Return a trial's record by the path of its file.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: the record is damaged.
    """
    record: dict[str, Any] = folder.read_json(name)
    check_record(folder, name, TrialRecord, record, "Move it away: the study then runs this trial again.")
    return record
