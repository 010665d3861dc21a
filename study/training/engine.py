"""DeepSpeed's configuration of a run, which settings and placement decide; nobody writes one by hand.

``python -m study.training.engine DIR`` writes those of one and of eight GPUs a trial to look at: ``cluster/deepspeed``
holds them. A run makes its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from study.config.settings import Optimisation, Parallelism

SHOWN = tuple(Parallelism(num_workers=num_workers, zero_stage=stage) for num_workers in (1, 8) for stage in (2, 3))


def micro_batches(optimisation: Optimisation, num_workers: int) -> tuple[int, int]:
    """Examples of a rank in one pass, and passes a step.

    >>> micro_batches(Optimisation(batch_size=64, micro_batch_size=3), num_workers=8)
    (3, 3)
    """
    share = optimisation.batch_size // num_workers
    micro = min(optimisation.micro_batch_size or share, share)
    return micro, -(-share // micro)


def engine_config(optimisation: Optimisation, parallelism: Parallelism, on_gpu: bool) -> dict[str, Any]:
    """What ``deepspeed.initialize`` gets; bf16 on GPUs, float32 on the CPU."""
    micro, accumulation = micro_batches(optimisation, parallelism.num_workers)
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": optimisation.gradient_clipping,
        "bf16": {"enabled": on_gpu},
        "zero_optimization": {"stage": parallelism.zero_stage, "overlap_comm": on_gpu},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def shown() -> dict[str, str]:
    """The files of ``cluster/deepspeed`` by name: the paper's optimisation on GPUs."""
    return {
        f"zero{parallelism.zero_stage}-{parallelism.num_workers}gpu.json": json.dumps(
            engine_config(Optimisation(), parallelism, on_gpu=True), indent=1
        )
        + "\n"
        for parallelism in SHOWN
    }


def main(arguments: list[str]) -> int:
    """Write ``shown`` into the folder of the only argument."""
    for name, text in shown().items():
        Path(arguments[0], name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


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
