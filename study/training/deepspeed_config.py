"""The DeepSpeed configuration of a run, derived from its settings and its parallelism.

Users never write one. ``python -m study.training`` prints it.
"""

from __future__ import annotations

from typing import Any

from study.config.settings import Optimisation, Parallelism


def micro_batches(optimisation: Optimisation, num_workers: int) -> tuple[int, int]:
    """Return the utterances of a worker's micro-batch and the number of micro-batches in a step.

    >>> micro_batches(Optimisation(batch_size=64, micro_batch_size=3), num_workers=8)
    (3, 3)
    """
    share = optimisation.batch_size // num_workers
    size = min(optimisation.micro_batch_size or share, share)
    return size, -(-share // size)


def deepspeed_config(optimisation: Optimisation, parallelism: Parallelism, on_gpu: bool) -> dict[str, Any]:
    """Return the configuration passed to ``deepspeed.initialize``: bf16 on GPUs, float32 on the CPU."""
    micro_batch_size, accumulation_steps = micro_batches(optimisation, parallelism.num_workers)
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": optimisation.gradient_clipping,
        "bf16": {"enabled": on_gpu},
        "zero_optimization": {"stage": parallelism.zero_stage, "overlap_comm": on_gpu},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
