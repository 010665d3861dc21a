"""One configuration, trained in this process or in those of torchrun: no search and no Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from search_spaces import NamedConfiguration, Space
from study.cli.describe import describe_data
from study.cli.options import TrainOptions
from study.cli.request import study_request
from study.common.environment import rank_and_world_size
from study.common.errors import SettingsError
from study.common.groups import cells
from study.config.config_id import config_id, differences
from study.config.settings import Settings
from study.planning.config_file import read_config
from study.planning.paths import absolute_backbone
from study.planning.plan import StudyPlan, build_plan
from study.planning.request import SINGLE, StudyRequest
from study.planning.study_json import begun_study, conflicts, keep_plan, refuse_conflicts, study_record
from study.storage.locks import study_lock
from study.storage.records import run_directory, write_trial
from study.storage.schemas import UTTERANCE_COLUMNS


@dataclass(frozen=True)
class SingleRun:
    """A finished run.

    Attributes:
        request: its study's.  directory: its folder inside the study.  backbone: hub id or folder.
        finished: its ``finished.json``.
    """

    request: StudyRequest
    directory: str
    backbone: str
    finished: dict[str, Any]


def run_single(options: TrainOptions, errors: Sequence[str], console: Console) -> SingleRun | None:
    """Plan, say what will be done, train what is missing; None after ``options.dry_run``.

    Every rank of torchrun calls this; the first one alone writes the study's records and prints.
    """
    from study.planning.memory_check import require_memory  # torch: not for --help

    request = single_request(options, errors)
    request.folder.require_storage()
    there = begun_study(request.folder)
    if there:
        refuse_conflicts(request, conflicts(there, request))
    plan = build_plan(request, lambda languages, modalities: Space(SINGLE, (), (NamedConfiguration("single"),)))
    describe_single(plan, console)
    require_memory(plan, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), console)
    if options.dry_run:
        return None
    rank, _ = rank_and_world_size()
    with study_lock(request.folder) if rank == 0 else nullcontext():
        return _train(plan, console)


def single_request(options: TrainOptions, errors: Sequence[str]) -> StudyRequest:
    """Return the request of a single run, with the settings of ``--config`` as its base.

    Raises:
        SettingsError: ``--config`` is invalid, or the options ask for several seeds or for workers that torchrun has
            not started.
    """
    base = None
    if options.config:
        backbone = absolute_backbone(options.backbone) if options.backbone else None
        base = read_config(Path(options.config).expanduser(), backbone)
    _, num_workers = rank_and_world_size()
    if options.num_workers not in (None, num_workers):
        raise SettingsError(
            [
                f"--num-workers {options.num_workers}: this command runs as {num_workers} process(es); start it with "
                f"torchrun --nproc-per-node {options.num_workers} study/train.py ..."
            ]
        )
    if len(options.seeds) > 1:
        seeds = ",".join(map(str, options.seeds))
        raise SettingsError([f"--seeds {seeds}: this command trains one seed; study/ablation.py trains several"])
    options = options.model_copy(update={"num_workers": num_workers})
    return study_request(options, errors, space=SINGLE, trials=1, cores=None, base=base)


def describe_single(plan: StudyPlan, console: Console) -> None:
    """Print what will be done, where it will run and where it goes."""
    request, optimisation = plan.request, plan.request.settings.optimisation
    describe_data(plan, console)
    changed = differences(request.settings)
    listed = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changed.items()]
    console.print(f"{'settings':11}{', '.join(listed) or 'the defaults'}")
    how = f"at most {optimisation.epochs} epochs" if optimisation.epochs else "the backbone as it is, untrained"
    console.print(f"{'run':11}seed {request.seeds[0]}, {how}; {request.parallelism.num_workers} ranks, "
                  f"ZeRO-{request.parallelism.zero_stage}")  # fmt: skip


def _train(plan: StudyPlan, console: Console) -> SingleRun:
    from study.planning.prepare import prepare
    from study.training import checkpointing
    from study.training.run_plan import RunPlan
    from study.training.trainer import train

    request, settings = plan.request, plan.request.settings
    prepared = prepare(plan)
    identity = config_id(
        settings, cells(plan.languages, settings.modalities), plan.corpus.content_hash, prepared.backbone_hash
    )
    (seed,) = request.seeds
    directory = run_directory(identity, seed)
    rank, _ = rank_and_world_size()
    if rank == 0:
        keep_plan(request, study_record(plan, prepared.backbone_hash))
        utterances = plan.corpus.utterances
        request.folder.write_parquet(
            "utterances.parquet", utterances.loc[utterances["split"] != "train", list(UTTERANCE_COLUMNS)]
        )
    if request.folder.exists(f"{directory}/finished.json"):
        console.print("this run has finished; what it left is shown again")
        if rank == 0:
            checkpointing.remove(request.folder, directory)  # a kill may have come between the two
        finished = request.folder.read_json(f"{directory}/finished.json")
    else:
        _refuse_another_parallelism(request, directory)
        run_plan = RunPlan(
            settings, request.parallelism, identity, prepared.features, prepared.backbone, request.folder
        )
        finished = train(
            run_plan, seed, lambda row: console.print(_epoch_in_words(row)), export=True, profile=request.profile
        )
    if rank == 0:
        write_trial(request.folder, _trial_record(finished, settings))
    return SingleRun(request, directory, prepared.backbone, finished)


def _refuse_another_parallelism(request: StudyRequest, directory: str) -> None:
    """An unfinished run goes on as it began, since DeepSpeed's files are cut for that; here nobody expects it anew."""
    from study.training.checkpointing import parallelism_of

    began = parallelism_of(request.folder, directory)
    if began not in (None, request.parallelism):
        raise SettingsError(
            [
                f"{request.folder.path(directory)} is an unfinished run of "
                f"{began.num_workers} worker(s), "
                f"ZeRO-{began.zero_stage}, not of {request.parallelism.num_workers}, "
                f"ZeRO-{request.parallelism.zero_stage}: go on with those, "
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
