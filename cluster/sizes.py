"""What a card can hold of Qwen2-Audio-7B: ``python cluster/sizes.py`` prints the table of README.md.

By ``study.models.memory_estimate``, the function that a sweep refuses a plan by, with a tenth of the card left for what
it does not count. A batch is 64 utterances over all GPUs of a trial; a cell is how many of its share a GPU can take at
once.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

if __name__ == "__main__":  # run as a file: the root is where ``study`` is
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

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
FIRST = Workload(examples=1, scored=64, clip_seconds=CLIP_SECONDS[0], text_tokens=TEXT_TOKENS)


@dataclass(frozen=True)
class Size:
    """GPUs of one trial.  card: bytes of each."""

    card: float
    parallelism: Parallelism

    def in_words(self) -> str:
        num_workers, stage = self.parallelism.num_workers, self.parallelism.zero_stage
        gpus = f"{num_workers} × " if num_workers > 1 else ""
        return f"{gpus}{self.card / GB:.0f} GB | `--num-workers {num_workers} --zero-stage {stage}`"


SIZES = tuple(
    Size(card * GB, Parallelism(num_workers=num_workers, zero_stage=stage))
    for card, num_workers, stage in (
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
def _one(parallelism: Parallelism) -> MemoryNeed:
    return memory_need(CONFIG, SETTINGS, parallelism, FIRST, on_gpu=True, epochs=1)


def needs(size: Size, clip_seconds: float) -> list[MemoryNeed]:
    """The need of a GPU that takes 1, 2, ... utterances of its share at once; only activations and scores grow."""
    share, _ = micro_batches(Optimisation(), size.parallelism.num_workers)
    loads = [
        Workload(examples=n, scored=2 * max(n, 32), clip_seconds=clip_seconds, text_tokens=TEXT_TOKENS)
        for n in range(1, share + 1)
    ]
    one = _one(size.parallelism)
    return [
        replace(
            one,
            activations=activations(CONFIG, SETTINGS, load, one.bytes_each),
            scoring=one.scoring * load.scored / FIRST.scored,
        )
        for load in loads
    ]


def at_once(size: Size, clip_seconds: float) -> int:
    """The most utterances that fit; 0 if not one does."""
    return sum(need.total <= (1 - RESERVED_FRACTION) * size.card for need in needs(size, clip_seconds))


def table() -> str:
    """Markdown: a row each size."""
    clips = " | ".join(f"{seconds:g} s" for seconds in CLIP_SECONDS)
    lines = [f"| a trial on | flags | {clips} |", "| --- | --- |" + " ---: |" * len(CLIP_SECONDS)]
    for size in SIZES:
        share, _ = micro_batches(Optimisation(), size.parallelism.num_workers)
        cells = [at_once(size, seconds) for seconds in CLIP_SECONDS]
        words = ("none" if not n else f"all {n}" if n == share else str(n) for n in cells)
        lines.append(f"| {size.in_words()} | {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
