"""Train one configuration in this process, or in the processes of torchrun, without a search and without Ray."""

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
from study.common.errors import SettingsError, plural
from study.common.groups import cells
from study.config.config_id import config_id, differences
from study.config.settings import Settings
from study.planning.config_file import read_config
from study.planning.paths import absolute_backbone
from study.planning.plan import StudyPlan, build_plan
from study.planning.request import SINGLE, StudyRequest
from study.planning.study_json import conflicts, plan_with_results, refuse_conflicts, save_plan, study_record
from study.storage.locks import study_lock
from study.storage.records import run_directory
from study.storage.schemas import UTTERANCE_COLUMNS
from study.storage.study_state import StudyState


@dataclass(frozen=True)
class SingleRun:
    """A finished run.

    Attributes:
        request: the request of its study.
        state: the records of its study.
        directory: the folder of the run inside the study.
        backbone: hub id or folder.
        finished: the ``finished.json``.
    """

    request: StudyRequest
    state: StudyState
    directory: str
    backbone: str
    finished: dict[str, Any]


def run_single(options: TrainOptions, errors: Sequence[str], console: Console) -> SingleRun | None:
    """Print the plan, and train the run or what is left of it.

    Every rank of torchrun calls this; only rank 0 prints and writes the records of the study.

    Returns:
        The finished run; None with ``--dry-run``.
    """
    from study.planning.memory_check import require_plan_memory  # imports torch: not for --help

    request = single_request(options, errors)
    request.folder.require_storage()
    state = StudyState(request.folder)
    existing = plan_with_results(state)
    if existing:
        refuse_conflicts(request, conflicts(existing, request))
    plan = build_plan(request, lambda languages, modalities: Space(SINGLE, (), (NamedConfiguration("single"),)))
    describe_single(plan, console)
    require_plan_memory(plan, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), console)
    if options.dry_run:
        return None
    rank, _ = rank_and_world_size()
    with study_lock(request.folder) if rank == 0 else nullcontext():
        return _train(plan, state, console)


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
    """Print the data, settings, seed and parallelism of a run."""
    request, optimisation = plan.request, plan.request.settings.optimisation
    describe_data(plan, console)
    changed = differences(request.settings)
    listed = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changed.items()]
    console.print(f"{'settings':11}{', '.join(listed) or 'the defaults'}")
    length = f"at most {plural(optimisation.epochs, 'epoch')}" if optimisation.epochs else "the untrained backbone"
    workers = plural(request.parallelism.num_workers, "worker")
    console.print(f"{'run':11}seed {request.seeds[0]}, {length}; {workers}, ZeRO-{request.parallelism.zero_stage}")


def _train(plan: StudyPlan, state: StudyState, console: Console) -> SingleRun:
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
    state.refresh()  # another process may have written before this one locked the study
    if rank == 0:
        save_plan(request, study_record(plan, prepared.backbone_hash), state)
        utterances = plan.corpus.utterances
        request.folder.write_parquet(
            "utterances.parquet", utterances.loc[utterances["split"] != "train", list(UTTERANCE_COLUMNS)]
        )
    if request.folder.exists(f"{directory}/finished.json"):
        console.print("this run has finished already; its results are:")
        if rank == 0:
            checkpointing.remove(request.folder, directory)  # left if the process was killed right after finishing
        finished = request.folder.read_json(f"{directory}/finished.json")
    else:
        _require_same_parallelism(request, directory)
        run_plan = RunPlan(
            settings, request.parallelism, identity, prepared.features, prepared.backbone, request.folder
        )
        finished = train(
            run_plan, seed, lambda row: console.print(_describe_epoch(row)), export=True, profile=request.profile
        )
    if rank == 0:
        state.write_trial(_trial_record(finished, settings))
    return SingleRun(request, state, directory, prepared.backbone, finished)


def _require_same_parallelism(request: StudyRequest, directory: str) -> None:
    """Refuse to resume an unfinished run with other workers: DeepSpeed's checkpoints are made for one parallelism.

    Raises:
        SettingsError: the checkpoint was written by another number of workers or ZeRO stage.
    """
    from study.training.checkpointing import parallelism_of

    saved, current = parallelism_of(request.folder, directory), request.parallelism
    if saved is not None and saved != current:
        raise SettingsError(
            [
                f"{request.folder.path(directory)} is an unfinished run of {plural(saved.num_workers, 'worker')}, "
                f"ZeRO-{saved.zero_stage}, but this call has {plural(current.num_workers, 'worker')}, "
                f"ZeRO-{current.zero_stage}: use the former, remove that folder, or choose another --study NAME"
            ]
        )


def _describe_epoch(row: dict[str, Any]) -> str:
    gap = "–" if row["dev"]["gap"] is None else f"{100 * row['dev']['gap']:.1f}"
    return f"epoch {row['epoch']:>3}  dev W-F1 {100 * row['dev']['w_f1']:5.1f}  gap {gap:>5}"


def _trial_record(finished: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the run as the only trial of its study, so that all tools that read studies can read it."""
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
