"""The checkpoint of an unfinished run, so that the same command goes on after a kill as if nothing had happened.

Written at the end of an epoch, the one before is then removed::

    runs/<config_id>/<seed>/
        checkpoint.json            which folder holds, and the state that is plain data; written last
        checkpoint-<epoch>-<attempt>/
            engine/...             DeepSpeed's: optimiser, learning rate, trained weights, a file a rank
            run.safetensors        weights and dev scores of the best epoch, memory of the objective
            random-<rank>.safetensors

Frozen weights are not in it. DeepSpeed's own files are pickles: they are read from the study's own folder only. The
folder may be on an object store, so each rank works on a local copy.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from study.common.rng import random_state, set_random_state
from study.config.settings import Parallelism
from study.storage.locks import ATTEMPT, require_claim
from study.storage.study_folder import StudyFolder

if TYPE_CHECKING:
    from study.training.run import Run

MARKER = "checkpoint.json"


@dataclass
class Best:
    """The epoch with the highest dev W-F1 so far.

    Attributes:
        dev: its figures.  scores: (n, 7) of the dev examples.  weights: what is trained, by name.
    """

    epoch: int
    dev: dict[str, Any]
    scores: np.ndarray
    weights: dict[str, torch.Tensor]


def save(run: Run, best: Best) -> None:
    """Keep the state of a run at the end of an epoch; called on every rank."""
    folder = run.plan.folder
    name = f"checkpoint-{len(run.epochs):05d}-{run.attempt}"  # no attempt writes into that of another
    place = f"{run.directory}/{name}"
    with tempfile.TemporaryDirectory() as local:
        run.engine.save_checkpoint(local, tag="engine", save_latest=False, exclude_frozen_parameters=True)
        for path in sorted(Path(local, "engine").iterdir()):
            folder.write_bytes(f"{place}/engine/{path.name}", path.read_bytes())
    folder.write_bytes(f"{place}/random-{run.rank}.safetensors", bytes_of(random_state()))
    if run.rank == 0:
        tensors = {f"best/{key}": value.contiguous() for key, value in best.weights.items()}
        tensors |= {f"loss_state/{key}": value.cpu().contiguous() for key, value in run.loss_state.items()}
        folder.write_bytes(f"{place}/run.safetensors", bytes_of({**tensors, "scores": torch.from_numpy(best.scores)}))
    dist.barrier()  # the files of every rank are there
    if run.rank == 0:
        state = {
            "checkpoint": name,
            "parallelism": run.plan.parallelism.model_dump(),
            "best": {"epoch": best.epoch, "dev": best.dev},
            "dual_variables": run.dual_variables,
            "sampler": run.rng.bit_generator.state,
            "tokens": run.tokens,
            "seconds": run.seconds,
            "epochs": run.epochs,
        }
        require_claim(folder, run.directory, run.attempt)  # again: what came before may have taken minutes
        folder.write_json(f"{run.directory}/{MARKER}", state)
        _remove(folder, run.directory, keep=name)


def parallelism_of(folder: StudyFolder, directory: str) -> Parallelism | None:
    """The ranks and ZeRO stage that a run's checkpoint was cut for, None where there is no checkpoint."""
    if not folder.exists(f"{directory}/{MARKER}"):
        return None
    return Parallelism.model_validate(folder.read_json(f"{directory}/{MARKER}")["parallelism"])


def load(run: Run) -> Best | None:
    """Put a new run where its checkpoint is; None, and nothing done, where there is none.

    A checkpoint of another number of ranks or ZeRO stage is not used: DeepSpeed's files are cut for theirs.
    """
    folder = run.plan.folder
    parallelism = parallelism_of(folder, run.directory)
    if parallelism is None:
        return None
    if parallelism != run.plan.parallelism:
        print(f"the checkpoint in {folder.path(run.directory)} is of {parallelism}: beginning anew", flush=True)
        return None
    state = folder.read_json(f"{run.directory}/{MARKER}")
    place = f"{run.directory}/{state['checkpoint']}"
    with tempfile.TemporaryDirectory() as local:
        Path(local, "engine").mkdir()
        for name in folder.names(f"{place}/engine"):
            Path(local, "engine", name).write_bytes(folder.read_bytes(f"{place}/engine/{name}"))
        run.engine.load_checkpoint(local, tag="engine", load_module_strict=False)
    tensors = tensors_of(folder.read_bytes(f"{place}/run.safetensors"))
    run.loss_state = {
        key.removeprefix("loss_state/"): t.to(run.device) for key, t in tensors.items() if key.startswith("loss_state/")
    }
    run.dual_variables = state["dual_variables"]
    run.rng.bit_generator.state = state["sampler"]
    run.keep_cut(state.get("tokens"))
    run.seconds = state["seconds"]
    run.epochs = state["epochs"]
    steps = folder.read_parquet(f"{run.directory}/steps.parquet")
    run.steps = steps[steps["epoch"] <= len(run.epochs)].to_dict("records")
    set_random_state(tensors_of(folder.read_bytes(f"{place}/random-{run.rank}.safetensors")))
    weights = {key.removeprefix("best/"): t for key, t in tensors.items() if key.startswith("best/")}
    return Best(state["best"]["epoch"], state["best"]["dev"], tensors["scores"].numpy(), weights)


def remove(folder: StudyFolder, directory: str) -> None:
    """Delete what a run needs only until it has finished."""
    folder.remove(f"{directory}/{MARKER}")
    folder.remove(f"{directory}/{ATTEMPT}")
    _remove(folder, directory, keep=None)


def _remove(folder: StudyFolder, directory: str, keep: str | None) -> None:
    for name in folder.names(directory):
        if name.startswith("checkpoint-") and name != keep:
            folder.remove(f"{directory}/{name}")
