"""From flags to a finished study: what the scripts that run trials share. They bring what they show at the end."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from search_spaces import SpaceMaker
from study.cli.app import handle_sigterm, with_place
from study.cli.describe import describe
from study.common.environment import stay_on_loopback
from study.common.groups import cells
from study.planning.cost import require_budget
from study.planning.plan import StudyPlan, build_plan
from study.planning.request import StudyRequest
from study.planning.study_json import (
    begun_study,
    conflicts,
    is_complete,
    keep_plan,
    refuse_conflicts,
    space_conflicts,
    space_record,
    study_record,
)
from study.storage.locks import study_lock
from study.storage.schemas import UTTERANCE_COLUMNS
from study.storage.study_state import StudyState


@dataclass(frozen=True)
class StudyCommand:
    """What a command adds to running a study.

    Attributes:
        make_space: makes the search space from languages and settings; None takes the space named in the request.
        labels: labels of the trials that this call wants, if they are named; the study is complete when these have
            finished.
        describe_trial: describes the hyperparameters of a trial in a few words.
        show: prints the results; its second argument says whether to write the report first. Returns the exit status.
    """

    make_space: SpaceMaker | None
    labels: tuple[str, ...]
    describe_trial: Callable[[Mapping[str, Any]], str]
    show: Callable[[StudyRequest, bool], int]


def run_study(request: StudyRequest, command: StudyCommand, dry_run: bool, console: Console) -> int:
    """Plan, run what is missing, show; with ``dry_run`` only the plan."""
    request.folder.require_storage()
    if command.labels:
        request = request.for_labels(command.labels)
    if not request.errors and not dry_run and is_complete(request):
        console.print(f"study {request.name} is complete: {request.trials} trials")
        return command.show(request, not request.folder.exists("report/report.html"))
    stay_on_loopback()
    from study.ray_backend import cluster  # Ray and torch take seconds to import: not for a complete study

    cluster.set_environment()
    from study.planning.memory_check import require_memory

    there = begun_study(request.folder)
    if there:
        refuse_conflicts(request, conflicts(there, request))
    plan = build_plan(request, command.make_space)
    if there:
        refuse_conflicts(request, space_conflicts(there, space_record(plan)))
    describe(plan, console)
    at_once = min(request.trials, (request.cores or 0) // request.parallelism.num_workers)
    require_memory(plan, at_once * request.parallelism.num_workers if request.cores else None, console)
    require_budget(plan, console)
    if dry_run:
        return 0
    try:
        with study_lock(request.folder):
            _run_trials(plan, command, console)
    except Exception as error:
        named = with_place(error, (request.folder.uri, str(request.cache), tempfile.gettempdir()))
        if named is error:
            raise
        raise named from error
    threading.Thread(target=cluster.disconnect).start()  # takes seconds: beside the report
    return command.show(request, True)


def _run_trials(plan: StudyPlan, command: StudyCommand, console: Console) -> None:
    """Run the trials that are missing."""
    from study.planning.prepare import prepare
    from study.ray_backend import cluster, tuner
    from study.ray_backend.loggers import make_trackers
    from study.ray_backend.progress import StudyProgress
    from study.search import trial_records
    from study.search.optuna_study import Search

    request = plan.request
    cluster.require_reachable()
    prepared = prepare(plan)
    record = study_record(plan, prepared.backbone_hash)
    keep_plan(request, record)
    console.print(f"{'running on':11}{cluster.connect()}")
    handle_sigterm()
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
    state = StudyState(request.folder)
    lacking = trial_records.trials_with_missing_seeds(template, state)
    if lacking:
        console.print(
            f"{'seeds':11}{len(lacking)} finished trials have not all of {len(request.seeds)} seeds: these first"
        )
        progress = StudyProgress(console, len(lacking), 0, _epochs(request), command.describe_trial)
        _with_progress(progress, partial(tuner.run_missing_seeds, template, lacking, request.retries, [progress]))
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
    progress = StudyProgress(console, request.trials, state.trials_done, _epochs(request), command.describe_trial)
    place = request.folder.uri if request.folder.is_local else "."
    callbacks = [progress, *make_trackers(request.trackers, request.name, place)]
    run = partial(tuner.run_trials, template, search, state, request.trials, callbacks, request.early_stopping)
    _with_progress(progress, run)


def _epochs(request: StudyRequest) -> int:
    return request.settings.optimisation.epochs * len(request.seeds)


def _with_progress(progress: Any, run: Callable[[], None]) -> None:
    try:
        run()
    finally:
        progress.stop()
