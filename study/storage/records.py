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

from collections.abc import Iterable, Mapping
from typing import Any

from study.common.errors import RecordError
from study.storage.schemas import SCHEMA_VERSION, TrialRecord, check_record
from study.storage.study_folder import StudyFolder


def run_directory(config_id: str, seed: int) -> str:
    """Return the path of a run inside its study folder."""
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
    except FileNotFoundError:
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
    folder.write_json(_trial_file(record["number"]), record)


def trials_done(trials: Iterable[Mapping[str, Any]]) -> int:
    """Return how many trials need not run again: those that finished or were stopped early ("pruned")."""
    return sum(trial["state"] in ("finished", "pruned") for trial in trials)


def read_trial(folder: StudyFolder, number: int) -> dict[str, Any] | None:
    """Return the record of one trial, or None if it has none yet.

    Raises:
        RecordError: the record is damaged.
    """
    try:
        return _read_trial(folder, _trial_file(number))
    except FileNotFoundError:
        return None


def read_trials(folder: StudyFolder) -> dict[int, dict[str, Any]]:
    """Return every trial record by its number, in ascending order.

    Raises:
        RecordError: a record is damaged.
    """
    trials = [_read_trial(folder, f"trials/{name}") for name in folder.names("trials")]
    return {record["number"]: record for record in trials}


def _trial_file(number: int) -> str:
    return f"trials/{number:05d}.json"


def _read_trial(folder: StudyFolder, name: str) -> dict[str, Any]:
    record: dict[str, Any] = folder.read_json(name)
    check_record(folder, name, TrialRecord, record, "Move it away: the study then runs this trial again.")
    return record
