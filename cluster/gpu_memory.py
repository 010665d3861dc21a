"""Compute how many utterances of Qwen2-Audio-7B fit on a GPU: ``python -m cluster.gpu_memory`` prints Markdown.

The table is in docs/clusters.md. It uses ``study.models.memory_estimate``, as the check of a plan before a sweep does,
and leaves a tenth of the memory free for what the estimate omits. The global batch has 64 utterances. A cell is the
number of utterances of its share that a GPU can process at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from transformers import Qwen2AudioConfig

from study.config.settings import BackboneSettings, Optimisation, Parallelism
from study.models.memory_estimate import (
    GB,
    RESERVED_FRACTION,
    TEXT_CONFIG_7B,
    MemoryNeed,
    Workload,
    activations,
    memory_need,
)
from study.training.deepspeed_config import micro_batches

CLIP_SECONDS = (3.6, 10.0, 30.0)
TEXT_TOKENS = 50
CONFIG, SETTINGS = Qwen2AudioConfig(text_config=TEXT_CONFIG_7B), BackboneSettings()
SINGLE = Workload(examples=1, scored=64, clip_seconds=CLIP_SECONDS[0], text_tokens=TEXT_TOKENS)


@dataclass(frozen=True)
class Hardware:
    """The GPUs of one trial.

    Attributes:
        memory: bytes of each GPU.
    """

    memory: float
    parallelism: Parallelism

    def cells(self) -> str:
        """Return the first two cells of the table's row."""
        num_workers, stage = self.parallelism.num_workers, self.parallelism.zero_stage
        gpus = f"{num_workers} × " if num_workers > 1 else ""
        return f"{gpus}{self.memory / GB:.0f} GB | `--num-workers {num_workers} --zero-stage {stage}`"


HARDWARE = tuple(
    Hardware(memory * GB, Parallelism(num_workers=num_workers, zero_stage=stage))
    for memory, num_workers, stage in (
        (24, 1, 2),
        (24, 8, 2),
        (24, 8, 3),
        (80, 1, 2),
        (80, 8, 2),
        (80, 8, 3),
        (141, 1, 2),
    )
)


@cache
def _need_of_single(parallelism: Parallelism) -> MemoryNeed:
    return memory_need(CONFIG, SETTINGS, parallelism, SINGLE, on_gpu=True, epochs=1)


def memory_needs(hardware: Hardware, clip_seconds: float) -> list[MemoryNeed]:
    """Return the need of a GPU that processes 1, 2, ... utterances of its share at once."""
    share, _ = micro_batches(Optimisation(), hardware.parallelism.num_workers)
    workloads = [
        Workload(examples=n, scored=2 * max(n, 32), clip_seconds=clip_seconds, text_tokens=TEXT_TOKENS)
        for n in range(1, share + 1)
    ]
    single = _need_of_single(hardware.parallelism)
    return [  # only activations and scores depend on the workload
        replace(
            single,
            activations=activations(CONFIG, SETTINGS, workload, single.bytes_each),
            scoring=single.scoring * workload.scored / SINGLE.scored,
        )
        for workload in workloads
    ]


def max_utterances(hardware: Hardware, clip_seconds: float) -> int:
    """Return how many utterances fit at once; 0 if not even one does."""
    limit = (1 - RESERVED_FRACTION) * hardware.memory
    return sum(need.total <= limit for need in memory_needs(hardware, clip_seconds))


def memory_table() -> str:
    """Return a Markdown table with a row per hardware."""
    clips = " | ".join(f"{seconds:g} s" for seconds in CLIP_SECONDS)
    lines = [f"| GPUs of a trial | options | {clips} |", "| --- | --- |" + " ---: |" * len(CLIP_SECONDS)]
    for hardware in HARDWARE:
        share, _ = micro_batches(Optimisation(), hardware.parallelism.num_workers)
        numbers = [max_utterances(hardware, seconds) for seconds in CLIP_SECONDS]
        texts = ("none" if not n else f"all {n}" if n == share else str(n) for n in numbers)
        lines.append(f"| {hardware.cells()} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(memory_table(), end="")
