"""Collective operations over the ranks of a process group.

With weights w_i = dJ/dl_i taken over the *global* batch, the gradient of J is that of sum_i w_i l_i
(``study.losses.base``), so ranks exchange only one loss and one group per utterance, and the hidden states for losses
that use them. DeepSpeed averages gradients over ranks, so each rank multiplies its weights by the number of ranks.
Gradients are summed over accumulation passes, so the weights need no correction for them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """Return (rank, number of ranks); (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """Concatenate the rows of all ranks in rank order.

    Args:
        rows: (n, ...) of this rank; n may differ between ranks and may be 0.

    Returns:
        (sum of n over ranks, ...), and the slice of this rank's own rows.
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


def broadcast(value: Any) -> Any:
    """Return the value of rank 0 on every rank; it must be picklable."""
    if world()[1] == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def minimum(value: int, device: torch.device) -> int:
    """Return the smallest value over all ranks."""
    if world()[1] == 1:
        return value
    smallest = torch.tensor(value, device=device)
    dist.all_reduce(smallest, dist.ReduceOp.MIN)
    return int(smallest)
