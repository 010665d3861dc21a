"""The progress of a study, from its records alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from study.storage.study_state import StudyState


@dataclass(frozen=True)
class Status:
    """The progress of a study at one moment.

    Attributes:
        plan: its ``study.json``.
        counts: number of trials by state: finished, failed, pruned. A trial that failed and succeeded when it was
            retried does not count as failed.
        open: progress of each seed, by config_id, of the configurations that have started and not ended. These include
            finished configurations that lack seeds which were added later, and failed ones that are being retried.
        missing_runs: number of runs that finished trials lack because seeds were added to the study.
        holder: the process that writes the study now; None if there is none, and open configurations were interrupted.
        seconds: wall-clock seconds of a worker group, over all trials.
        remaining: estimated seconds until all planned trials and seeds have finished; None if no trial has finished.
    """

    plan: dict[str, Any]
    counts: dict[str, int]
    open: dict[str, str]
    missing_runs: int
    holder: str | None
    seconds: float
    remaining: float | None

    @property
    def worker_hours(self) -> float:
        """Hours of workers over all trials."""
        return float(self.seconds * self.plan.get("parallelism", {"num_workers": 1})["num_workers"] / 3600)


def read_status(state: StudyState) -> Status:
    """Return the status of a study.

    Raises:
        RecordError: there is no study, or a record of it is damaged.
    """
    plan, trials, seeds = state.plan, state.trials.values(), state.plan["seeds"]
    missing = state.missing_seeds(seeds)
    succeeded = {trial["config_id"] for trial in trials if trial["state"] != "failed"}
    failed = [trial for trial in trials if trial["state"] == "failed" and trial["config_id"] not in succeeded]
    ended = {*succeeded, *(trial["config_id"] for trial in failed if not trial.get("retried"))}
    growing = {
        config_id for config_id, lacking in missing.items() if any((config_id, s) in state.run_files for s in lacking)
    }
    started = dict.fromkeys(config_id for config_id, _ in state.run_files)
    open_ = {
        config_id: ", ".join(f"seed {seed}: {_progress(state, config_id, seed)}" for seed in seeds)
        for config_id in started
        if config_id not in ended - growing
    }
    states = [trial["state"] for trial in trials if trial["state"] != "failed"]
    counts = Counter([*states, *("failed" for trial in failed if trial["config_id"] not in open_)])
    finished = state.finished_trials
    runs = sum(len(trial.get("by_seed", seeds)) for trial in finished)
    missing_runs = sum(map(len, missing.values()))
    remaining_runs = max(0, plan["trials"] - state.trials_done) * len(seeds) + missing_runs
    at_once = max(1, len(open_) if state.holder else 1)
    remaining = sum(trial["seconds"] for trial in finished) / runs * remaining_runs / at_once if runs else None
    seconds = sum(trial["seconds"] for trial in trials)
    return Status(plan, dict(counts), open_, missing_runs, state.holder, seconds, remaining)


def _progress(state: StudyState, config_id: str, seed: int) -> str:
    files = state.run_files.get((config_id, seed), frozenset())
    if "finished.json" in files:
        return "finished"
    if "epochs.jsonl" not in files:
        return "not started"
    return f"epoch {len(state.epochs(config_id, seed))}"
