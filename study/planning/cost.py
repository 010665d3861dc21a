"""Estimate the cost of a study from finished runs of similar studies, and check it against a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from study.common.errors import RecordError, SettingsError, plural
from study.planning.plan import StudyPlan
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

if TYPE_CHECKING:
    from rich.console import Console

RUNS_PER_STUDY = 30  # at most so many runs of a study are measured


@dataclass(frozen=True)
class Pace:
    """Medians over finished runs, in wall-clock seconds of a worker group.

    Attributes:
        setup: from the start of a run to its first step.
        epoch: training and evaluation of one epoch.
        overhead: of a trial outside its runs, such as the start of its workers.
        runs: number of measured runs.
        studies: names of the studies of these runs.
    """

    setup: float
    epoch: float
    overhead: float
    runs: int
    studies: tuple[str, ...]

    def trial(self, seeds: int, epochs: int) -> float:
        """Return the seconds of a trial that is not stopped early.

        >>> Pace(setup=10.0, epoch=20.0, overhead=5.0, runs=1, studies=()).trial(seeds=2, epochs=3)
        145.0
        """
        return self.overhead + seeds * (self.setup + epochs * self.epoch)


def require_budget(plan: StudyPlan, state: StudyState, console: Console) -> None:
    """Print the estimated cost of what is missing: new trials, and new seeds of finished trials.

    Raises:
        SettingsError: the cost exceeds the budget, or there is a budget and no finished run to estimate from.
    """
    request = plan.request
    at_once = min((request.cores or 0) // request.parallelism.num_workers, request.trials)
    groups = plural(at_once, "worker group") if at_once else "as many worker groups as fit"
    pace = measured_pace(plan, state)
    if pace is None:
        console.print(f"{'cost':11}{groups} at a time; unknown, since no similar run has finished in this storage")
        if request.budget is not None:
            raise SettingsError(
                ["--budget: there is no finished run to estimate from; run one trial first, or omit --budget"]
            )
        return
    epochs, num_workers = request.settings.optimisation.epochs, request.parallelism.num_workers
    missing = max(0, request.trials - state.trials_done)
    trial_seconds = pace.trial(len(request.seeds), epochs)
    seed_seconds = [pace.trial(len(seeds), epochs) for seeds in state.missing_seeds(request.seeds).values()]
    trial_hours, seed_hours = trial_seconds * num_workers / 3600, sum(seed_seconds) * num_workers / 3600
    needed = seed_hours + missing * trial_hours
    work = []
    if seed_seconds:
        work.append(f"more seeds for {plural(len(seed_seconds), 'finished trial')} at {seed_hours:.3g} worker-hours")
    if missing:
        work.append(f"{plural(missing, 'trial')} at {trial_hours:.3g} worker-hours each")
    listed = " and ".join(work) or "no trials are missing"
    duration = ""
    if at_once and work:
        rounds = [math.ceil(runs / at_once) for runs in (missing, len(seed_seconds))]
        duration = f", {_duration(rounds[0] * trial_seconds + rounds[1] * max(seed_seconds, default=0.0))}"
    total = f": at most {needed:.3g} worker-hours{duration}" if work else ""
    console.print(
        f"{'cost':11}{groups} at a time; {listed}{total} ({pace.epoch:.3g} s per epoch, "
        f"{pace.setup + pace.overhead:.3g} s to start; medians over {plural(pace.runs, 'run')} of "
        f"{', '.join(pace.studies)})"
    )
    if request.budget is None:
        return
    affordable = 0
    if request.budget >= seed_hours:
        affordable = state.trials_done + int((request.budget - seed_hours) / trial_hours)
    if needed <= request.budget:
        trials = plural(affordable, "trial")
        console.print(f"{'budget':11}{request.budget:g} worker-hours are enough for a study of {trials}")
        return
    fewer = f"--trials {affordable}, " if affordable else ""
    raise SettingsError(
        [
            f"--budget: {listed} need up to {needed:.3g} worker-hours, but the budget is {request.budget:g}; use "
            f"{fewer}fewer --seeds or fewer --epochs"
        ]
    )


def measured_pace(plan: StudyPlan, state: StudyState) -> Pace | None:
    """Measure finished runs with the same corpus, backbone, modalities, batch size and parallelism.

    All studies in the storage of the planned study count; None without such a run.

    Args:
        plan: the planned study.
        state: its records.
    """
    storage = plan.request.folder.parent
    if storage.exists("study.json"):  # the confirmation of a study lies in that study's folder
        storage = storage.parent
    setups, epochs, overheads, studies = [], [], [], []
    for name in storage.names("."):
        folder = StudyFolder(storage.path(name))
        other = state if folder == state.folder else StudyState(folder)
        try:
            if other.plan_if_any is None or not _is_similar(other.plan, plan):
                continue
            trials = other.finished_trials
        except RecordError:  # another schema version, or damaged: reported when that study itself is read
            continue
        seconds: dict[str, float] = {}
        for config_id, seed in other.finished_runs[-RUNS_PER_STUDY:]:
            run = other.finished(config_id, seed)
            if run["epochs_run"]:
                setups.append(run["seconds"]["setup"])
                epochs.append((run["seconds"]["total"] - run["seconds"]["setup"]) / run["epochs_run"])
                seconds[config_id] = seconds.get(config_id, 0.0) + run["seconds"]["total"]
                studies.append(name)
        for trial in trials:
            if trial["config_id"] in seconds:
                overheads.append(max(0.0, trial["seconds"] - seconds[trial["config_id"]]))
    if not epochs:
        return None
    overhead = median(overheads) if overheads else 0.0
    return Pace(median(setups), median(epochs), overhead, len(epochs), tuple(dict.fromkeys(studies)))


def _is_similar(record: dict[str, Any], plan: StudyPlan) -> bool:
    settings = plan.request.settings
    return bool(
        record["corpus"]["hash"] == plan.corpus.content_hash
        and record["backbone"]["spec"] == settings.backbone.spec
        and record["modalities"] == list(settings.modalities)
        and record["settings"]["optimisation"]["batch_size"] == settings.optimisation.batch_size
        and record.get("parallelism") == plan.request.parallelism.model_dump()
    )


def _duration(seconds: float) -> str:
    return f"about {seconds / 3600:.1f} h" if seconds >= 5400 else f"about {max(1, round(seconds / 60))} min"
