"""Check that the memory which a plan needs fits on this machine, before anything is loaded."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import torch
from transformers import AutoConfig, Qwen2AudioConfig

from study.common.environment import free_memory
from study.common.errors import SettingsError, plural
from study.common.groups import Modality
from study.config.settings import Parallelism, Settings
from study.models.memory_estimate import GB, MemoryNeed, Workload, memory_need
from study.models.pretrained import require_folder
from study.models.tiny import tiny_config
from study.planning.plan import StudyPlan

if TYPE_CHECKING:
    from rich.console import Console

BYTES_PER_TOKEN = 3  # of UTF-8 text, approximately
TEMPLATE_TOKENS = 25  # of the chat template around the prompt


def require_plan_memory(plan: StudyPlan, workers: int | None, console: Console) -> None:
    """Check the memory for the training of a plan; see ``require_memory``."""
    request = plan.request
    workload = largest_workload(request.settings, plan.corpus.utterances, request.parallelism.num_workers)
    require_memory(request.settings, request.parallelism, workload, workers, console)


def require_memory(
    settings: Settings, parallelism: Parallelism, workload: Workload, workers: int | None, console: Console
) -> None:
    """Print the memory that a worker needs and the memory that is free.

    Args:
        workload: the largest micro-batch.
        workers: number of workers on this machine at the same time, over all trials; None if a cluster does the work,
            whose machines are not known yet.

    Raises:
        SettingsError: the memory is too small; the message names remedies.
    """
    config = backbone_config(settings.backbone.spec)
    if config is None:
        spec = settings.backbone.spec
        console.print(f"{'memory':11}unknown, since the configuration of {spec} cannot be read from this machine")
        return
    on_gpu = workers is None or torch.cuda.is_available()
    need = memory_need(config, settings.backbone, parallelism, workload, on_gpu, settings.optimisation.epochs)
    console.print(f"{'memory':11}{need.describe()}")
    if workers is None:
        console.print(f"{'':11}(on GPUs; not compared with those of the cluster)")
        return
    free = float(torch.cuda.mem_get_info()[0]) if on_gpu else free_memory()
    location = "on this GPU" if on_gpu else f"on this machine, for {plural(workers, 'worker')}"
    console.print(f"{'':11}{free / GB:.1f} GB are free {location}; runtime, buffers and fragmentation are not included")
    sharing = 1 if on_gpu else workers
    errors = memory_errors(need, settings, parallelism.zero_stage, free, sharing, on_gpu)
    fixed = settings.optimisation.micro_batch_size or settings.computation.micro_batch_tokens
    if errors and not fixed and settings.optimisation.epochs:  # passes can be as small as one utterance
        need = memory_need(config, settings.backbone, parallelism, replace(workload, examples=1), on_gpu, epochs=1)
        errors = memory_errors(need, settings, parallelism.zero_stage, free, sharing, on_gpu)
        if not errors:
            console.print(f"{'':11}a step is cut into several passes where a batch does not fit")
    if errors:
        raise SettingsError(errors)


def memory_errors(
    need: MemoryNeed, settings: Settings, zero_stage: int, free: float, sharing: int, on_gpu: bool
) -> list[str]:
    """Return an error with remedies if the memory is too small.

    Args:
        free: bytes of one memory, a GPU's or the machine's.
        sharing: number of workers that share this memory.
    """
    if need.total * sharing <= free:
        return []
    remedies = []
    if need.activations > 0.1 * need.total:
        remedies.append("a smaller optimisation.micro_batch_size")
    if zero_stage < 3 and on_gpu:
        remedies.append("--zero-stage 3 with more --num-workers, which shards weights")
    if sharing > 1:
        remedies.append("fewer --num-workers")
    if need.gradients + need.optimiser > 0.1 * need.total:
        remedies.append("a smaller backbone.lora_rank, or less in backbone.trainable")
    remedies.append("a larger GPU" if on_gpu else "a machine with more memory")
    needed, workers = need.total * sharing / GB, "1 worker needs" if sharing == 1 else f"{sharing} workers need"
    return [
        f"memory: {workers} at least {needed:.1f} GB, but {free / GB:.1f} GB are free ({need.describe()}); use "
        f"{', or '.join(remedies)}"
    ]


def backbone_config(spec: str) -> Qwen2AudioConfig | None:
    """Return the configuration of a checkpoint, or None if the hub cannot be reached from this machine.

    Raises:
        SettingsError: the folder does not exist, or is not a Qwen2-Audio checkpoint.
    """
    if spec == "tiny":
        return tiny_config()
    require_folder(spec)
    try:
        config = AutoConfig.from_pretrained(spec)
    except (OSError, ValueError) as error:
        if os.path.isdir(spec):
            raise SettingsError([f"--backbone {spec}: its config.json cannot be read ({error})"]) from error
        return None
    if not isinstance(config, Qwen2AudioConfig):
        raise SettingsError([f"--backbone {spec}: is a {config.model_type}; only Qwen2-Audio can be trained"])
    return config


def largest_workload(settings: Settings, utterances: pd.DataFrame, num_workers: int) -> Workload:
    """Return the largest micro-batch of a corpus. Tokens are estimated from bytes, since no tokenizer is loaded yet."""
    share = max(1, settings.optimisation.batch_size // num_workers)
    micro = min(settings.optimisation.micro_batch_size or share, share)
    text_bytes = len((settings.prompt.system + settings.prompt.question_with_labels()).encode())
    if Modality.SPEECH_TEXT in settings.modalities:
        longest = max(len(transcript.encode()) for transcript in utterances["transcript"])
        text_bytes += len(settings.prompt.transcript.encode()) + longest
    return Workload(
        examples=micro,
        scored=2 * max(micro, 32),
        clip_seconds=float((utterances["samples"] / utterances["sample_rate"]).max()),
        text_tokens=TEMPLATE_TOKENS + text_bytes // BYTES_PER_TOKEN,
    )
