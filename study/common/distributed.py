"""The whole effective batch over ranks and micro-batches: gather the losses, then back-propagate weighted shares.

The gradient of J is that of sum_i w_i l_i with w_i = dJ/dl_i taken on the *whole* batch (``study.losses.base``), so all
that crosses ranks is one float and one integer an utterance. DeepSpeed averages gradients over ranks and divides by the
accumulation steps; the weights are scaled to undo both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """Concatenate the rows of all ranks in rank order; ranks may hold different numbers, also none.

    Args:
        rows: (n, ...) of this rank.

    Returns:
        (sum of n over ranks, ...), and where this rank's own rows stand in it.
    """
    rank, num_workers = world()
    if num_workers == 1:
        return rows, slice(0, len(rows))
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(num_workers)]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    counts = [int(size) for size in sizes]
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows
    shares = [torch.empty_like(padded) for _ in range(num_workers)]
    dist.all_gather(shares, padded)
    start = sum(counts[:rank])
    gathered = torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])
    return gathered, slice(start, start + len(rows))


def shared(value: Any) -> Any:
    """The first rank's value, on every rank."""
    if world()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def least(value: int, device: torch.device) -> int:
    """The smallest value that any rank has."""
    if world()[1] == 1:
        return value
    shared = torch.tensor(value, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MIN)
    return int(shared)
