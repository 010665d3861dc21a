"""The state of one run, and what is done with it: a step, an epoch, a scoring, over the ranks of a process group.

The step is the objective's: losses of the whole effective batch are gathered, their weights computed, and each rank
back-propagates its share (``study.common.distributed``). Where memory holds the whole share, a step is one forward and
one backward pass over it, in buckets of like length. Otherwise it is cut into several passes, and goes through all of
them once more, without gradient and with the same dropout masks: a third more arithmetic.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cuda" if os.path.exists("/dev/nvidiactl") else "cpu")

import deepspeed
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.profiler import record_function
from transformers.integrations import HfDeepSpeedConfig

from study.common.distributed import gather_rows, least, world
from study.common.environment import free_memory
from study.common.rng import random_state, seed_everything, set_random_state
from study.config.settings import Parallelism, Settings
from study.data.bucketing import OVERHEAD, cut, deal
from study.data.examples import Batch
from study.data.samplers import batches_of_epoch
from study.evaluation.label_likelihood import held_out_batch, prediction_frame, score_examples
from study.evaluation.metrics import evaluate
from study.losses.base import (
    GlobalBatch,
    LossParts,
    LossState,
    PenalisedLoss,
    UtteranceWeights,
    signed_gaps,
    utterance_weights,
)
from study.losses.gap_estimators import HeldOutGaps
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import AdaptiveWeight
from study.models import base_weights
from study.models.encoder_cache import shared_states
from study.models.memory_estimate import LEFT_FREE, bytes_a_token
from study.models.qwen2_audio import EmotionModel
from study.storage.records import run_directory
from study.storage.study_folder import StudyFolder
from study.training.engine import engine_config, micro_batches
from study.training.metrics_log import step_record
from study.training.profiler import StepProfile
from study.training.run_data import read_run_data
from study.training.train_step import LossNotFinite


@dataclass(frozen=True)
class RunPlan:
    """Everything a worker needs to know; plain data, so that it travels.

    Attributes:
        features: the folder of ``study.data.features.build``.
        backbone: a hub id or folder, the tiny one already made.
        folder: where records go.
    """

    settings: Settings
    parallelism: Parallelism
    config_id: str
    features: Path
    backbone: str
    folder: StudyFolder


class Run:
    """The state of one run: model, engine, examples, fairness weights, and what is recorded.

    Attributes:
        attempt: which one this is at the run (``study.storage.locks``).
        cells: the C cells in use.
        examples: of ``train``, ``dev``, ``test`` and ``control``.
        multipliers: an adaptive weight's current values, one or C of them; empty for other schedules.
        loss_state: what the objective carries from step to step.
        steps, epochs: the rows of ``steps.parquet`` and ``epochs.jsonl``.
        seconds: where the time went.
    """

    def __init__(self, plan: RunPlan, seed: int):
        seed_everything(seed)
        self.plan, self.seed = plan, seed
        self.directory = run_directory(plan.config_id, seed)
        self.attempt = ""
        settings, optimisation = plan.settings, plan.settings.optimisation
        self.rank, self.num_workers = world()
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        self._dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        began = time.perf_counter()
        run_data = read_run_data(plan.features, plan.backbone, settings.prompt, settings.modalities, settings.control)
        self.utterances, self.cells = run_data.utterances, run_data.cells
        self.answers, self._pad_token_id = run_data.answers, run_data.pad_token_id
        self.startup = {"examples": time.perf_counter() - began}
        began = time.perf_counter()
        states = shared_states(
            plan.features, run_data.examples["train"], plan.backbone, settings, self._dtype, self.device
        )
        self.examples = {split: replace(examples, states=states) for split, examples in run_data.examples.items()}
        self.startup["tower states"] = time.perf_counter() - began
        self.loss = settings.loss
        self.dual_variables: list[float] = []
        if isinstance(self.loss, PenalisedLoss) and isinstance(self.loss.fairness_weight, AdaptiveWeight):
            count = self.loss.n_weights(len(self.cells))
            self.dual_variables = [self.loss.fairness_weight.initial] * count
        self.loss_state: LossState = {}
        self.steps: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.seconds = {"setup": 0.0, "train": 0.0, "evaluate": 0.0, "total": 0.0}
        self.rng = np.random.default_rng(seed)
        self._scored: dict[str, tuple[int, tuple[np.ndarray, dict[str, Any]]]] = {}

        self.micro, _ = micro_batches(optimisation, self.num_workers)
        self.batches_per_epoch = len(self.examples["train"]) // optimisation.batch_size
        if optimisation.epochs and not self.batches_per_epoch:
            raise ValueError(
                f"optimisation.batch_size: {optimisation.batch_size} is more than the {len(self.examples['train'])} "
                "training examples; make it smaller"
            )
        self.engine = self._engine()
        self.tokens = settings.computation.micro_batch_tokens
        if self.tokens is None and optimisation.micro_batch_size is None:
            self.tokens = self._tokens_that_fit()
        self.profile: StepProfile | None = None
        torch.manual_seed(seed * 100_003 + self.rank)  # the same new weights on every rank, but not the same dropout

    @property
    def steps_done(self) -> int:
        return len(self.steps)

    @property
    def total_steps(self) -> int:
        return self.batches_per_epoch * self.plan.settings.optimisation.epochs

    def _engine(self) -> deepspeed.DeepSpeedEngine:
        optimisation = self.plan.settings.optimisation
        on_gpu = self.device.type == "cuda"
        config = engine_config(optimisation, self.plan.parallelism, on_gpu)
        # ZeRO-3 shards weights while they are loaded, if transformers knows beforehand (by weak reference).
        self._sharded_loading = HfDeepSpeedConfig(config) if self.plan.parallelism.zero_stage == 3 else None
        began = time.perf_counter()
        peft_model = base_weights.borrow(self.plan.backbone, self.plan.settings.backbone, self._dtype)
        computation = self.plan.settings.computation
        model = EmotionModel(peft_model, self.answers, self._pad_token_id, computation).to(self.device)
        self.startup["model"] = time.perf_counter() - began
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable, lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay, fused=True
        )
        engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=trainable,
            optimizer=optimizer,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor),
            config=config,
        )
        self.startup["engine"] = time.perf_counter() - began - self.startup["model"]
        return engine

    def _tokens_that_fit(self) -> int:
        """Tokens of a training pass for which the rank with the least free memory has room, with the model loaded."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0] if on_gpu else free_memory() / (os.cpu_count() or 1)
        config = self.engine.module.peft_model.get_base_model().config
        room = (1 - LEFT_FREE) * free / bytes_a_token(config, self.plan.settings.backbone, self._dtype.itemsize)
        return max(1, least(int(room), self.device))

    def keep_cut(self, tokens: int | None) -> None:
        """Cut steps into passes as before a kill, since dropout's masks follow the cut; unless a setting or the memory
        that is free now, reserve included, forbids it.

        Args:
            tokens: of a training pass, before: as memory then allowed, or as a setting said that is gone since.
        """
        if tokens and self.tokens and self.plan.settings.computation.micro_batch_tokens is None:
            self.tokens = tokens if (1 - LEFT_FREE) * tokens <= self.tokens else self.tokens

    def _learning_rate_factor(self, step: int) -> float:
        """Linear warm-up, then linear decay to 0 (ours; the paper's schedule is not known to us)."""
        warmup = max(1, round(self.plan.settings.optimisation.warmup_fraction * self.total_steps))
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - warmup))

    def fairness_weights(self) -> tuple[float, ...]:
        """lambda_t for the coming step: none, one, or one a cell."""
        if not isinstance(self.loss, PenalisedLoss):
            return ()
        schedule = self.loss.fairness_weight
        if isinstance(schedule, AdaptiveWeight):
            return tuple(self.dual_variables)
        return (schedule.at(self.steps_done / self.total_steps),)

    def look(self) -> None:
        """Measure the held-out gaps that an adaptive weight moves by, and those that an estimator uses."""
        if not isinstance(self.loss, PenalisedLoss):
            return
        schedule = self.loss.fairness_weight
        if isinstance(schedule, AdaptiveWeight):
            gaps = self.held_out_gaps(schedule.split, schedule.driver)
            if len(self.dual_variables) == 1:
                gaps = [max((gap for gap in gaps if gap is not None), default=None)]
            self.dual_variables = [
                weight if gap is None else schedule.moved(weight, gap)
                for weight, gap in zip(self.dual_variables, gaps, strict=True)
            ]
        self.measure_control()

    def measure_control(self) -> None:
        """Give the gaps of the control split to an objective that estimates its gaps there."""
        if isinstance(self.loss, ErmMinMaxGap) and isinstance(self.loss.estimator, HeldOutGaps):
            state = self.loss.estimator.look(self.held_out("control"))
            self.loss_state = {name: value.to(self.device) for name, value in state.items()}

    def held_out(self, split: str) -> GlobalBatch:
        """A split as one batch, on the CPU."""
        scores, _ = self.evaluate(split)
        return held_out_batch(self.examples[split], scores, [len(answer) for answer in self.answers], self.cells)

    def held_out_gaps(self, split: str, driver: str) -> list[float | None]:
        """The gap of each cell on a split, None where it has none: AVG (a fraction) or of losses (nats)."""
        if driver == "metric_gap":
            _, figures = self.evaluate(split)
            return [figures["cells"].get(str(cell), {}).get("gap") for cell in self.cells]
        gaps, present = signed_gaps(*self.held_out(split).group_means())
        return [abs(float(gap)) if there else None for gap, there in zip(gaps, present, strict=True)]

    def train_epoch(self) -> None:
        """One pass of training steps, with looks at held-out gaps evenly spaced, the last one at its end."""
        if not self.steps:
            self.measure_control()
        began, evaluating = time.perf_counter(), self.seconds["evaluate"]
        examples, size = self.examples["train"], self.plan.settings.optimisation.batch_size
        batches = batches_of_epoch(self.loss.sampled(), examples.groups, size, self.rng)
        count = self.loss.fairness_updates_per_epoch if isinstance(self.loss, PenalisedLoss) else 1
        looks = {round(len(batches) * (i + 1) / count) for i in range(count)}
        with ThreadPoolExecutor(max_workers=1) as aside:  # the next batch is put together while one is computed
            ahead = aside.submit(self.collated, deal(batches[0], examples.lengths, self.num_workers))
            for done in range(1, len(batches) + 1):
                weights = self.fairness_weights()
                stepped = time.perf_counter()
                with record_function("data wait"):
                    own = ahead.result()
                if done < len(batches):
                    ahead = aside.submit(self.collated, deal(batches[done], examples.lengths, self.num_workers))
                parts, by_utterance = self.step(own, weights)
                self.startup.setdefault("first step", time.perf_counter() - stepped)
                place = {"epoch": len(self.epochs) + 1, "step": len(self.steps) + 1}
                self.steps.append(place | step_record(self.cells, weights, parts, by_utterance))
                if self.profile:
                    self.profile.step()
                if done in looks:
                    self.look()
        self.seconds["train"] += time.perf_counter() - began - (self.seconds["evaluate"] - evaluating)

    def collated(self, shares: Sequence[np.ndarray]) -> list[list[Batch]]:
        """This rank's share of an effective batch as passes of buckets (``study.data.bucketing``), on the CPU.

        Args:
            shares: rows of every rank, since all go through as many of them.
        """
        examples = self.examples["train"]
        overhead = OVERHEAD if self.plan.settings.computation.length_buckets else None
        plans = cut(shares, examples.lengths, self.micro, self.tokens, overhead)
        return [[examples.collate(bucket) for bucket in buckets] for buckets in plans[self.rank]]

    def step(self, passes: list[list[Batch]], weights: tuple[float, ...]) -> tuple[LossParts, UtteranceWeights]:
        """One optimiser step on this rank's ``collated`` share; returns the whole batch's parts and weights.

        Raises:
            LossNotFinite: before anything is changed.
        """
        passes = [[batch.to(self.device) for batch in buckets] for buckets in passes]
        if len(passes) == 1:
            losses, states = self.outcomes(passes[0])
            with_gradient = iter([(losses, states)])
        else:
            losses, states, random_states = self.outcomes_without_gradient(passes)
            with_gradient = self.outcomes_replayed(passes, random_states)
        groups = torch.cat([batch.groups for buckets in passes for batch in buckets])
        with record_function("collectives"):
            whole, own = self.gathered(losses.detach(), states.detach(), groups)
        by_utterance, parts = utterance_weights(self.loss, whole, weights, self.loss_state)
        if not math.isfinite(float(parts.total)):
            raise LossNotFinite(
                f"epoch {len(self.epochs) + 1}: the objective is {float(parts.total)} (risk {float(parts.risk):.3g} "
                f"nats, fairness weights {weights}); lower optimisation.learning_rate or the fairness weight"
            )
        self.loss_state = parts.state
        scale = self.num_workers  # DeepSpeed averages over ranks; J is over the whole batch
        sizes = [sum(len(batch.rows) for batch in buckets) for buckets in passes]
        loss_shares = (scale * by_utterance.losses[own]).split(sizes)
        state_shares = None if by_utterance.states is None else (scale * by_utterance.states[own]).split(sizes)
        for i, (losses, states) in enumerate(with_gradient):
            weighted = (loss_shares[i] * losses).sum()
            if state_shares is not None:
                weighted = weighted + (state_shares[i] * states).sum()
            self.engine.set_gradient_accumulation_boundary(i == len(passes) - 1)
            with record_function("backward"):
                self.engine.backward(weighted, scale_wrt_gas=False)
            with record_function("optimiser"):
                self.engine.step()
        return parts, by_utterance

    def gathered(self, losses: torch.Tensor, states: torch.Tensor, groups: torch.Tensor) -> tuple[GlobalBatch, slice]:
        """The whole effective batch from this rank's share, and where that share stands in it."""
        all_losses, own = gather_rows(losses)
        all_groups, _ = gather_rows(groups)
        all_states = gather_rows(states)[0] if self.loss.uses_hidden_states else None
        return GlobalBatch(all_losses, all_groups, self.cells, all_states), own

    def outcomes(self, buckets: list[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses (n,) and states (n, D) of a pass."""
        losses, states = zip(*(self.engine(batch, score=False) for batch in buckets), strict=True)
        return torch.cat(losses), torch.cat(states)

    def outcomes_without_gradient(self, passes: list[list[Batch]]) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        """Losses (n,) and states (n, D) over all passes, and the random state before each, so that the second time it
        drops the same."""
        random_states, outcomes = [], []
        with torch.no_grad():
            for buckets in passes:
                random_states.append(random_state())
                outcomes.append(self.outcomes(buckets))
        losses, states = zip(*outcomes, strict=True)
        return torch.cat(losses), torch.cat(states), random_states

    def outcomes_replayed(
        self, passes: list[list[Batch]], random_states: list[Any]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The outcomes again, with gradient, one pass at a time and each with the random state it had."""
        for buckets, state in zip(passes, random_states, strict=True):
            set_random_state(state)
            yield self.outcomes(buckets)

    def evaluate(self, split: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Scores (n, 7) and figures of a split; computed once a step."""
        step, result = self._scored.get(split, (None, None))
        if step == self.steps_done and result is not None:
            return result
        began = time.perf_counter()
        size = 2 * max(self.micro, 32)
        scores = score_examples(self.engine, self.examples[split], size, self.device)
        result = scores, evaluate(self.frame(split, scores))
        self._scored[split] = self.steps_done, result
        self.seconds["evaluate"] += time.perf_counter() - began
        return result

    def frame(self, split: str, scores: np.ndarray) -> pd.DataFrame:
        return prediction_frame(self.examples[split], scores, self.utterances)

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.engine.module.named_parameters() if p.requires_grad}

    def trainable_weights(self) -> dict[str, torch.Tensor]:
        """A copy of what is trained, by name, gathered from all ranks under ZeRO-3."""
        return self._copied(self._trainable())

    def adapter_weights(self) -> dict[str, torch.Tensor]:
        """What is trained, and the frozen position table of a tower that is trained: its module is exported whole."""
        parameters = self._trainable()
        if "audio_encoder" in self.plan.settings.backbone.trainable:
            parameters |= {name: p for name, p in self.engine.module.named_parameters() if "embed_positions" in name}
        return self._copied(parameters)

    def _copied(self, parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
        with deepspeed.zero.GatheredParameters(
            list(parameters.values()), enabled=self.plan.parallelism.zero_stage == 3
        ):
            return {name: p.detach().cpu().clone() for name, p in parameters.items()}

    def restore(self, weights: dict[str, torch.Tensor]) -> None:
        """Put back what ``trainable_weights`` copied, for scoring (the optimiser's state is left as it is)."""
        parameters = self._trainable()
        gathered = deepspeed.zero.GatheredParameters(
            list(parameters.values()), modifier_rank=0, enabled=self.plan.parallelism.zero_stage == 3
        )
        with gathered, torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name].to(parameter.device))
        self._scored.clear()

    def close(self) -> None:
        """Free what the run holds, but the base weights, which the next run in this process may use."""
        peft_model = self.engine.module.peft_model
        self.engine.destroy()
        self._sharded_loading = None
        del self.engine
        if self.plan.parallelism.zero_stage < 3:
            base_weights.give_back(peft_model, self.plan.backbone, self.plan.settings.backbone, self._dtype)
        if self.device.type == "cuda":  # the optimiser lies in cycles, and the next run needs its room
            gc.collect()
            torch.cuda.empty_cache()
