"""One run: one configuration, one seed, over the ranks of a process group. No Ray: it also runs under torchrun.

The loop is the objective's: losses of the whole effective batch are gathered, their weights computed, and each rank
back-propagates its share (``study.collectives``). Without accumulation a step is one forward and one backward pass;
with A micro-batches it is A more forward passes without gradient, which replay the same dropout masks.
"""

from __future__ import annotations

import math
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cuda" if os.path.exists("/dev/nvidiactl") else "cpu")

import deepspeed
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from transformers.integrations import HfDeepSpeedConfig

from study import features, schedules
from study.backbone import Batch, EmotionModel, load_model, load_processor
from study.batching import Examples, answer_ids, balanced_batches, natural_batches
from study.collectives import gather_rows, world
from study.evaluation import loss_gaps, prediction_frame, score_examples
from study.groups import LANGUAGES, Cell, cells
from study.metrics import evaluate
from study.objective import ErmMinMaxGap, ObjectiveParts, utterance_weights
from study.records import PREDICTION_COLUMNS, UTTERANCE_COLUMNS, StudyFolder, run_directory
from study.settings import AdaptiveWeight, ConstantWeight, Placement, Settings

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RunPlan:
    """Everything a worker needs to know; plain data, so that it travels.

    Attributes:
        features: the folder of ``study.features.build``.
        backbone: a hub id or folder, the tiny one already made.
        folder: where records go.
    """

    settings: Settings
    placement: Placement
    config_id: str
    features: Path
    backbone: str
    folder: StudyFolder


class LossNotFinite(FloatingPointError):
    """The loss of a step was not finite; the message names the epoch and the remedy."""


def train(plan: RunPlan, seed: int, report: Report) -> dict[str, Any]:
    """Train and score one run, and leave its records.

    Args:
        seed: of sampling, dropout and new weights.
        report: called on every rank after each epoch with its figures.

    Returns:
        What ``finished.json`` holds, on every rank.
    """
    started = time.perf_counter()
    join_process_group()
    run = Run(plan, seed)
    epochs: list[dict[str, Any]] = []
    best: dict[str, Any] = {}
    seconds = {"setup": time.perf_counter() - started, "train": 0.0, "evaluate": 0.0}
    directory = run_directory(plan.config_id, seed)
    optimisation = plan.settings.optimisation
    rank, _ = world()
    if rank == 0:
        plan.folder.write_json(
            f"{directory}/settings.json",
            {"settings": plan.settings.model_dump(mode="json"), "placement": plan.placement.model_dump(), "seed": seed},
        )

    for epoch in range(1, optimisation.epochs + 1):
        clock = time.perf_counter()
        row = {"epoch": epoch, **run.train_epoch(epoch)}
        trained = time.perf_counter()
        scores, dev = run.evaluate("dev")
        run.move_fairness_weight(scores, dev)
        seconds["train"] += trained - clock
        seconds["evaluate"] += time.perf_counter() - trained
        row |= {"dev": {k: dev[k] for k in ("w_f1", "accuracy", "gap")}, "seconds": time.perf_counter() - clock}
        epochs.append(row)
        if rank == 0:
            plan.folder.write_jsonl(f"{directory}/epochs.jsonl", epochs)
        if not best or dev["w_f1"] > best["dev"]["w_f1"]:
            best = {"epoch": epoch, "dev": dev, "scores": scores, "weights": run.trainable_weights()}
        report({"seed": seed, "epoch": epoch, "dev_w_f1": dev["w_f1"], "dev_gap": dev["gap"]})
        if epoch - best["epoch"] >= optimisation.patience:
            break

    clock = time.perf_counter()
    run.restore(best["weights"])
    test_scores, test = run.evaluate("test")
    seconds["evaluate"] += time.perf_counter() - clock
    seconds["total"] = time.perf_counter() - started
    finished = {
        "config_id": plan.config_id,
        "seed": seed,
        "epoch": best["epoch"],
        "epochs_run": len(epochs),
        "dev": best["dev"],
        "test": test,
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
    }
    if rank == 0:
        predictions = pd.concat([run.frame("dev", best["scores"]), run.frame("test", test_scores)])
        plan.folder.write_parquet(f"{directory}/predictions.parquet", predictions[list(PREDICTION_COLUMNS)])
        plan.folder.write_json(f"{directory}/finished.json", finished)
    run.close()
    return finished


class Run:
    """The state of one run: model, engine, examples, fairness weight."""

    def __init__(self, plan: RunPlan, seed: int):
        _seed_everything(seed)
        self.plan = plan
        settings, optimisation = plan.settings, plan.settings.optimisation
        self.rank, self.ranks = world()
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        dataset = features.load(plan.features)
        self.utterances = dataset.select_columns(list(UTTERANCE_COLUMNS)).to_pandas()
        languages = [language for language in LANGUAGES if language in set(self.utterances["language"])]
        self.cells: tuple[Cell, ...] = cells(languages, settings.modalities)
        processor = load_processor(plan.backbone)
        self.examples = {
            split: Examples.of_split(dataset, split, self.cells, settings.prompt, processor)
            for split in ("train", "dev", "test")
        }
        self.answers = answer_ids(settings.prompt, processor)
        self.objective = ErmMinMaxGap(settings.objective.coefficients.kappa(self.cells), settings.objective.power)
        weight = settings.objective.fairness_weight
        self.multiplier = weight.initial if isinstance(weight, AdaptiveWeight) else 0.0
        self.rng = np.random.default_rng(seed)

        share = optimisation.batch_size // self.ranks
        self.micro = min(optimisation.micro_batch_size or share, share)
        self.accumulation = -(-share // self.micro)
        self.batches_per_epoch = len(self.examples["train"]) // optimisation.batch_size
        if not self.batches_per_epoch:
            raise ValueError(
                f"optimisation.batch_size: {optimisation.batch_size} is more than the {len(self.examples['train'])} "
                "training examples; make it smaller"
            )
        self.steps_done = 0
        self.engine = self._engine(processor)
        torch.manual_seed(seed * 100_003 + self.rank)  # the same new weights on every rank, but not the same dropout

    @property
    def total_steps(self) -> int:
        return self.batches_per_epoch * self.plan.settings.optimisation.epochs

    def _engine(self, processor: Any) -> deepspeed.DeepSpeedEngine:
        optimisation = self.plan.settings.optimisation
        on_gpu = self.device.type == "cuda"
        config = {
            "train_micro_batch_size_per_gpu": self.micro,
            "gradient_accumulation_steps": self.accumulation,
            "gradient_clipping": optimisation.gradient_clipping,
            "bf16": {"enabled": on_gpu},
            "zero_optimization": {"stage": self.plan.placement.zero_stage, "overlap_comm": on_gpu},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }
        # ZeRO-3 shards weights while they are loaded, if transformers knows beforehand (by weak reference).
        self._sharded_loading = HfDeepSpeedConfig(config) if self.plan.placement.zero_stage == 3 else None
        dtype = torch.bfloat16 if on_gpu else torch.float32
        peft_model = load_model(self.plan.backbone, self.plan.settings.backbone, dtype)
        model = EmotionModel(peft_model, self.answers, processor.tokenizer.pad_token_id).to(self.device)
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay)
        engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=trainable,
            optimizer=optimizer,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor),
            config=config,
        )
        return engine

    def _learning_rate_factor(self, step: int) -> float:
        """Linear warm-up, then linear decay to 0 (ours; the paper's schedule is not known to us)."""
        warmup = max(1, round(self.plan.settings.optimisation.warmup_fraction * self.total_steps))
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - warmup))

    def fairness_weight(self) -> float:
        """lambda_t for the coming step."""
        objective = self.plan.settings.objective
        weight = objective.fairness_weight
        if objective.method == "erm":
            return 0.0
        if isinstance(weight, ConstantWeight):
            return schedules.constant(weight.weight)
        if isinstance(weight, AdaptiveWeight):
            return self.multiplier
        return schedules.ramp(weight.schedule, weight.weight, self.steps_done / self.total_steps, weight.ramp_fraction)

    def move_fairness_weight(self, scores: np.ndarray, dev: dict[str, Any]) -> None:
        """The adaptive multiplier's update after a dev evaluation; other schedules do not look at dev."""
        weight = self.plan.settings.objective.fairness_weight
        if not isinstance(weight, AdaptiveWeight):
            return
        if weight.driver == "metric_gap":
            gap = dev["worst_gap"]
        else:
            gap = np.nanmax(loss_gaps(self.examples["dev"], scores, [len(a) for a in self.answers], len(self.cells)))
        if gap is not None:
            self.multiplier = schedules.adaptive(
                self.multiplier, float(gap), weight.step_size, weight.tolerance, weight.maximum
            )

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """One pass of training steps; returns the means of what the objective saw."""
        examples, size = self.examples["train"], self.plan.settings.optimisation.batch_size
        if self.plan.settings.objective.balanced():
            batches = balanced_batches(examples.groups, size, self.rng)
        else:
            batches = natural_batches(len(examples), size, self.rng)
        risk = penalty = negative = 0.0
        gap_sums, gap_counts = np.zeros(len(self.cells)), np.zeros(len(self.cells))
        weight = 0.0
        for rows in batches:
            weight = self.fairness_weight()
            parts, weights = self.step(rows[self.rank :: self.ranks], weight)
            if not math.isfinite(float(parts.total)):
                raise LossNotFinite(
                    f"epoch {epoch}: the objective is {float(parts.total)} (risk {float(parts.risk):.3g} nats, "
                    f"fairness weight {weight:.3g}); lower optimisation.learning_rate or the fairness weight"
                )
            risk += float(parts.risk)
            penalty += float(parts.penalty)
            negative += float((weights < 0).float().mean())
            gap_sums += parts.signed_gaps.abs().cpu().numpy()
            gap_counts += parts.present.cpu().numpy()
        n = len(batches)
        seen = zip(self.cells, gap_sums, gap_counts, strict=True)
        return {
            "loss": risk / n,
            "penalty": penalty / n,
            "fairness_weight": weight,
            "gaps": {str(cell): total / count for cell, total, count in seen if count},
            "negative_weights": negative / n,
        }

    def step(self, rows: np.ndarray, weight: float) -> tuple[ObjectiveParts, torch.Tensor]:
        """One optimiser step on this rank's rows of an effective batch; returns the whole batch's parts and weights."""
        examples = self.examples["train"]
        batches = [examples.collate(rows[i : i + self.micro]).to(self.device) for i in range(0, len(rows), self.micro)]
        if len(batches) == 1:
            losses = self.engine(batches[0], score=False)
            known, passes = losses.detach(), iter([losses])
        else:
            known, states = self.losses_without_gradient(batches)
            passes = self.losses_replayed(batches, states)
        all_losses, own = gather_rows(known)
        all_groups, _ = gather_rows(torch.cat([batch.groups for batch in batches]))
        weights, parts = utterance_weights(self.objective, all_losses, all_groups, weight)
        # DeepSpeed averages over ranks and accumulation steps; J is over the whole batch.
        shares = (weights[own] * self.ranks * self.accumulation).split([len(batch.rows) for batch in batches])
        for losses, share in zip(passes, shares, strict=True):
            self.engine.backward((share * losses).sum())
            self.engine.step()
        self.steps_done += 1
        return parts, weights

    def losses_without_gradient(self, batches: list[Batch]) -> tuple[torch.Tensor, list[Any]]:
        """Losses of every micro-batch, and the random state before each, so that the second pass drops the same."""
        states, losses = [], []
        with torch.no_grad():
            for batch in batches:
                states.append(_random_state())
                losses.append(self.engine(batch, score=False))
        return torch.cat(losses), states

    def losses_replayed(self, batches: list[Batch], states: list[Any]) -> Iterator[torch.Tensor]:
        """The losses again, with gradient, one micro-batch at a time and each with the random state it had."""
        for batch, state in zip(batches, states, strict=True):
            _set_random_state(state)
            yield self.engine(batch, score=False)

    def evaluate(self, split: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Scores (n, 7) and figures of a split."""
        size = 2 * max(self.micro, 32)
        scores = score_examples(self.engine, self.examples[split], size, self.device)
        return scores, evaluate(self.frame(split, scores))

    def frame(self, split: str, scores: np.ndarray) -> pd.DataFrame:
        return prediction_frame(self.examples[split], scores, self.utterances)

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self.engine.module.parameters() if p.requires_grad]

    def trainable_weights(self) -> list[torch.Tensor]:
        """A copy of what is trained, gathered from all ranks under ZeRO-3."""
        parameters = self._trainable()
        with deepspeed.zero.GatheredParameters(parameters, enabled=self.plan.placement.zero_stage == 3):
            return [p.detach().cpu().clone() for p in parameters]

    def restore(self, weights: list[torch.Tensor]) -> None:
        """Put back what ``trainable_weights`` copied, for scoring (the optimiser's state is left as it is)."""
        parameters = self._trainable()
        gathered = deepspeed.zero.GatheredParameters(
            parameters, modifier_rank=0, enabled=self.plan.placement.zero_stage == 3
        )
        with gathered, torch.no_grad():
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(weight.to(parameter.device))

    def close(self) -> None:
        self.engine.destroy()
        self._sharded_loading = None


def join_process_group() -> None:
    """Join the group that Ray or torchrun prepared; alone, be a group of one (DeepSpeed needs one)."""
    # On CPU DeepSpeed would compile a shared-memory all-reduce, half a minute at the first use; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {
            "RANK": "0",
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _random_state() -> Any:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random_state(state: Any) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
