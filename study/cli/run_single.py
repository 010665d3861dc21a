"""One configuration, trained in this process or in those of torchrun: no search and no Ray."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces import NamedConfiguration, Space
from study.cli.describe import describe_data
from study.cli.options import read_flags
from study.common.environment import rank_and_world_size
from study.common.errors import SettingsError
from study.common.groups import cells
from study.config.config_id import config_id, differences
from study.config.settings import Settings
from study.planning.build import complete
from study.planning.config_file import read_config
from study.planning.paths import resolved_backbone
from study.planning.plan import SINGLE, Draft, StudyPlan
from study.planning.study_json import begun_study, conflicts, keep_plan, refuse_conflicts, study_record
from study.storage.locks import hold
from study.storage.records import UTTERANCE_COLUMNS, run_directory, write_trial


@dataclass(frozen=True)
class SingleRun:
    """A finished run.

    Attributes:
        draft: its study's.  directory: its folder inside the study.  backbone: hub id or folder.
        finished: its ``finished.json``.
    """

    draft: Draft
    directory: str
    backbone: str
    finished: dict[str, Any]


def run_single(flags: argparse.Namespace, console: Console) -> SingleRun | None:
    """Plan, say what will be done, train what is missing; None after ``flags.dry_run``.

    Every rank of torchrun calls this; the first one alone writes the study's records and prints.
    """
    from study.planning.memory_check import require_memory  # torch: not for --help

    draft = read_single(flags)
    draft.folder.require_storage()
    there = begun_study(draft.folder)
    if there:
        refuse_conflicts(draft, conflicts(there, draft))
    plan = complete(draft, lambda languages, modalities: Space(SINGLE, (), (NamedConfiguration("single"),)))
    describe_single(plan, console)
    require_memory(plan, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), console)
    if flags.dry_run:
        return None
    rank, _ = rank_and_world_size()
    with hold(draft.folder) if rank == 0 else nullcontext():
        return _train(plan, console)


def read_single(flags: argparse.Namespace) -> Draft:
    """The draft of the flags, on the settings of ``flags.config`` if there is one."""
    base = (
        read_config(Path(flags.config).expanduser(), flags.backbone and resolved_backbone(flags.backbone))
        if flags.config
        else None
    )
    _, num_workers = rank_and_world_size()
    if flags.num_workers not in (None, num_workers):
        raise SettingsError(
            [
                f"--num-workers {flags.num_workers}: this is {num_workers} process(es); "
                "torchrun --nproc-per-node N study/train.py ..."
            ]
        )
    flags.num_workers = num_workers
    draft = read_flags(flags, cores=None, base=base)
    if len(draft.seeds) > 1:
        raise SettingsError([f"--seeds {flags.seeds}: this trains one; for several: study/ablation.py"])
    return draft


def describe_single(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    draft, optimisation = plan.draft, plan.draft.settings.optimisation
    describe_data(plan, console)
    changed = differences(draft.settings)
    listed = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changed.items()]
    console.print(f"{'settings':11}{', '.join(listed) or 'the defaults'}")
    how = f"at most {optimisation.epochs} epochs" if optimisation.epochs else "the backbone as it is, untrained"
    console.print(f"{'run':11}seed {draft.seeds[0]}, {how}; {draft.parallelism.num_workers} ranks, "
                  f"ZeRO-{draft.parallelism.zero_stage}")  # fmt: skip


def _train(plan: StudyPlan, console: Console) -> SingleRun:
    from study.planning.prepare import prepare
    from study.training import checkpointing
    from study.training.run import RunPlan
    from study.training.trainer import train

    draft, settings = plan.draft, plan.draft.settings
    prepared = prepare(plan)
    identity = config_id(
        settings, cells(plan.languages, settings.modalities), plan.corpus.content_hash, prepared.backbone_hash
    )
    (seed,) = draft.seeds
    directory = run_directory(identity, seed)
    rank, _ = rank_and_world_size()
    if rank == 0:
        keep_plan(draft, study_record(plan, prepared.backbone_hash))
        utterances = plan.corpus.utterances
        draft.folder.write_parquet(
            "utterances.parquet", utterances.loc[utterances["split"] != "train", list(UTTERANCE_COLUMNS)]
        )
    if draft.folder.exists(f"{directory}/finished.json"):
        console.print("this run has finished; what it left is shown again")
        if rank == 0:
            checkpointing.remove(draft.folder, directory)  # a kill may have come between the two
        finished = draft.folder.read_json(f"{directory}/finished.json")
    else:
        _refuse_another_parallelism(draft, directory)
        run_plan = RunPlan(settings, draft.parallelism, identity, prepared.features, prepared.backbone, draft.folder)
        finished = train(
            run_plan, seed, lambda row: console.print(_epoch_in_words(row)), export=True, profile=draft.profile
        )
    if rank == 0:
        write_trial(draft.folder, _trial_record(finished, settings))
    return SingleRun(draft, directory, prepared.backbone, finished)


def _refuse_another_parallelism(draft: Draft, directory: str) -> None:
    """An unfinished run goes on as it began, since DeepSpeed's files are cut for that; here nobody expects it anew."""
    from study.training.checkpointing import parallelism_of

    began = parallelism_of(draft.folder, directory)
    if began not in (None, draft.parallelism):
        raise SettingsError(
            [
                f"{draft.folder.path(directory)} is an unfinished run of "
                f"{began.num_workers} worker(s), "
                f"ZeRO-{began.zero_stage}, not of {draft.parallelism.num_workers}, "
                f"ZeRO-{draft.parallelism.zero_stage}: go on with those, "
                "remove that folder, or choose another --study NAME"
            ]
        )


def _epoch_in_words(row: dict[str, Any]) -> str:
    gap = "–" if row["dev"]["gap"] is None else f"{100 * row['dev']['gap']:.1f}"
    return f"epoch {row['epoch']:>3}  dev W-F1 {100 * row['dev']['w_f1']:5.1f}  gap {gap:>5}"


def _trial_record(finished: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The run as a study's only trial, so that everything that reads studies reads it."""
    changed = differences(settings)
    return {
        "number": 0,
        "label": None,
        "hyperparameters": {key: value for key, value in changed.items() if key.startswith("loss.")},
        "config_id": finished["config_id"],
        "state": "finished",
        "reason": None,
        "seconds": finished["seconds"]["total"],
        "values": [finished["dev"][figure] for figure in ("w_f1", "gap")],
    }
