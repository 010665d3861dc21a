"""The records of one study, read once and handed to planning, cost, search, status and printing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from study.storage import locks, records
from study.storage.study_folder import StudyFolder


class StudyState:
    """The records of a study folder. Each file is read at most once, when it is first asked for.

    Write records through the state, which keeps it current. Call ``refresh`` after other processes have written, such
    as the trial drivers of a search. Treat what it returns as read-only.
    """

    def __init__(self, folder: StudyFolder):
        self.folder = folder
        self._finished: dict[tuple[str, int], dict[str, Any]] = {}
        self._epochs: dict[tuple[str, int], list[dict[str, Any]]] = {}

    @cached_property
    def plan_if_any(self) -> dict[str, Any] | None:
        """``study.json``; None where there is none.

        Raises:
            RecordError: it is damaged or of another schema version.
        """
        return records.read_study_if_any(self.folder)

    @property
    def plan(self) -> dict[str, Any]:
        """``study.json``.

        Raises:
            RecordError: it is missing, damaged or of another schema version.
        """
        return records.read_study(self.folder) if self.plan_if_any is None else self.plan_if_any

    @cached_property
    def trials(self) -> dict[int, dict[str, Any]]:
        """Every trial record by its number, in ascending order.

        Raises:
            RecordError: one of them is damaged.
        """
        return records.read_trials(self.folder)

    @cached_property
    def run_files(self) -> dict[tuple[str, int], frozenset[str]]:
        """The file names of each run by (config_id, seed), in ascending order; from one listing of ``runs/``."""
        runs: dict[tuple[str, int], set[str]] = {}
        for path in self.folder.files("runs"):
            config_id, _, rest = path.partition("/")
            seed, _, name = rest.partition("/")
            if seed.isdigit() and name:
                runs.setdefault((config_id, int(seed)), set()).add(name)
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
        return records.trials_done(self.trials.values())

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
        run = (config_id, seed)
        if run not in self._finished:
            self._finished[run] = self.folder.read_json(f"{records.run_directory(*run)}/finished.json")
        return self._finished[run]

    def epochs(self, config_id: str, seed: int) -> list[dict[str, Any]]:
        """Return the rows of a run's ``epochs.jsonl``."""
        run = (config_id, seed)
        if run not in self._epochs:
            self._epochs[run] = self.folder.read_jsonl(f"{records.run_directory(*run)}/epochs.jsonl")
        return self._epochs[run]

    @cached_property
    def holder(self) -> str | None:
        """The process that writes the study now; None if there is none."""
        return locks.holder_of(self.folder)

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write ``study.json``."""
        self.folder.write_json("study.json", plan)
        self.plan_if_any = plan

    def write_trial(self, record: dict[str, Any]) -> None:
        """Write a trial's record; a retry replaces the record of the same number."""
        records.write_trial(self.folder, record)
        self.trials = dict(sorted({**self.trials, record["number"]: record}.items()))

    def refresh(self) -> None:
        """Forget everything that was read, because other processes have written since."""
        for name in ("plan_if_any", "trials", "run_files", "holder"):
            self.__dict__.pop(name, None)
        self._finished.clear()
        self._epochs.clear()
