"""Search the fairness-weight schedules and MinMaxGAP coefficients of a speech LLM: the main job.

Without arguments it runs the default study, eight trials on the embedded corpus with the tiny backbone, and leaves a
report. Called again with the same arguments it goes on where it stopped, or shows what is there.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":  # Python put study/ first, where module names could shadow others: the root belongs there
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console

from analysis.load import load_study
from analysis.pareto import front
from analysis.report import write_report
from analysis.tables import as_text, front_table, knobs_in_words
from study.corpora import CorpusError
from study.groups import cells
from study.planning import OBJECTIVES, Draft, StudyPlan, add_study_flags, complete, conflicts, read_flags, study_record
from study.records import UTTERANCE_COLUMNS, RecordError, hold, read_study, read_trials
from study.settings import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 1 if no trial worked, 2 for what the user can mend, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python study/sweep.py", description=__doc__.split("\n\n")[0])
    add_study_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    flags = parser.parse_args(arguments)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        return run(flags, console)
    except (SettingsError, RecordError, CorpusError) as error:
        print(f"error: {error}".replace("\n", "\n       "), file=sys.stderr)
        return 2
    except OSError as error:  # no room, no permission, a backbone that is not there
        print(
            f"error: {error}\n       mend that and run the same command again: it goes on",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what has finished is kept; the same command goes on", file=sys.stderr)
        return 130


def run(flags: argparse.Namespace, console: Console) -> int:
    from study import orchestration  # Ray takes a second to import: not for --help

    orchestration.set_environment()
    draft = read_flags(flags, orchestration.in_reach())
    if not draft.faults and not flags.dry_run and _is_complete(draft):
        console.print(f"study {draft.name} is complete: {draft.trials} trials")
        return show(draft, console, write=not draft.folder.exists("report/report.html"))
    if draft.folder.exists("study.json"):
        _refuse(draft, conflicts(read_study(draft.folder), draft))
    plan = complete(draft)
    describe(plan, console)
    if flags.dry_run:
        return 0
    with hold(draft.folder):
        search(plan, console)
    return show(draft, console, write=True)


def describe(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    draft, settings = plan.draft, plan.draft.settings
    counts = plan.counts()
    epochs = settings.optimisation.epochs
    runs = draft.trials * len(draft.seeds)
    lines = {
        "study": f"{draft.name} in {draft.folder.uri}",
        "corpus": f"{settings.corpus.spec} ({', '.join(plan.languages)}): "
        + ", ".join(f"{split} {n:,}" for split, n in counts.items())
        + (f"; {len(plan.corpus.skipped)} clips skipped" if plan.corpus.skipped else ""),
        "backbone": f"{settings.backbone.spec}, LoRA rank {settings.backbone.lora_rank}, "
        + " and ".join(settings.modalities),
        "search": f"{draft.trials} trials × {len(draft.seeds)} seeds = {runs} runs of at most {epochs} epochs, "
        f"space {draft.space}:",
    }
    for key, value in lines.items():
        console.print(f"{key:11}{value}")
    for knob in plan.space.knobs:
        console.print(f"{'':13}{knob.name.removeprefix('objective.'):32} {knob.range()}")
    console.print(f"{'resources':11}{draft.placement.ranks} ranks a trial, ZeRO-{draft.placement.zero_stage}")
    for skipped in plan.corpus.skipped[:3]:
        console.print(f"{'skipped':11}{skipped}")


def search(plan: StudyPlan, console: Console) -> None:
    """Run the trials that are missing."""
    from study import orchestration
    from study.preparation import prepare
    from study.progress import StudyProgress

    draft = plan.draft
    prepared = prepare(plan)
    record = study_record(plan, prepared.backbone_hash)
    _keep_plan(draft, record)
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
    progress = StudyProgress(console, draft.trials, finished, epochs, knobs_in_words)
    try:
        orchestration.run_trials(template, draft.name, plan.space, draft.trials, OBJECTIVES, [progress])
    finally:
        progress.stop()


def show(draft: Draft, console: Console, write: bool) -> int:
    """Print the front and where the report is, writing it first if asked."""
    study = load_study(draft.folder)
    finished = sum(trial["state"] == "finished" for trial in read_trials(draft.folder).values())
    if finished < draft.trials:
        console.print(f"{finished} of {draft.trials} trials have finished; the same command goes on with the others")
    for trial in study.failed.itertuples():
        console.print(
            f"trial {trial.number} failed: {trial.reason} (logs: {draft.folder.path('runs', str(trial.config_id))})"
        )
    if study.runs.empty:
        console.print("no run has finished, so there is nothing to show")
        return 1
    if write:
        write_report(draft.folder)
    console.print("\nPareto front on dev (percentage points; test beside it, not used to choose)")
    console.print(as_text(front_table(front(study.configurations))))
    for note in study.plan["corpus"]["notes"]:
        console.print(f"note: {note}")
    for name, file in (("report", "report.html"), ("figure", "pareto.png"), ("", "pareto.svg")):
        console.print(f"{name:8}{draft.folder.path('report', file)}")
    return 0


def _is_complete(draft: Draft) -> bool:
    """Whether the study of this name has all its trials and was made with these settings."""
    if not draft.folder.exists("study.json") or conflicts(read_study(draft.folder), draft):
        return False
    return sum(trial["state"] == "finished" for trial in read_trials(draft.folder).values()) >= draft.trials


def _keep_plan(draft: Draft, record: dict) -> None:
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
    _refuse(draft, faults)
    draft.folder.write_json("study.json", {**there, "trials": max(there["trials"], draft.trials)})


def _refuse(draft: Draft, faults: list[str]) -> None:
    """Do not mix two corpora, backbones, spaces or settings in one folder."""
    if faults:
        raise SettingsError(
            [f"{draft.folder.uri} holds a study made with other settings; choose another --study NAME:", *faults]
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    sys.exit(main())
