"""The DeepSpeed engine of a run: the model, its optimiser, the learning-rate schedule, and weights in and out."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable

os.environ.setdefault("DS_ACCELERATOR", "cuda" if os.path.exists("/dev/nvidiactl") else "cpu")

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers.integrations import HfDeepSpeedConfig

from study.common.distributed import minimum
from study.common.environment import free_memory
from study.config.settings import Optimisation
from study.models.lora import cache_base_model, load_model
from study.models.memory_estimate import RESERVED_FRACTION, bytes_per_token
from study.models.qwen2_audio import EmotionModel
from study.training.deepspeed_config import deepspeed_config
from study.training.run_data import RunData
from study.training.run_plan import RunPlan


class Engine:
    """A model that DeepSpeed trains.

    Args:
        total_steps: optimiser steps of the whole run, for the learning-rate schedule.

    Attributes:
        deepspeed: the engine; calling it runs the model's forward pass.
        model: the model inside it. Under ZeRO-3 each worker holds a shard of its weights.
        startup: seconds spent on loading the model and on creating the engine.
    """

    def __init__(self, plan: RunPlan, data: RunData, total_steps: int, device: torch.device, dtype: torch.dtype):
        self.plan, self.device, self.dtype = plan, device, dtype
        settings, optimisation = plan.settings, plan.settings.optimisation
        config = deepspeed_config(optimisation, plan.parallelism, on_gpu=device.type == "cuda")
        # transformers holds this object by weak reference and shards the weights of ZeRO-3 while it loads them
        self._zero3_loading = HfDeepSpeedConfig(config) if plan.parallelism.zero_stage == 3 else None
        began = time.perf_counter()
        peft_model = load_model(plan.backbone, settings.backbone, dtype)
        self.model = EmotionModel(peft_model, data.answers, data.pad_token_id, settings.computation).to(device)
        self.startup = {"model": time.perf_counter() - began}
        trainable = list(self._trainable().values())
        optimizer = torch.optim.AdamW(
            trainable, lr=optimisation.learning_rate, weight_decay=optimisation.weight_decay, fused=True
        )
        self.deepspeed, *_ = deepspeed.initialize(
            model=self.model,
            model_parameters=trainable,
            optimizer=optimizer,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, linear_schedule(optimisation, total_steps)),
            config=config,
        )
        self.startup["engine"] = time.perf_counter() - began - self.startup["model"]

    def tokens_that_fit(self) -> int:
        """Return the tokens of a training micro-batch that fit in memory on every worker, the model being loaded."""
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0] if on_gpu else free_memory() / (os.cpu_count() or 1)
        each = bytes_per_token(self.model.backbone.config, self.plan.settings.backbone, self.dtype.itemsize)
        return max(1, minimum(int((1 - RESERVED_FRACTION) * free / each), self.device))

    def trainable_weights(self) -> dict[str, Tensor]:
        """Return CPU copies of the trained weights by name, gathered from all workers under ZeRO-3."""
        return self._copied(self._trainable())

    def adapter_weights(self) -> dict[str, Tensor]:
        """Return the weights of an exported adapter, as ``trainable_weights`` does.

        A trained audio encoder is exported as a whole module, with its frozen position table.
        """
        parameters = self._trainable()
        if "audio_encoder" in self.plan.settings.backbone.trainable:
            parameters |= {name: p for name, p in self.model.named_parameters() if "embed_positions" in name}
        return self._copied(parameters)

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Load the weights that ``trainable_weights`` returned. The optimiser's state is not changed."""
        parameters = self._trainable()
        gathered = deepspeed.zero.GatheredParameters(
            list(parameters.values()), modifier_rank=0, enabled=self.plan.parallelism.zero_stage == 3
        )
        with gathered, torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name].to(parameter.device))

    def close(self) -> None:
        """Free the memory of the engine. The frozen base model stays cached for the next run of this process."""
        peft_model = self.model.peft_model
        self.deepspeed.destroy()
        self._zero3_loading = None
        del self.deepspeed, self.model
        if self.plan.parallelism.zero_stage < 3:
            cache_base_model(peft_model, self.plan.backbone, self.plan.settings.backbone, self.dtype)
        if self.device.type == "cuda":  # the optimiser is part of reference cycles
            gc.collect()
            torch.cuda.empty_cache()

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _copied(self, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        with deepspeed.zero.GatheredParameters(
            list(parameters.values()), enabled=self.plan.parallelism.zero_stage == 3
        ):
            return {name: p.detach().cpu().clone() for name, p in parameters.items()}


def linear_schedule(optimisation: Optimisation, total_steps: int) -> Callable[[int], float]:
    """Return the learning-rate factor as a function of the step: linear warm-up, then linear decay to 0.

    The schedule is ours; the paper's is not known to us.

    >>> factor = linear_schedule(Optimisation(warmup_fraction=0.5), total_steps=4)
    >>> [factor(step) for step in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = max(1, round(optimisation.warmup_fraction * total_steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (total_steps - step) / max(1, total_steps - warmup))

    return factor


def join_process_group() -> None:
    """Join the process group that Ray or torchrun prepared, or create a group of one, since DeepSpeed needs a group."""
    # On CPU, DeepSpeed would spend half a minute compiling a shared-memory all-reduce. Without it, it uses gloo.
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
