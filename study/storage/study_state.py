"""The records of one study, read once and handed to planning, cost, search, status and printing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from study.storage import locks, records
from study.storage.study_folder import FileVersion, StudyFolder

PLAN = "study.json"


class StudyState:
    """The records of a study folder. Each file is read at most once, when it is first needed.

    Write records through the state, which keeps it current. Call ``refresh`` after other processes may have written,
    such as the trial drivers of a search; only files that have changed are then read again. Treat what it returns as
    read-only.
    """

    def __init__(self, folder: StudyFolder):
        self.folder = folder
        self._contents: dict[str, tuple[FileVersion | None, Any]] = {}

    @cached_property
    def plan_if_any(self) -> dict[str, Any] | None:
        """``study.json``; None if there is none.

        Raises:
            RecordError: it is damaged or has another schema version.
        """
        version = self.folder.version(PLAN)
        return None if version is None else self._read(PLAN, version, lambda name: records.read_study(self.folder))

    @property
    def plan(self) -> dict[str, Any]:
        """``study.json``.

        Raises:
            RecordError: it is missing or damaged, or has another schema version.
        """
        return records.read_study(self.folder) if self.plan_if_any is None else self.plan_if_any

    @cached_property
    def trials(self) -> dict[int, dict[str, Any]]:
        """Every trial record by its number, in ascending order.

        Raises:
            RecordError: one of them is damaged.
        """
        versions = self.folder.versions("trials")
        read = [
            self._read(name, version, lambda name: records.read_trial_file(self.folder, name))
            for name, version in versions.items()
        ]
        return {record["number"]: record for record in read}

    @cached_property
    def _run_versions(self) -> dict[str, FileVersion]:
        return self.folder.versions("runs")

    @cached_property
    def run_files(self) -> dict[tuple[str, int], frozenset[str]]:
        """The file names of each run by (config_id, seed), in ascending order."""
        runs: dict[tuple[str, int], set[str]] = {}
        for path in self._run_versions:
            _, config_id, *rest = path.split("/")
            if len(rest) > 1 and rest[0].isdigit():
                runs.setdefault((config_id, int(rest[0])), set()).add("/".join(rest[1:]))
        return {run: frozenset(runs[run]) for run in sorted(runs)}

    @property
    def finished_runs(self) -> list[tuple[str, int]]:
        """Every (config_id, seed) with a ``finished.json``, in ascending order."""
        return [run for run, files in self.run_files.items() if "finished.json" in files]

    @property
    def started_runs(self) -> list[tuple[str, int]]:
        """Every (config_id, seed) that has completed an epoch, in ascending order."""
        return [run for run, files in self.run_files.items() if "epochs.jsonl" in files]

    @property
    def trials_done(self) -> int:
        """The number of trials that need not run again: finished, or stopped early ("pruned")."""
        return sum(trial["state"] in ("finished", "pruned") for trial in self.trials.values())

    @property
    def finished_trials(self) -> list[dict[str, Any]]:
        """The records of the finished trials, by ascending number."""
        return [trial for trial in self.trials.values() if trial["state"] == "finished"]

    def missing_seeds(self, seeds: Iterable[int]) -> dict[str, list[int]]:
        """Return the seeds that have not finished, by config_id, for configurations whose trial has finished.

        A finished trial lacks seeds when the study was given more of them later.
        """
        seeds, finished = tuple(seeds), set(self.finished_runs)
        by_configuration = {
            trial["config_id"]: [seed for seed in seeds if (trial["config_id"], seed) not in finished]
            for trial in self.finished_trials
        }
        return {config_id: missing for config_id, missing in by_configuration.items() if missing}

    def finished(self, config_id: str, seed: int) -> dict[str, Any]:
        """Return the ``finished.json`` of a run."""
        record: dict[str, Any] = self._read_run_file(config_id, seed, "finished.json", self.folder.read_json)
        return record

    def epochs(self, config_id: str, seed: int) -> list[dict[str, Any]]:
        """Return the rows of a run's ``epochs.jsonl``."""
        rows: list[dict[str, Any]] = self._read_run_file(config_id, seed, "epochs.jsonl", self.folder.read_jsonl)
        return rows

    @cached_property
    def holder(self) -> str | None:
        """The process that writes the study now; None if there is none."""
        return locks.holder_of(self.folder)

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write ``study.json``."""
        self.folder.write_json(PLAN, plan)
        self._contents[PLAN] = (self.folder.version(PLAN), plan)
        self.plan_if_any = plan

    def write_trial(self, record: dict[str, Any]) -> None:
        """Write a trial's record; a retry replaces the record of the same number."""
        name = records.trial_file(record["number"])
        records.write_trial(self.folder, record)
        self._contents[name] = (self.folder.version(name), record)
        self.trials = dict(sorted({**self.trials, record["number"]: record}.items()))

    def refresh(self) -> None:
        """Look for changes by other processes when a record is needed next."""
        for name in ("plan_if_any", "trials", "_run_versions", "run_files", "holder"):
            self.__dict__.pop(name, None)

    def _read_run_file(self, config_id: str, seed: int, file: str, read: Callable[[str], Any]) -> Any:
        name = f"{records.run_directory(config_id, seed)}/{file}"
        return self._read(name, self._run_versions.get(name), read)

    def _read(self, name: str, version: FileVersion | None, read: Callable[[str], Any]) -> Any:
        """Return the content of a file; read it unless it was read in the same version before."""
        if name not in self._contents or self._contents[name][0] != version:
            self._contents[name] = (version, read(name))
        return self._contents[name][1]
