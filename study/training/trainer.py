"""One run, trained and scored: one configuration, one seed. No Ray: it also runs under torchrun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from study.common.distributed import shared
from study.models.adapter import write_adapter
from study.storage.locks import claim_run, require_claim
from study.storage.schemas import PREDICTION_COLUMNS
from study.training import checkpointing
from study.training.engine import join_process_group
from study.training.metrics_log import epoch_record
from study.training.profiler import StepProfile
from study.training.run import Run, RunPlan

Report = Callable[[dict[str, Any]], None]


def train(
    plan: RunPlan,
    seed: int,
    report: Report,
    export: bool = False,
    waited: Mapping[str, float] | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Train and score one run, and leave its records; one that was cut off goes on from its last checkpoint.

    Args:
        seed: of sampling, dropout and new weights.
        report: called on every rank after each epoch with its figures: ``seed, epoch`` and ``dev``, all of
            ``study.evaluation.metrics.evaluate``.
        export: whether to leave the trained weights of the selected epoch as an adapter (``study.models.adapter``).
        waited: seconds before this call that the record of the start-up shall show too, by what they went to.
        profile: whether rank 0 leaves a profile of a few steps (``study.training.profiler``).

    Returns:
        What ``finished.json`` holds, on every rank.

    Raises:
        Superseded: another attempt at the run has begun since (``study.storage.locks``).
    """
    started = time.perf_counter()
    join_process_group()
    run = Run(plan, seed)
    if profile and run.rank == 0:
        run.profile = StepProfile(plan.folder, run.directory, run.device.type == "cuda")
    try:
        return _train(run, started, report, export, waited or {})
    finally:
        if run.profile:
            run.profile.close()
        run.close()


def _train(run: Run, started: float, report: Report, export: bool, waited: Mapping[str, float]) -> dict[str, Any]:
    plan, seed = run.plan, run.seed
    directory, optimisation = run.directory, plan.settings.optimisation
    run.attempt = shared(claim_run(plan.folder, directory) if run.rank == 0 else None)
    best = checkpointing.load(run)
    if run.rank == 0:
        plan.folder.remove_temporary(directory)
        plan.folder.write_json(
            f"{directory}/settings.json",
            {
                "settings": plan.settings.model_dump(mode="json"),
                "parallelism": plan.parallelism.model_dump(),
                "seed": seed,
            },
        )
    run.seconds["setup"] += time.perf_counter() - started
    before = run.seconds["total"]

    while len(run.epochs) < optimisation.epochs and not (
        best and len(run.epochs) - best.epoch >= optimisation.patience
    ):
        epoch = len(run.epochs) + 1
        run.train_epoch()
        scores, dev = run.evaluate("dev")
        run.epochs.append(epoch_record(epoch, run.steps, dev, run.seconds))
        if best is None or dev["w_f1"] > best.dev["w_f1"]:
            best = checkpointing.Best(epoch, dev, scores, run.trainable_weights())
        if run.rank == 0:
            require_claim(plan.folder, directory, run.attempt)
            plan.folder.write_parquet(f"{directory}/steps.parquet", pd.DataFrame(run.steps))
            plan.folder.write_jsonl(f"{directory}/epochs.jsonl", run.epochs)
        if epoch < optimisation.epochs:
            run.seconds["total"] = before + time.perf_counter() - started
            checkpointing.save(run, best)
        report({"seed": seed, "epoch": epoch, "dev": dev})

    if best is None:  # no epochs: the backbone as it is, LoRA at its start being the identity
        scores, dev = run.evaluate("dev")
        best = checkpointing.Best(0, dev, scores, run.trainable_weights())
        if run.rank == 0:
            plan.folder.write_parquet(
                f"{directory}/steps.parquet", pd.DataFrame(columns=["epoch", "step", "fairness_weight"], dtype=float)
            )
            plan.folder.write_jsonl(f"{directory}/epochs.jsonl", [])
    run.restore(best.weights)
    if export:
        weights = run.adapter_weights()  # on every rank: under ZeRO-3 each holds a part
        if run.rank == 0:
            lora = run.engine.module.peft_model.peft_config["default"]
            write_adapter(plan.folder, f"{directory}/adapter", weights, lora, plan.settings, plan.backbone)
    test_scores, test = run.evaluate("test")
    run.seconds["total"] = before + time.perf_counter() - started
    finished = {
        "config_id": plan.config_id,
        "seed": seed,
        "epoch": best.epoch,
        "epochs_run": len(run.epochs),
        "dev": best.dev,
        "test": test,
        "seconds": {key: round(value, 3) for key, value in run.seconds.items()},
        "startup": {key: round(value, 3) for key, value in {**waited, **run.startup}.items()},
    }
    if run.rank == 0:
        require_claim(plan.folder, directory, run.attempt)
        predictions = pd.concat([run.frame("dev", best.scores), run.frame("test", test_scores)])
        plan.folder.write_parquet(f"{directory}/predictions.parquet", predictions[list(PREDICTION_COLUMNS)])
        plan.folder.write_json(f"{directory}/finished.json", finished)
        checkpointing.remove(plan.folder, directory)
    return finished
