"""Print the DeepSpeed configuration that a run uses, which its settings and its parallelism determine."""

from __future__ import annotations

import argparse
import json

from study.config.settings import Optimisation, Parallelism
from study.training.deepspeed_config import deepspeed_config

ZERO_STAGES = (0, 1, 2, 3)


def main(arguments: list[str] | None = None) -> int:
    """Print the configuration as JSON and return the exit status."""
    parser = make_parser()
    flags = parser.parse_args(arguments)
    optimisation = Optimisation(batch_size=flags.batch_size, micro_batch_size=flags.micro_batch_size)
    parallelism = Parallelism(num_workers=flags.num_workers, zero_stage=flags.zero_stage)
    print(json.dumps(deepspeed_config(optimisation, parallelism, on_gpu=not flags.cpu), indent=1))
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study.training", description=__doc__)
    parser.add_argument("--num-workers", type=int, default=1, help="workers per trial (default: 1)")
    parser.add_argument("--zero-stage", type=int, choices=ZERO_STAGES, default=2, help="default: 2")
    parser.add_argument("--batch-size", type=int, default=64, help="utterances of the global batch (default: 64)")
    parser.add_argument(
        "--micro-batch-size",
        type=int,
        default=None,
        help="utterances of a worker's micro-batch (default: its whole share of the global batch)",
    )
    parser.add_argument("--cpu", action="store_true", help="the configuration for CPUs (default: for GPUs, in bf16)")
    return parser
