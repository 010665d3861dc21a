"""From flags to a finished study: what the scripts that run trials share. They bring what they show at the end."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from search_spaces import SpaceMaker
from study.corpora import CorpusError, capped
from study.groups import cells
from study.machine import rank_and_ranks, stay_on_loopback
from study.planning import OBJECTIVES, Draft, StudyPlan, complete, conflicts, read_flags, study_record
from study.records import UTTERANCE_COLUMNS, RecordError, hold, read_study, read_trials
from study.settings import SettingsError


@dataclass(frozen=True)
class Script:
    """What one script adds.

    Attributes:
        make_space: from languages and modalities, what is run.
        labels: names of the trials that this call wants, if they are named; it is complete when these have finished.
        words: the knobs of a trial in a few words.
        show: prints what came out; its second argument says whether to write the report anew. Returns the exit status.
    """

    make_space: SpaceMaker
    labels: tuple[str, ...]
    words: Callable[[Mapping[str, Any]], str]
    show: Callable[[Draft, bool], int]


def run_script(run: Callable[[], int]) -> int:
    """Run and turn what the user can mend into a message; the exit status.

    Returns:
        What ``run`` does, 1 if training diverged, 2 for what the user can mend, 130 if interrupted.
    """
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
        print("\ninterrupted: what has finished is kept; the same command goes on", file=sys.stderr)
        return 130


def run_study(flags: argparse.Namespace, script: Script, console: Console) -> int:
    """Plan, run what is missing, show; with ``flags.dry_run`` only the plan."""
    stay_on_loopback()
    from study import orchestration  # Ray and torch take seconds to import: not for --help
    from study.room import require_memory

    orchestration.set_environment()
    draft = read_flags(flags, orchestration.in_reach())
    if script.labels:
        draft = draft.for_labels(script.labels)
    if not draft.faults and not flags.dry_run and _is_complete(draft):
        console.print(f"study {draft.name} is complete: {draft.trials} trials")
        return script.show(draft, not draft.folder.exists("report/report.html"))
    if draft.folder.exists("study.json"):
        refuse_conflicts(draft, conflicts(read_study(draft.folder), draft))
    plan = complete(draft, script.make_space)
    describe(plan, console)
    at_once = min(draft.trials, (draft.cores or 0) // draft.placement.ranks)
    require_memory(plan, at_once * draft.placement.ranks if draft.cores else None, console)
    if flags.dry_run:
        return 0
    with hold(draft.folder):
        _run_trials(plan, script, console)
    return script.show(draft, True)


def describe(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    draft = plan.draft
    epochs = draft.settings.optimisation.epochs
    runs = draft.trials * len(draft.seeds)
    describe_subject(plan, console)
    search = f"{draft.trials} trials × {len(draft.seeds)} seeds = {runs} runs of at most {epochs} epochs"
    console.print(f"{'search':11}{search}, space {draft.space}:")
    for arm in () if plan.space.knobs else plan.space.references:
        console.print(f"{'':13}{arm.label}")
    for knob in plan.space.knobs:
        console.print(f"{'':13}{knob.name.removeprefix('objective.'):32} {knob.range()}")
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
    for skipped in capped(plan.corpus.skipped):
        console.print(f"{'skipped':11}{skipped}")


def _run_trials(plan: StudyPlan, script: Script, console: Console) -> None:
    """Run the trials that are missing."""
    from study import orchestration
    from study.preparation import prepare
    from study.progress import StudyProgress

    draft = plan.draft
    prepared = prepare(plan)
    record = study_record(plan, prepared.backbone_hash)
    keep_plan(draft, record)
    console.print(f"{'running on':11}{orchestration.connect()}")
    template = orchestration.TrialTemplate(
        settings=draft.settings,
        placement=draft.placement,
        seeds=draft.seeds,
        features=prepared.features,
        backbone=prepared.backbone,
        cells=cells(plan.languages, draft.settings.modalities),
        corpus_hash=plan.corpus.content_hash,
        backbone_hash=prepared.backbone_hash,
        folder=draft.folder,
        use_gpu=orchestration.has_gpus(),
    )
    orchestration.require_room(draft.placement)
    utterances = plan.corpus.utterances
    draft.folder.write_parquet(
        "utterances.parquet", utterances.loc[utterances["split"] != "train", list(UTTERANCE_COLUMNS)]
    )
    finished = sum(trial["state"] == "finished" for trial in read_trials(draft.folder).values())
    epochs = draft.settings.optimisation.epochs * len(draft.seeds)
    progress = StudyProgress(console, draft.trials, finished, epochs, script.words)
    try:
        orchestration.run_trials(template, draft.name, plan.space, draft.trials, OBJECTIVES, [progress])
    finally:
        progress.stop()


def _is_complete(draft: Draft) -> bool:
    """Whether the study of this name has all its trials and was made with these settings."""
    if not draft.folder.exists("study.json") or conflicts(read_study(draft.folder), draft):
        return False
    return sum(trial["state"] == "finished" for trial in read_trials(draft.folder).values()) >= draft.trials


def keep_plan(draft: Draft, record: dict) -> None:
    """Write ``study.json``, or check it against this call's corpus and backbone; only the number of trials may grow."""
    if not draft.folder.exists("study.json"):
        draft.folder.write_json("study.json", record)
        return
    there = read_study(draft.folder)
    faults = [
        f"{part}: content {there[part]['hash']} there, {record[part]['hash']} now"
        for part in ("corpus", "backbone")
        if there[part]["hash"] != record[part]["hash"]
    ]
    refuse_conflicts(draft, faults)
    draft.folder.write_json("study.json", {**there, "trials": max(there["trials"], draft.trials)})


def refuse_conflicts(draft: Draft, faults: list[str]) -> None:
    """Do not mix two corpora, backbones, spaces or settings in one folder."""
    if faults:
        raise SettingsError(
            [f"{draft.folder.uri} holds a study made with other settings; choose another --study NAME:", *faults]
        )
