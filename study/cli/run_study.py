"""Run the trials of a study that are missing, and show the results: shared by the commands with several trials."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from search_spaces import SpaceMaker
from study.cli.app import handle_sigterm, name_full_disk
from study.common.environment import stay_on_loopback
from study.common.errors import plural
from study.common.groups import cells
from study.planning.request import StudyRequest
from study.planning.study_json import (
    conflicts,
    is_complete,
    plan_with_results,
    refuse_conflicts,
    save_plan,
    space_conflicts,
    space_record,
    study_record,
)
from study.storage.locks import study_lock
from study.storage.schemas import UTTERANCE_COLUMNS
from study.storage.study_state import StudyState

if TYPE_CHECKING:
    from study.planning.plan import StudyPlan
    from study.ray_backend.progress import StudyProgress


@dataclass(frozen=True)
class StudyCommand:
    """What a command adds to running a study.

    Attributes:
        make_space: makes the search space from languages and settings; None takes the space named in the request.
        labels: labels of the trials that this call wants, if they are named; the study is complete when these have
            finished.
        describe_trial: describes the hyperparameters of a trial in a few words.
        show: prints the results. It takes the request, the records, and whether to write the report first, and returns
            the exit status.
    """

    make_space: SpaceMaker | None
    labels: tuple[str, ...]
    describe_trial: Callable[[Mapping[str, Any]], str]
    show: Callable[[StudyRequest, StudyState, bool], int]


def run_study(request: StudyRequest, command: StudyCommand, dry_run: bool, console: Console) -> int:
    """Run the missing trials of a study and show the results.

    The study is shown at once, without importing torch or Ray, if it is complete.

    Args:
        dry_run: only print the plan.

    Returns:
        The exit status.
    """
    request.folder.require_storage()
    state = StudyState(request.folder)
    if command.labels:
        request = request.for_labels(command.labels, state)
    if not request.errors and not dry_run and is_complete(request, state):
        console.print(f"study {request.name} is complete: {plural(request.trials, 'trial')}")
        return command.show(request, state, not request.folder.exists("report/report.html"))
    stay_on_loopback()
    from study.ray_backend import cluster

    cluster.set_environment()
    plan = _plan_study(request, state, command, console)
    if dry_run:
        return 0
    try:
        with study_lock(request.folder):
            _run_trials(plan, state, command, console)
    except Exception as error:
        named = name_full_disk(error, (request.folder.uri, str(request.cache), tempfile.gettempdir()))
        if named is error:
            raise
        raise named from error
    threading.Thread(target=cluster.disconnect).start()  # takes seconds, during which the report is written
    return command.show(request, state, True)


def _plan_study(request: StudyRequest, state: StudyState, command: StudyCommand, console: Console) -> StudyPlan:
    """Check the request against the existing study, the corpus and the machine, and print the plan."""
    from study.cli.describe import describe
    from study.planning.cost import require_budget
    from study.planning.memory_check import require_plan_memory
    from study.planning.plan import build_plan

    existing = plan_with_results(state)
    if existing:
        refuse_conflicts(request, conflicts(existing, request))
    plan = build_plan(request, command.make_space)
    if existing:
        refuse_conflicts(request, space_conflicts(existing, space_record(plan)))
    describe(plan, console)
    num_workers = request.parallelism.num_workers
    at_once = min(request.trials, (request.cores or 0) // num_workers)
    require_plan_memory(plan, at_once * num_workers if request.cores else None, console)
    require_budget(plan, state, console)
    return plan


def _run_trials(plan: StudyPlan, state: StudyState, command: StudyCommand, console: Console) -> None:
    from study.planning.prepare import prepare
    from study.ray_backend import cluster, tuner
    from study.ray_backend.loggers import make_trackers
    from study.ray_backend.progress import StudyProgress
    from study.search import trial_records
    from study.search.optuna_study import Search

    request = plan.request
    cluster.require_reachable()
    prepared = prepare(plan)
    state.refresh()  # another process may have written before this one locked the study
    save_plan(request, study_record(plan, prepared.backbone_hash), state)
    console.print(f"{'running on':11}{cluster.connect()}")
    handle_sigterm()  # Ray has set a handler of its own
    template = trial_records.TrialTemplate(
        settings=request.settings,
        parallelism=request.parallelism,
        seeds=request.seeds,
        features=prepared.features,
        backbone=prepared.backbone,
        cells=cells(plan.languages, request.settings.modalities),
        corpus_hash=plan.corpus.content_hash,
        backbone_hash=prepared.backbone_hash,
        folder=request.folder,
        use_gpu=cluster.has_gpus(),
        search_objectives=request.search_objectives,
        profile=request.profile,
    )
    cluster.require_capacity(request.parallelism)
    utterances = plan.corpus.utterances
    request.folder.write_parquet(
        "utterances.parquet", utterances.loc[utterances["split"] != "train", list(UTTERANCE_COLUMNS)]
    )
    epochs = request.settings.optimisation.epochs * len(request.seeds)
    incomplete = trial_records.trials_with_missing_seeds(template, state)
    if incomplete:
        trials = plural(len(incomplete), "finished trial")
        console.print(f"{'seeds':11}adding seeds to {trials} first: the study has {len(request.seeds)} seeds now")
        progress = StudyProgress(progress_bar(console), len(incomplete), 0, epochs, command.describe_trial)
        run = partial(tuner.run_missing_seeds, template, incomplete, request.retries, [progress])
        _run_with_progress(progress, run)
        state.refresh()
    trial_records.update_trial_records(template, state)
    search = Search(
        request.name,
        plan.space,
        request.settings,
        request.search_objectives,
        request.sampler,
        request.sampler_seed,
        request.retries,
        template.cells,
    )
    progress = StudyProgress(progress_bar(console), request.trials, state.trials_done, epochs, command.describe_trial)
    directory = request.folder.uri if request.folder.is_local else "."
    callbacks = [progress, *make_trackers(request.trackers, request.name, directory)]
    run = partial(tuner.run_trials, template, search, state, request.trials, callbacks, request.early_stopping)
    _run_with_progress(progress, run)


def progress_bar(console: Console) -> Progress:
    """Return a bar with a description, which is shown on terminals only and leaves no line."""
    columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _run_with_progress(progress: StudyProgress, run: Callable[[], None]) -> None:
    try:
        run()
    finally:
        progress.stop()
