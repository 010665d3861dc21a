"""Run under torchrun by ``test_checkpointing``: train runs one after the other.

usage: worker_train.py KILL_AFTER PLAN.json ...   (the last worker kills itself after epoch KILL_AFTER, if not 0)
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch.distributed as dist

from study.training.trainer import train
from tests.study.training.worker_plan import read_plan


def main() -> None:
    kill_after = int(sys.argv[1])

    def report(row: dict[str, Any]) -> None:
        print(row, flush=True)
        if row["epoch"] == kill_after and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    for path in sys.argv[2:]:
        plan, _ = read_plan(path)
        train(plan, seed=0, report=report)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
