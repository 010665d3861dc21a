"""Whether a plan's memory need fits this machine: printed before anything is loaded, refused if it cannot."""

from __future__ import annotations

import os

import torch
from rich.console import Console
from transformers import AutoConfig, Qwen2AudioConfig

from study.groups import Modality
from study.memory import GB, Load, MemoryNeed, memory_need
from study.planning import StudyPlan
from study.settings import Settings, SettingsError
from study.tiny import tiny_config

BYTES_A_TOKEN = 3  # of UTF-8 text, about
TEMPLATE_TOKENS = 25  # of the chat template around the prompt


def require_memory(plan: StudyPlan, workers: int | None, console: Console) -> None:
    """Print the need of a rank, and what there is.

    Args:
        workers: ranks on this machine at once, over all trials; None where a cluster will do the work, whose machines
            are not known yet.

    Raises:
        SettingsError: it cannot fit; with the remedies.
    """
    settings = plan.draft.settings
    config = backbone_config(settings.backbone.spec)
    if config is None:
        console.print(f"{'memory':11}not known: the configuration of {settings.backbone.spec} cannot be read from here")
        return
    on_gpu = workers is None or torch.cuda.is_available()
    need = memory_need(
        config, settings.backbone, plan.draft.placement, load_of(plan), on_gpu, settings.optimisation.epochs
    )
    console.print(f"{'memory':11}{need.in_words()}")
    if workers is None:
        console.print(f"{'':11}(on GPUs; not compared with the cluster's)")
        return
    have = _gpu_bytes() if on_gpu else _host_bytes()
    where = "each GPU" if on_gpu else f"this machine, for {workers} ranks"
    console.print(f"{'':11}{have / GB:.1f} GB has {where}; not counted: runtime, buffers, fragments")
    faults = room_faults(need, settings, plan.draft.placement.zero_stage, have, 1 if on_gpu else workers)
    if faults:
        raise SettingsError(faults)


def room_faults(need: MemoryNeed, settings: Settings, zero_stage: int, have: float, sharing: int) -> list[str]:
    """One fault with its remedies, or none.

    Args:
        have: bytes of one memory.  sharing: ranks that share it.
    """
    if need.total * sharing <= have:
        return []
    remedies = []
    if need.activations > 0.1 * need.total:
        remedies.append("a smaller optimisation.micro_batch_size")
    if zero_stage < 3 and sharing == 1:
        remedies.append("--zero-stage 3 with more --ranks, which shards weights")
    if sharing > 1:
        remedies.append("fewer --ranks")
    remedies.append("a machine with more memory" if sharing > 1 or zero_stage == 3 else "a larger GPU")
    return [
        f"memory: {sharing} rank(s) need at least {need.total * sharing / GB:.1f} GB and there are {have / GB:.1f} GB "
        f"({need.in_words()}); use {', or '.join(remedies)}"
    ]


def backbone_config(spec: str) -> Qwen2AudioConfig | None:
    """The checkpoint's configuration; None where it cannot be read, or is no Qwen2-Audio's (loading it says why)."""
    if spec == "tiny":
        return tiny_config()
    try:
        config = AutoConfig.from_pretrained(spec)
    except (OSError, ValueError):
        return None
    return config if isinstance(config, Qwen2AudioConfig) else None


def load_of(plan: StudyPlan) -> Load:
    """The longest pass of a plan; text is counted by its bytes, since no tokenizer is loaded yet."""
    settings, utterances = plan.draft.settings, plan.corpus.utterances
    share = max(1, settings.optimisation.batch_size // plan.draft.placement.ranks)
    micro = min(settings.optimisation.micro_batch_size or share, share)
    text = len((settings.prompt.system + settings.prompt.question).encode())
    if Modality.SPEECH_TEXT in settings.modalities:
        text += len(settings.prompt.transcript.encode()) + int(
            utterances["transcript"].str.encode("utf-8").str.len().max()
        )
    return Load(
        examples=micro,
        scored=2 * max(micro, 32),
        clip_seconds=float((utterances["samples"] / utterances["sample_rate"]).max()),
        text_tokens=TEMPLATE_TOKENS + text // BYTES_A_TOKEN,
    )


def _gpu_bytes() -> float:
    return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def _host_bytes() -> float:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
