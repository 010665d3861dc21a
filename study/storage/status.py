"""Where a study stands, from its records alone: nothing is started, loaded or locked for long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from study.storage.locks import holder_of
from study.storage.records import missing_seeds, read_study, read_trials, run_directory, trials_done
from study.storage.study_folder import StudyFolder


@dataclass(frozen=True)
class Status:
    """A study at one moment.

    Attributes:
        plan: its ``study.json``.
        counts: trials by state: finished, failed, pruned. One that failed, and worked when it was tried again, has not
            failed.
        open: configurations that have begun and not ended, each with what its seeds have done: also those that have
            finished with fewer seeds than the study has now, or that are tried again.
        seeds: runs that finished trials lack, because the study has got more seeds since.
        holder: who writes the study now, None if nobody does: then what is open was cut off.
        seconds: wall-clock seconds of a worker group, over all trials.
        left: seconds until the trials of the plan, and the seeds that finished ones lack, have finished at this pace;
            None while there is no pace.
    """

    plan: dict[str, Any]
    counts: dict[str, int]
    open: dict[str, str]
    seeds: int
    holder: str | None
    seconds: float
    left: float | None

    @property
    def worker_hours(self) -> float:
        return self.seconds * self.plan.get("parallelism", {"num_workers": 1})["num_workers"] / 3600


def read_status(folder: StudyFolder) -> Status:
    """The status of a study.

    Raises:
        RecordError: there is no study there, or a record of it is damaged.
    """
    plan, trials = read_study(folder), read_trials(folder)
    lacking = missing_seeds(folder, trials.values(), plan["seeds"])
    worked = {trial["config_id"] for trial in trials.values() if trial["state"] != "failed"}
    failed = [trial for trial in trials.values() if trial["state"] == "failed" and trial["config_id"] not in worked]
    ended = {*worked, *(trial["config_id"] for trial in failed if not trial.get("retried"))}
    begun = {
        config_id
        for config_id, seeds in lacking.items()
        if any(folder.exists(run_directory(config_id, seed)) for seed in seeds)
    }
    open_ = {
        config_id: ", ".join(f"seed {seed}: {_progress(folder, config_id, seed)}" for seed in plan["seeds"])
        for config_id in folder.names("runs")
        if config_id not in ended - begun
    }
    states = [trial["state"] for trial in trials.values() if trial["state"] != "failed"]
    counts = Counter([*states, *("failed" for trial in failed if trial["config_id"] not in open_)])
    holder = holder_of(folder)
    finished = [trial for trial in trials.values() if trial["state"] == "finished"]
    runs = sum(len(trial.get("by_seed", plan["seeds"])) for trial in finished)
    behind = sum(map(len, lacking.values()))
    missing = max(0, plan["trials"] - trials_done(trials.values())) * len(plan["seeds"]) + behind
    at_once = max(1, len(open_) if holder else 1)
    left = sum(trial["seconds"] for trial in finished) / runs * missing / at_once if runs else None
    seconds = sum(trial["seconds"] for trial in trials.values())
    return Status(plan, dict(counts), open_, behind, holder, seconds, left)


def _progress(folder: StudyFolder, config_id: str, seed: int) -> str:
    directory = run_directory(config_id, seed)
    if folder.exists(f"{directory}/finished.json"):
        return "finished"
    if not folder.exists(f"{directory}/epochs.jsonl"):
        return "not begun"
    return f"epoch {len(folder.read_jsonl(f'{directory}/epochs.jsonl'))}"
