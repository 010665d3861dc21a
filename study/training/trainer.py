"""Train and score one configuration with one seed. Ray is not needed: it also runs under torchrun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig
from torch.profiler import record_function

from study.common.distributed import broadcast, world
from study.common.rng import seed_everything
from study.data.bucketing import distribute
from study.data.examples import Batch
from study.data.samplers import SAMPLERS
from study.models.adapter import write_adapter
from study.models.encoder_cache import shared_states
from study.storage.locks import claim_run, require_claim
from study.storage.records import run_directory
from study.storage.schemas import PREDICTION_COLUMNS
from study.training import checkpointing
from study.training.checkpointing import BestEpoch
from study.training.deepspeed_config import micro_batches
from study.training.engine import Engine, join_process_group
from study.training.evaluator import Evaluator
from study.training.fairness_weight import FairnessWeightController
from study.training.metrics_log import epoch_record, step_record
from study.training.profiler import StepProfile
from study.training.run_data import read_run_data
from study.training.run_plan import RunPlan
from study.training.run_state import RunState
from study.training.train_step import TrainStep

Report = Callable[[dict[str, Any]], None]


class Trainer:
    """The parts of one run, built from its plan, and its training epochs.

    Attributes:
        attempt: the id of this attempt at the run (``study.storage.locks``); set by ``train``.
        startup: seconds spent on each part of the start-up.
        profile: records a few steps if it is set.
    """

    def __init__(self, plan: RunPlan, seed: int):
        seed_everything(seed)
        settings, optimisation = plan.settings, plan.settings.optimisation
        self.plan, self.seed = plan, seed
        self.directory = run_directory(plan.config_id, seed)
        self.attempt = ""
        self.profile: StepProfile | None = None
        self.rank, self.num_workers = world()
        on_gpu = torch.cuda.is_available()
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        dtype = torch.bfloat16 if on_gpu else torch.float32
        self.startup: dict[str, float] = {}

        began = time.perf_counter()
        data = read_run_data(plan.features, plan.backbone, settings.prompt, settings.modalities, settings.control)
        self.startup["examples"] = time.perf_counter() - began
        began = time.perf_counter()
        states = shared_states(plan.features, data.examples["train"], plan.backbone, settings, dtype, self.device)
        self.startup["encoder states"] = time.perf_counter() - began
        examples = {split: replace(examples, states=states) for split, examples in data.examples.items()}
        self.data = replace(data, examples=examples)
        self.batches_per_epoch = len(examples["train"]) // optimisation.batch_size
        if optimisation.epochs and not self.batches_per_epoch:
            raise ValueError(
                f"optimisation.batch_size: {optimisation.batch_size} is more than the {len(examples['train'])} "
                "training examples; make it smaller"
            )

        self.engine = Engine(plan, self.data, self.total_steps, self.device, dtype)
        self.startup |= self.engine.startup
        self.state = RunState(np.random.default_rng(seed), settings.computation.micro_batch_tokens)
        if self.state.micro_batch_tokens is None and optimisation.micro_batch_size is None:
            self.state.micro_batch_tokens = self.engine.tokens_that_fit()
        micro_batch_size, _ = micro_batches(optimisation, self.num_workers)
        self.step = TrainStep(
            self.engine.deepspeed,
            settings.loss,
            examples["train"],
            self.data.cells,
            self.device,
            micro_batch_size,
            settings.computation.length_buckets,
        )
        scoring_batch_size = 2 * max(micro_batch_size, 32)
        self.evaluator = Evaluator(self.engine.deepspeed, self.data, self.device, scoring_batch_size, self.state)
        self.fairness = FairnessWeightController(settings.loss, self.state, self.evaluator, self.device)
        torch.manual_seed(seed * 100_003 + self.rank)  # new weights are equal on all workers, dropout is not

    @property
    def total_steps(self) -> int:
        return self.batches_per_epoch * self.plan.settings.optimisation.epochs

    def train_epoch(self) -> None:
        """Do the steps of one epoch, with its fairness updates evenly spaced and the last one at its end."""
        state = self.state
        if not state.steps:
            self.fairness.measure_control_split()
        began, evaluating = time.perf_counter(), state.seconds["evaluate"]
        batch_size = self.plan.settings.optimisation.batch_size
        sampling = self.step.loss.batch_sampling
        batches = SAMPLERS[sampling](self.step.examples.groups, batch_size, state.rng)
        n_updates = self.fairness.updates_per_epoch
        update_after = {round(len(batches) * (i + 1) / n_updates) for i in range(n_updates)}
        with ThreadPoolExecutor(max_workers=1) as background:  # collates the next batch during a step
            following = background.submit(self.collate, batches[0])
            for done in range(1, len(batches) + 1):
                weights = self.fairness.weights(len(state.steps) / self.total_steps)
                step_began = time.perf_counter()
                with record_function("data wait"):
                    own = following.result()
                if done < len(batches):
                    following = background.submit(self.collate, batches[done])
                epoch = len(state.epochs) + 1
                value, sample_weights = self.step(own, weights, state.loss_state, epoch)
                state.loss_state = value.state
                self.startup.setdefault("first step", time.perf_counter() - step_began)
                record = step_record(self.data.cells, weights, value, sample_weights)
                state.steps.append({"epoch": epoch, "step": len(state.steps) + 1, **record})
                if self.profile:
                    self.profile.step()
                if done in update_after:
                    self.fairness.update()
        state.seconds["train"] += time.perf_counter() - began - (state.seconds["evaluate"] - evaluating)

    def collate(self, rows: np.ndarray) -> list[list[Batch]]:
        """Return this worker's share of the global batch ``rows`` as micro-batches of buckets, on the CPU."""
        shares = distribute(rows, self.step.examples.lengths, self.num_workers)
        return self.step.collate(shares, self.state.micro_batch_tokens)

    def restore(self, weights: dict[str, torch.Tensor]) -> None:
        """Load trained weights for scoring."""
        self.engine.restore(weights)
        self.evaluator.forget()

    def close(self) -> None:
        """Free the engine's memory."""
        if self.profile:
            self.profile.close()
        del self.step, self.evaluator, self.fairness  # they hold references to the engine
        self.engine.close()


def train(
    plan: RunPlan,
    seed: int,
    report: Report,
    export: bool = False,
    waited: Mapping[str, float] | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Train and score one run and write its records; an interrupted run resumes from its last checkpoint.

    Args:
        seed: of sampling, dropout and new weights.
        report: called on every worker after each epoch with ``seed``, ``epoch`` and ``dev``, the metrics of
            ``study.evaluation.metrics.evaluate``.
        export: whether to write the trained weights of the selected epoch as an adapter (``study.models.adapter``).
        waited: seconds spent before this call, by activity, for the record of the start-up.
        profile: whether rank 0 writes a profile of a few steps (``study.training.profiler``).

    Returns:
        The content of ``finished.json``, on every worker.

    Raises:
        Superseded: another attempt at the run has begun since (``study.storage.locks``).
    """
    started = time.perf_counter()
    join_process_group()
    trainer = Trainer(plan, seed)
    if profile and trainer.rank == 0:
        trainer.profile = StepProfile(plan.folder, trainer.directory, trainer.device.type == "cuda")
    try:
        return _train(trainer, started, report, export, waited or {})
    finally:
        trainer.close()


def _train(
    trainer: Trainer, started: float, report: Report, export: bool, waited: Mapping[str, float]
) -> dict[str, Any]:
    plan, state, directory = trainer.plan, trainer.state, trainer.directory
    optimisation = plan.settings.optimisation
    trainer.attempt = broadcast(claim_run(plan.folder, directory) if trainer.rank == 0 else None)
    best = checkpointing.load(trainer)
    if trainer.rank == 0:
        _write_settings(trainer)
    state.seconds["setup"] += time.perf_counter() - started
    before = state.seconds["total"]

    while len(state.epochs) < optimisation.epochs and not (
        best and len(state.epochs) - best.epoch >= optimisation.patience
    ):
        epoch = len(state.epochs) + 1
        trainer.train_epoch()
        scores, dev = trainer.evaluator.evaluate("dev")
        state.epochs.append(epoch_record(epoch, state.steps, dev, state.seconds))
        if best is None or dev["w_f1"] > best.dev["w_f1"]:
            best = BestEpoch(epoch, dev, scores, trainer.engine.trainable_weights())
        if trainer.rank == 0:
            require_claim(plan.folder, directory, trainer.attempt)
            plan.folder.write_parquet(f"{directory}/steps.parquet", pd.DataFrame(state.steps))
            plan.folder.write_jsonl(f"{directory}/epochs.jsonl", state.epochs)
        if epoch < optimisation.epochs:
            state.seconds["total"] = before + time.perf_counter() - started
            checkpointing.save(trainer, best)
        report({"seed": trainer.seed, "epoch": epoch, "dev": dev})

    if best is None:  # no epochs: scores the backbone as it is, since new LoRA matrices are the identity
        scores, dev = trainer.evaluator.evaluate("dev")
        best = BestEpoch(0, dev, scores, trainer.engine.trainable_weights())
        if trainer.rank == 0:
            no_steps = pd.DataFrame(columns=["epoch", "step", "fairness_weight"], dtype=float)
            plan.folder.write_parquet(f"{directory}/steps.parquet", no_steps)
            plan.folder.write_jsonl(f"{directory}/epochs.jsonl", [])
    trainer.restore(best.weights)
    if export:
        _export(trainer)
    test_scores, test = trainer.evaluator.evaluate("test")
    state.seconds["total"] = before + time.perf_counter() - started
    finished = {
        "config_id": plan.config_id,
        "seed": trainer.seed,
        "epoch": best.epoch,
        "epochs_run": len(state.epochs),
        "dev": best.dev,
        "test": test,
        "seconds": {key: round(value, 3) for key, value in state.seconds.items()},
        "startup": {key: round(value, 3) for key, value in {**waited, **trainer.startup}.items()},
    }
    if trainer.rank == 0:
        require_claim(plan.folder, directory, trainer.attempt)
        tables = [trainer.evaluator.predictions("dev", best.scores), trainer.evaluator.predictions("test", test_scores)]
        plan.folder.write_parquet(f"{directory}/predictions.parquet", pd.concat(tables)[list(PREDICTION_COLUMNS)])
        plan.folder.write_json(f"{directory}/finished.json", finished)
        checkpointing.remove(plan.folder, directory)
    return finished


def _write_settings(trainer: Trainer) -> None:
    plan = trainer.plan
    plan.folder.remove_temporary(trainer.directory)
    settings = {
        "settings": plan.settings.model_dump(mode="json"),
        "parallelism": plan.parallelism.model_dump(),
        "seed": trainer.seed,
    }
    plan.folder.write_json(f"{trainer.directory}/settings.json", settings)


def _export(trainer: Trainer) -> None:
    plan = trainer.plan
    weights = trainer.engine.adapter_weights()  # on every worker: under ZeRO-3 each one holds a shard
    if trainer.rank == 0:
        lora = cast(LoraConfig, trainer.engine.model.peft_model.peft_config["default"])
        write_adapter(plan.folder, f"{trainer.directory}/adapter", weights, lora, plan.settings, plan.backbone)
