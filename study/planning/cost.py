"""What a study will cost, from what finished studies like it took: worker-hours, hours, and how many trials fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import Console

from study.common.errors import RecordError, SettingsError
from study.planning.plan import StudyPlan
from study.storage.records import finished_runs, missing_seeds, read_study, read_trials, run_directory, trials_done
from study.storage.study_folder import StudyFolder

ENOUGH = 30  # runs of a study that are looked at


@dataclass(frozen=True)
class Pace:
    """Medians over finished runs, in wall-clock seconds of their worker groups.

    Attributes:
        setup: from the start of a run to its first step.  epoch: training and scoring.
        overhead: of a trial outside its runs, placing and starting workers.
        runs: how many were looked at.  studies: whose they were.
    """

    setup: float
    epoch: float
    overhead: float
    runs: int
    studies: tuple[str, ...]

    def trial(self, seeds: int, epochs: int) -> float:
        """Seconds of a trial that stops at no epoch before the last.

        >>> Pace(setup=10.0, epoch=20.0, overhead=5.0, runs=1, studies=()).trial(seeds=2, epochs=3)
        145.0
        """
        return self.overhead + seeds * (self.setup + epochs * self.epoch)


def require_budget(plan: StudyPlan, console: Console) -> None:
    """Print what the missing trials, and the missing seeds of finished ones, will take, and what the budget holds.

    Raises:
        SettingsError: it is more than the budget, or nothing is known to hold the budget against.
    """
    request = plan.request
    at_once = (request.cores or 0) // request.parallelism.num_workers
    groups = f"{min(at_once, request.trials)} worker groups at a time" if request.cores else "as many at a time as fit"
    pace = measured_pace(plan)
    if pace is None:
        console.print(f"{'cost':11}{groups}; not known: no finished run of this corpus, backbone and ranks beside it")
        if request.budget is not None:
            raise SettingsError(["--budget: no finished run to measure by; run one trial first, or leave --budget out"])
        return
    epochs, num_workers = request.settings.optimisation.epochs, request.parallelism.num_workers
    trials = read_trials(request.folder)
    done = trials_done(trials.values())
    missing = max(0, request.trials - done)
    seconds = pace.trial(len(request.seeds), epochs)
    lacking = missing_seeds(request.folder, trials.values(), request.seeds)
    growth = [pace.trial(len(seeds), epochs) for seeds in lacking.values()]
    hours, grown = seconds * num_workers / 3600, sum(growth) * num_workers / 3600  # of workers: a trial; all seeds
    needed = grown + missing * hours
    wall = ""
    if at_once:
        rounds = [math.ceil(runs / min(at_once, request.trials)) for runs in (missing, len(growth))]
        wall = f", {_duration(rounds[0] * seconds + rounds[1] * max(growth, default=0.0))}"
    more = f"more seeds of {len(growth)} finished trials at {grown:.3g} and " if growth else ""
    console.print(
        f"{'cost':11}{groups}; {more}{missing} trials at {hours:.3g} worker-hours: at most {needed:.3g}{wall} "
        f"({pace.epoch:.3g} s an epoch, {pace.setup + pace.overhead:.3g} s to start; medians of {pace.runs} runs of "
        f"{', '.join(pace.studies)})"
    )
    if request.budget is None:
        return
    fits = done + int((request.budget - grown) / hours) if request.budget >= grown else 0
    if needed <= request.budget:
        console.print(f"{'budget':11}{request.budget:g} worker-hours hold a study of {fits} trials")
        return
    fewer = f"--trials {fits}, " if fits else ""
    raise SettingsError(
        [
            f"--budget: {more}{missing} more trials need up to {needed:.3g} worker-hours, the budget is "
            f"{request.budget:g}; use {fewer}fewer --seeds or fewer --epochs"
        ]
    )


def measured_pace(plan: StudyPlan) -> Pace | None:
    """What runs of the same corpus, backbone, modalities, batch and placement took, in all studies of this storage."""
    storage = plan.request.folder.parent
    if storage.exists("study.json"):  # this study lies inside another (study.planning.confirmation)
        storage = storage.parent
    setups, epochs, overheads, studies = [], [], [], []
    for name in storage.names("."):
        folder = StudyFolder(storage.path(name))
        if not folder.exists("study.json"):
            continue
        try:
            if not _alike(read_study(folder), plan):
                continue
            trials = read_trials(folder).values()
        except RecordError:  # of another version, or damaged, which is told where that study is read for itself
            continue
        totals: dict[str, float] = {}
        found = finished_runs(folder)[-ENOUGH:]
        for config_id, seed in found:
            run = folder.read_json(f"{run_directory(config_id, seed)}/finished.json")
            if run["epochs_run"]:
                setups.append(run["seconds"]["setup"])
                epochs.append((run["seconds"]["total"] - run["seconds"]["setup"]) / run["epochs_run"])
                totals[config_id] = totals.get(config_id, 0.0) + run["seconds"]["total"]
                studies.append(name)
        for trial in trials:
            if trial["state"] == "finished" and trial["config_id"] in totals:
                overheads.append(max(0.0, trial["seconds"] - totals[trial["config_id"]]))
    if not epochs:
        return None
    overhead = median(overheads) if overheads else 0.0
    return Pace(median(setups), median(epochs), overhead, len(epochs), tuple(dict.fromkeys(studies)))


def _alike(record: dict[str, Any], plan: StudyPlan) -> bool:
    settings = plan.request.settings
    return (
        record["corpus"]["hash"] == plan.corpus.content_hash
        and record["backbone"]["spec"] == settings.backbone.spec
        and record["modalities"] == list(settings.modalities)
        and record["settings"]["optimisation"]["batch_size"] == settings.optimisation.batch_size
        and record.get("parallelism") == plan.request.parallelism.model_dump()
    )


def _duration(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} h" if seconds >= 5400 else f"about {max(1, round(seconds / 60))} min"
