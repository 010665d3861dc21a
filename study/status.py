"""Where a study stands, from its records alone: nothing is started, loaded or locked for long."""

from __future__ import annotations

import fcntl
from collections import Counter
from dataclasses import dataclass
from typing import Any

from study.records import StudyFolder, read_study, read_trials, run_directory, trials_done


@dataclass(frozen=True)
class Status:
    """A study at one moment.

    Attributes:
        plan: its ``study.json``.
        counts: trials by state: finished, failed, pruned.
        open: configurations that have begun and not ended, each with what its seeds have done.
        holder: who writes the study now, None if nobody does: then what is open was cut off.
        seconds: wall-clock seconds of a worker group, over all trials.
        left: seconds until the trials of the plan have finished at this pace, None while there is no pace.
    """

    plan: dict[str, Any]
    counts: dict[str, int]
    open: dict[str, str]
    holder: str | None
    seconds: float
    left: float | None

    @property
    def worker_hours(self) -> float:
        return self.seconds * self.plan.get("placement", {"ranks": 1})["ranks"] / 3600


def read_status(folder: StudyFolder) -> Status:
    """The status of a study.

    Raises:
        RecordError: there is no study there.
    """
    plan, trials = read_study(folder), read_trials(folder)
    counts = Counter(trial["state"] for trial in trials.values())
    ended = {trial["config_id"] for trial in trials.values()}
    open_ = {
        config_id: ", ".join(f"seed {seed}: {_progress(folder, config_id, seed)}" for seed in plan["seeds"])
        for config_id in folder.names("runs")
        if config_id not in ended
    }
    holder = holder_of(folder)
    finished = [trial["seconds"] for trial in trials.values() if trial["state"] == "finished"]
    missing = max(0, plan["trials"] - trials_done(trials.values()))
    at_once = max(1, len(open_) if holder else 1)
    left = sum(finished) / len(finished) * missing / at_once if finished else None
    seconds = sum(trial["seconds"] for trial in trials.values())
    return Status(plan, dict(counts), open_, holder, seconds, left)


def holder_of(folder: StudyFolder) -> str | None:
    """The process that writes a local study, None if there is none or it cannot be known (an object store)."""
    if not folder.is_local or not folder.exists("lock"):
        return None
    with open(folder.path("lock")) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return lock.read() or "another process"
    return None


def _progress(folder: StudyFolder, config_id: str, seed: int) -> str:
    directory = run_directory(config_id, seed)
    if folder.exists(f"{directory}/finished.json"):
        return "finished"
    if not folder.exists(f"{directory}/epochs.jsonl"):
        return "not begun"
    return f"epoch {len(folder.read_jsonl(f'{directory}/epochs.jsonl'))}"
