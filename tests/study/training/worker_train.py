"""Run under torchrun by ``test_checkpointing``: train one run. usage: worker_train.py PLAN_JSON"""

from __future__ import annotations

import sys

import torch.distributed as dist

from study.training.trainer import train
from tests.study.training.worker_plan import read_plan


def main() -> None:
    plan, _ = read_plan(sys.argv[1])
    train(plan, seed=0, report=lambda row: print(row, flush=True))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
