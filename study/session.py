"""From flags to a finished study: what the scripts that run trials share. They bring what they show at the end."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from search_spaces import SpaceMaker
from study.budget import require_budget
from study.corpora import CorpusError
from study.groups import cells
from study.halving import NAME
from study.holding import hold
from study.machine import rank_and_ranks, stay_on_loopback
from study.plan_record import begun_study, conflicts, space_conflicts, space_record, study_record
from study.planning import Draft, StudyPlan, complete, read_flags, read_search
from study.records import UTTERANCE_COLUMNS, RecordError, finished_runs, read_study, read_trials, trials_done
from study.settings import SettingsError


@dataclass(frozen=True)
class Script:
    """What one script adds.

    Attributes:
        make_space: from languages and settings, what is run; None for the space that the flags name.
        labels: names of the trials that this call wants, if they are named; it is complete when these have finished.
        words: the knobs of a trial in a few words.
        show: prints what came out; its second argument says whether to write the report anew. Returns the exit status.
    """

    make_space: SpaceMaker | None
    labels: tuple[str, ...]
    words: Callable[[Mapping[str, Any]], str]
    show: Callable[[Draft, bool], int]


_terminated = threading.Event()
"""Set by SIGTERM: what interrupts a script passes through Ray, which raises it anew as Ctrl-C's."""


def heed_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C; again after what sets a handler of its own, such as Ray's start."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: Any) -> None:
    if not _terminated.is_set():  # a second one would cut off what ends the first
        _terminated.set()
        raise KeyboardInterrupt


def run_script(run: Callable[[], int]) -> int:
    """Run and turn what the user can mend into a message; the exit status.

    Returns:
        What ``run`` does, 1 if training diverged, 2 for what the user can mend, 130 if interrupted, 143 if terminated.
    """
    _terminated.clear()
    heed_sigterm()
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        return run()
    except (SettingsError, RecordError, CorpusError) as error:
        if rank_and_ranks()[0] == 0:  # under torchrun every rank finds the same
            print(f"error: {error}".replace("\n", "\n       "), file=sys.stderr)
        return 2
    except OSError as error:  # no room, no permission, a backbone that is not there
        print(f"error: {error}\n       mend that and run the same command again: it goes on", file=sys.stderr)
        return 2
    except FloatingPointError as error:  # the loss of a run without Ray; with it, the trial's record says so
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        told = "terminated" if _terminated.is_set() else "interrupted"
        print(f"\n{told}: what has finished is kept; the same command goes on", file=sys.stderr)
        return 143 if _terminated.is_set() else 130


def read_draft(flags: argparse.Namespace) -> Draft:
    """What the flags say, those of a search included where there are any."""
    stay_on_loopback()
    from study import connection  # Ray takes seconds to import: not for --help

    connection.set_environment()
    draft = read_flags(flags, connection.in_reach())
    return read_search(draft, flags) if "sampler" in flags else draft


def run_study(draft: Draft, script: Script, dry_run: bool, console: Console) -> int:
    """Plan, run what is missing, show; with ``dry_run`` only the plan."""
    from study.room import require_memory

    draft.folder.require_storage()
    if script.labels:
        draft = draft.for_labels(script.labels)
    if not draft.faults and not dry_run and _is_complete(draft):
        console.print(f"study {draft.name} is complete: {draft.trials} trials")
        return script.show(draft, not draft.folder.exists("report/report.html"))
    there = begun_study(draft.folder)
    if there:
        refuse_conflicts(draft, conflicts(there, draft))
    plan = complete(draft, script.make_space)
    if there:
        refuse_conflicts(draft, space_conflicts(there, space_record(plan)))
    describe(plan, console)
    at_once = min(draft.trials, (draft.cores or 0) // draft.placement.ranks)
    require_memory(plan, at_once * draft.placement.ranks if draft.cores else None, console)
    require_budget(plan, console)
    if dry_run:
        return 0
    try:
        with hold(draft.folder):
            _run_trials(plan, script, console)
    except Exception as error:
        named = with_place(error, (draft.folder.uri, str(draft.cache), tempfile.gettempdir()))
        if named is error:
            raise
        raise named from error
    from study import connection

    threading.Thread(target=connection.leave).start()  # takes seconds: beside the report
    return script.show(draft, True)


def with_place(error: Exception, places: Sequence[str]) -> Exception:
    """The error; if it says that a disk is full and not which, also by a library's own class, an ``OSError`` with the
    fullest of the places that are written to."""
    here = [place for place in places if os.path.isdir(place)]
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename
    else:
        full = os.strerror(errno.ENOSPC) in str(error) and not isinstance(error, RecordError)  # which names its file
    if not full or not here:
        return error
    free, place = min((shutil.disk_usage(place).free, place) for place in here)
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {free / 1e9:.2g} GB left of the disk", place)


def describe(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    draft = plan.draft
    epochs = draft.settings.optimisation.epochs
    runs = draft.trials * len(draft.seeds)
    describe_subject(plan, console)
    search = f"{draft.trials} trials × {len(draft.seeds)} seeds = {runs} runs of at most {epochs} epochs"
    console.print(f"{'search':11}{search}, space {draft.space}:")
    for arm in () if plan.space.knobs else plan.space.references:
        console.print(f"{'':13}{arm.label}{f' ({arm.note})' if arm.note else ''}")
    for knob in plan.space.knobs:
        console.print(f"{'':13}{knob.name.removeprefix('objective.'):32} {knob.range()}")
    if plan.space.knobs:
        goals = [f"{metric} {mode}" for metric, mode in draft.goals.objectives]
        console.print(
            f"{'goals':11}{', '.join([*goals, *map(str, draft.goals.requirements)])}; sampler {draft.sampler}"
            f"{f', seed {draft.sampler_seed}' if draft.sampler_seed else ''}"
        )
    if draft.early_stopping:
        rungs = ", ".join(map(str, draft.early_stopping.rungs(epochs)))
        console.print(
            f"{'stopping':11}{NAME}: one in {draft.early_stopping.eta} goes on after epochs {rungs} of seed "
            f"{draft.seeds[0]}; {', '.join(reference.label for reference in plan.space.references)} always do"
        )
    console.print(f"{'resources':11}{draft.placement.ranks} ranks a trial, ZeRO-{draft.placement.zero_stage}")


def describe_subject(plan: StudyPlan, console: Console) -> None:
    """Print where the study goes, its corpus and its backbone."""
    draft, settings = plan.draft, plan.draft.settings
    counts = plan.counts()
    lines = {
        "study": f"{draft.name} in {draft.folder.uri}",
        "corpus": f"{settings.corpus.spec} ({', '.join(plan.languages)}): "
        + ", ".join(f"{split} {n:,}" for split, n in counts.items())
        + (f"; {len(plan.corpus.skipped)} clips skipped" if plan.corpus.skipped else ""),
        "backbone": f"{settings.backbone.spec}, LoRA rank {settings.backbone.lora_rank}, "
        + " and ".join(settings.modalities),
    }
    for key, value in lines.items():
        console.print(f"{key:11}{value}")
    for line in plan.corpus.clips_in_words():
        console.print(line)


def _run_trials(plan: StudyPlan, script: Script, console: Console) -> None:
    """Run the trials that are missing."""
    from study import connection, orchestration, trials
    from study.preparation import prepare
    from study.progress import StudyProgress
    from study.searcher import Search
    from study.trackers import make_trackers

    draft = plan.draft
    connection.require_answer()
    prepared = prepare(plan)
    record = study_record(plan, prepared.backbone_hash)
    keep_plan(draft, record)
    console.print(f"{'running on':11}{connection.connect()}")
    heed_sigterm()
    template = trials.TrialTemplate(
        settings=draft.settings,
        placement=draft.placement,
        seeds=draft.seeds,
        features=prepared.features,
        backbone=prepared.backbone,
        cells=cells(plan.languages, draft.settings.modalities),
        corpus_hash=plan.corpus.content_hash,
        backbone_hash=prepared.backbone_hash,
        folder=draft.folder,
        use_gpu=connection.has_gpus(),
        goals=draft.goals,
        profile=draft.profile,
    )
    connection.require_room(draft.placement)
    utterances = plan.corpus.utterances
    draft.folder.write_parquet(
        "utterances.parquet", utterances.loc[utterances["split"] != "train", list(UTTERANCE_COLUMNS)]
    )
    lacking = trials.trials_without_seeds(template)
    if lacking:
        console.print(
            f"{'seeds':11}{len(lacking)} finished trials have not all of {len(draft.seeds)} seeds: these first"
        )
        progress = StudyProgress(console, len(lacking), 0, _epochs(draft), script.words)
        _with_progress(progress, partial(orchestration.add_seeds, template, lacking, draft.retries, [progress]))
    trials.refresh_trials(template)
    done = trials_done(read_trials(draft.folder).values())
    if done < draft.trials:
        search = Search(
            draft.name,
            plan.space,
            draft.settings,
            draft.goals,
            draft.sampler,
            draft.sampler_seed,
            draft.retries,
            template.cells,
        )
        progress = StudyProgress(console, draft.trials, done, _epochs(draft), script.words)
        place = draft.folder.uri if draft.folder.is_local else "."
        callbacks = [progress, *make_trackers(draft.trackers, draft.name, place)]
        run = partial(orchestration.run_trials, template, search, draft.trials, callbacks, draft.early_stopping)
        _with_progress(progress, run)


def _epochs(draft: Draft) -> int:
    return draft.settings.optimisation.epochs * len(draft.seeds)


def _with_progress(progress: Any, run: Callable[[], None]) -> None:
    try:
        run()
    finally:
        progress.stop()


def _is_complete(draft: Draft) -> bool:
    """Whether the study of this name has all its trials and was made with these settings."""
    if not draft.folder.exists("study.json"):
        return False
    record = read_study(draft.folder)
    if conflicts(record, draft) or record["space"] != draft.space or set(record["seeds"]) != set(draft.seeds):
        return False
    trials = read_trials(draft.folder).values()
    finished = [trial for trial in trials if trial["state"] == "finished"]
    runs = set(finished_runs(draft.folder))
    whole = all((trial["config_id"], seed) in runs for trial in finished for seed in draft.seeds)
    return whole and trials_done(trials) >= draft.trials


def keep_plan(draft: Draft, record: dict) -> None:
    """Write ``study.json``, or check it against this call's corpus and backbone; trials, seeds and knobs may grow."""
    there = begun_study(draft.folder)
    if there is None:
        draft.folder.write_json("study.json", record)
        return
    faults = [
        f"{part}: content {there[part]['hash']} there, {record[part]['hash']} now"
        for part in ("corpus", "backbone")
        if there[part]["hash"] != record[part]["hash"]
    ]
    refuse_conflicts(draft, faults + space_conflicts(there, record))
    grown = {key: record[key] for key in ("space", "knobs", "seeds")}
    others = {each["label"]: each for each in there.get("references", [])}
    grown["references"] = list({**others, **{each["label"]: each for each in record["references"]}}.values())
    grown |= {"trials": max(there["trials"], draft.trials)}
    grown |= {key: record[key] for key in ("sampler", "early_stopping")}  # of the latest call
    draft.folder.write_json("study.json", {**there, **grown})


def refuse_conflicts(draft: Draft, faults: list[str]) -> None:
    """Do not mix two corpora, backbones, spaces or settings in one folder."""
    if faults:
        raise SettingsError(
            [f"{draft.folder.uri} holds a study made with other settings; choose another --study NAME:", *faults]
        )
