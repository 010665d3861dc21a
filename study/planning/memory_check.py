"""Whether a plan's memory need fits this machine: printed before anything is loaded, refused if it cannot."""

from __future__ import annotations

import os
from dataclasses import replace

import pandas as pd
import torch
from rich.console import Console
from transformers import AutoConfig, Qwen2AudioConfig

from study.common.environment import free_memory
from study.common.errors import SettingsError
from study.common.groups import Modality
from study.config.settings import Parallelism, Settings
from study.models.memory_estimate import GB, MemoryNeed, Workload, memory_need
from study.models.pretrained import require_folder
from study.models.tiny import tiny_config
from study.planning.plan import StudyPlan

BYTES_A_TOKEN = 3  # of UTF-8 text, about
TEMPLATE_TOKENS = 25  # of the chat template around the prompt


def require_memory(plan: StudyPlan, workers: int | None, console: Console) -> None:
    """``require_room`` for the training of a plan."""
    request = plan.request
    load = load_of(request.settings, plan.corpus.utterances, request.parallelism.num_workers)
    require_room(request.settings, request.parallelism, load, workers, console)


def require_room(
    settings: Settings, parallelism: Parallelism, load: Workload, workers: int | None, console: Console
) -> None:
    """Print the need of a rank, and what is free.

    Args:
        workers: ranks on this machine at once, over all trials; None where a cluster will do the work, whose machines
            are not known yet.

    Raises:
        SettingsError: it cannot fit; with the remedies.
    """
    config = backbone_config(settings.backbone.spec)
    if config is None:
        console.print(f"{'memory':11}not known: the configuration of {settings.backbone.spec} cannot be read from here")
        return
    on_gpu = workers is None or torch.cuda.is_available()
    need = memory_need(config, settings.backbone, parallelism, load, on_gpu, settings.optimisation.epochs)
    console.print(f"{'memory':11}{need.describe()}")
    if workers is None:
        console.print(f"{'':11}(on GPUs; not compared with the cluster's)")
        return
    have = float(torch.cuda.mem_get_info()[0]) if on_gpu else free_memory()
    where = "on this GPU" if on_gpu else f"on this machine, for {workers} rank(s)"
    console.print(f"{'':11}{have / GB:.1f} GB are free {where}; not counted: runtime, buffers, fragments")
    errors = room_errors(need, settings, parallelism.zero_stage, have, 1 if on_gpu else workers, on_gpu)
    chosen = settings.optimisation.micro_batch_size or settings.computation.micro_batch_tokens
    if errors and not chosen and settings.optimisation.epochs:  # passes are then cut to fit, down to one utterance
        need = memory_need(config, settings.backbone, parallelism, replace(load, examples=1), on_gpu, epochs=1)
        errors = room_errors(need, settings, parallelism.zero_stage, have, 1 if on_gpu else workers, on_gpu)
        if not errors:
            console.print(f"{'':11}where a batch does not fit, a step is cut into several passes")
    if errors:
        raise SettingsError(errors)


def room_errors(
    need: MemoryNeed, settings: Settings, zero_stage: int, have: float, sharing: int, on_gpu: bool
) -> list[str]:
    """One fault with its remedies, or none.

    Args:
        have: bytes of one memory, a GPU's or the machine's.  sharing: ranks that share it.
    """
    if need.total * sharing <= have:
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
    return [
        f"memory: {sharing} rank(s) need at least {need.total * sharing / GB:.1f} GB and {have / GB:.1f} GB are free "
        f"({need.describe()}); use {', or '.join(remedies)}"
    ]


def backbone_config(spec: str) -> Qwen2AudioConfig | None:
    """The checkpoint's configuration; None where a hub cannot be reached from here.

    Raises:
        SettingsError: there is no such folder, or it is no Qwen2-Audio's.
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


def load_of(settings: Settings, utterances: pd.DataFrame, num_workers: int) -> Workload:
    """The longest pass over a corpus; text is counted by its bytes, since no tokenizer is loaded yet."""
    share = max(1, settings.optimisation.batch_size // num_workers)
    micro = min(settings.optimisation.micro_batch_size or share, share)
    text = len((settings.prompt.system + settings.prompt.asked()).encode())
    if Modality.SPEECH_TEXT in settings.modalities:
        text += len(settings.prompt.transcript.encode()) + int(
            utterances["transcript"].str.encode("utf-8").str.len().max()
        )
    return Workload(
        examples=micro,
        scored=2 * max(micro, 32),
        clip_seconds=float((utterances["samples"] / utterances["sample_rate"]).max()),
        text_tokens=TEMPLATE_TOKENS + text // BYTES_A_TOKEN,
    )
