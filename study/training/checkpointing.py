"""Checkpoints of an unfinished run, so that the same command resumes it after a kill and ends with the same figures.

A checkpoint is written at the end of each epoch and replaces the one before::

    runs/<config_id>/<seed>/
        checkpoint.json            names the valid checkpoint and holds the plain state; written last
        checkpoint-<epoch>-<attempt>/
            engine/...             DeepSpeed's files: optimiser, learning rate, trained weights, one set per worker
            run.safetensors        weights and dev scores of the best epoch, and the loss state
            random-<rank>.safetensors

Frozen weights are not part of it. DeepSpeed's own files are pickles, so they are read from the study's own folder only.
Each worker goes through a local copy of its files, since the folder may be on an object store.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from study.common.rng import random_state, set_random_state
from study.config.settings import Parallelism
from study.models.memory_estimate import RESERVED_FRACTION
from study.storage.locks import ATTEMPT, require_claim
from study.storage.study_folder import StudyFolder

if TYPE_CHECKING:
    from study.training.trainer import Trainer

MARKER = "checkpoint.json"


@dataclass
class BestEpoch:
    """The epoch with the highest dev W-F1 so far.

    Attributes:
        dev: its metrics on dev.
        scores: (n, 7) of the dev examples.
        weights: the trained weights by name.
    """

    epoch: int
    dev: dict[str, Any]
    scores: np.ndarray
    weights: dict[str, torch.Tensor]


def save(trainer: Trainer, best: BestEpoch) -> None:
    """Write the state of a run at the end of an epoch. Every worker calls this."""
    folder, state = trainer.plan.folder, trainer.state
    name = f"checkpoint-{len(state.epochs):05d}-{trainer.attempt}"  # no attempt writes into another's checkpoint
    path = f"{trainer.directory}/{name}"
    with tempfile.TemporaryDirectory() as local:
        trainer.engine.deepspeed.save_checkpoint(local, tag="engine", save_latest=False, exclude_frozen_parameters=True)
        for file in sorted(Path(local, "engine").iterdir()):
            folder.write_bytes(f"{path}/engine/{file.name}", file.read_bytes())
    folder.write_bytes(f"{path}/random-{trainer.rank}.safetensors", tensors_to_bytes(random_state()))
    if trainer.rank == 0:
        tensors = {f"best/{key}": value.contiguous() for key, value in best.weights.items()}
        tensors |= {f"loss_state/{key}": value.cpu().contiguous() for key, value in state.loss_state.items()}
        tensors["scores"] = torch.from_numpy(best.scores)
        folder.write_bytes(f"{path}/run.safetensors", tensors_to_bytes(tensors))
    dist.barrier()  # until the files of every worker are written
    if trainer.rank == 0:
        record = {
            "checkpoint": name,
            "parallelism": trainer.plan.parallelism.model_dump(),
            "best": {"epoch": best.epoch, "dev": best.dev},
            "dual_variables": state.dual_variables,
            "sampler": state.rng.bit_generator.state,
            "micro_batch_tokens": state.micro_batch_tokens,
            "seconds": state.seconds,
            "epochs": state.epochs,
        }
        # checked here too, since the writes above may have taken minutes
        require_claim(folder, trainer.directory, trainer.attempt)
        folder.write_json(f"{trainer.directory}/{MARKER}", record)
        _remove_checkpoints(folder, trainer.directory, except_for=name)


def parallelism_of(folder: StudyFolder, directory: str) -> Parallelism | None:
    """Return the parallelism that a run's checkpoint was written with, or None if there is no checkpoint."""
    if not folder.exists(f"{directory}/{MARKER}"):
        return None
    return Parallelism.model_validate(folder.read_json(f"{directory}/{MARKER}")["parallelism"])


def load(trainer: Trainer) -> BestEpoch | None:
    """Restore a new trainer from the checkpoint of its run.

    Returns:
        The best epoch so far. None, with nothing restored, if there is no checkpoint, or if it was written with another
        number of workers or another ZeRO stage: DeepSpeed's files are sharded for those.
    """
    folder, directory, state = trainer.plan.folder, trainer.directory, trainer.state
    parallelism = parallelism_of(folder, directory)
    if parallelism is None:
        return None
    if parallelism != trainer.plan.parallelism:
        print(
            f"the checkpoint in {folder.path(directory)} was written with {parallelism}: starting from the beginning",
            flush=True,
        )
        return None
    record = folder.read_json(f"{directory}/{MARKER}")
    path = f"{directory}/{record['checkpoint']}"
    with tempfile.TemporaryDirectory() as local:
        Path(local, "engine").mkdir()
        for name in folder.names(f"{path}/engine"):
            Path(local, "engine", name).write_bytes(folder.read_bytes(f"{path}/engine/{name}"))
        trainer.engine.deepspeed.load_checkpoint(local, tag="engine", load_module_strict=False)
    tensors = tensors_from_bytes(folder.read_bytes(f"{path}/run.safetensors"))
    state.loss_state = {key: value.to(trainer.device) for key, value in _with_prefix(tensors, "loss_state/").items()}
    state.dual_variables = record["dual_variables"]
    state.rng.bit_generator.state = record["sampler"]
    if trainer.plan.settings.computation.micro_batch_tokens is None:
        state.micro_batch_tokens = resumed_tokens(record["micro_batch_tokens"], state.micro_batch_tokens)
    state.seconds = record["seconds"]
    state.epochs = record["epochs"]
    steps = folder.read_parquet(f"{directory}/steps.parquet")
    rows = steps[steps["epoch"] <= len(state.epochs)].to_dict("records")
    state.steps = [{str(name): value for name, value in row.items()} for row in rows]
    set_random_state(tensors_from_bytes(folder.read_bytes(f"{path}/random-{trainer.rank}.safetensors")))
    best = record["best"]
    return BestEpoch(best["epoch"], best["dev"], tensors["scores"].numpy(), _with_prefix(tensors, "best/"))


def resumed_tokens(saved: int | None, fitting: int | None) -> int | None:
    """Return the micro-batch tokens of a resumed run: those of the checkpoint, since dropout masks depend on them.

    Args:
        saved: of the checkpoint.
        fitting: tokens that fit in the memory that is free now. If ``saved`` does not fit in it, not even in the
            reserve, this is returned.

    >>> resumed_tokens(1000, 950), resumed_tokens(1000, 400)
    (1000, 400)
    """
    if saved and fitting and (1 - RESERVED_FRACTION) * saved <= fitting:
        return saved
    return fitting


def remove(folder: StudyFolder, directory: str) -> None:
    """Delete the files that only an unfinished run needs."""
    folder.remove(f"{directory}/{MARKER}")
    folder.remove(f"{directory}/{ATTEMPT}")
    _remove_checkpoints(folder, directory, except_for=None)


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors whose names have a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _remove_checkpoints(folder: StudyFolder, directory: str, except_for: str | None) -> None:
    for name in folder.names(directory):
        if name.startswith("checkpoint-") and name != except_for:
            folder.remove(f"{directory}/{name}")
