"""Model the time and communication of a step: ZeRO-2 or ZeRO-3, more trials at once or more workers per trial.

``python -m cluster.scaling_model`` prints the tables of docs/clusters.md as Markdown. Communication follows from
parameter counts. The time of a step is arithmetic at an assumed utilisation plus an assumed overhead; none is measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

BF16 = 2  # bytes
FLOP_PER_EXAMPLE = 3.73e12  # Qwen2-Audio-7B, LoRA, cached encoder states, 3.6 s of speech and 50 tokens of text
GPU_FLOPS = 790e12  # an H200 in bf16


@dataclass(frozen=True)
class Model:
    """Parameters of the backbone, and those that are trained."""

    parameters: float
    trained: float


SEVEN_B = Model(parameters=8.4e9, trained=16.8e6)


@dataclass(frozen=True)
class Machine:
    """How fast a step is.

    Attributes:
        bandwidth: bytes per second that a GPU sends to others.
        utilisation: share of ``GPU_FLOPS`` that a step reaches while it computes.
        overhead: seconds of a step that no further GPU shortens: kernel launches, gathering losses, the optimiser.
    """

    bandwidth: float
    utilisation: float = 0.5
    overhead: float = 0.03


NVLINK, NETWORK = Machine(450e9), Machine(50e9)


def bytes_sent(model: Model, zero_stage: int, num_workers: int, micro_batches: int = 1) -> float:
    """Return the bytes that a worker sends in one step, with ring algorithms.

    Stages 0 to 2 reduce the trained gradients (stage 2 once per micro-batch) and share the new weights. Stage 3 also
    gathers every weight for each forward and each backward pass, and if there are several micro-batches for the forward
    pass without gradient too.

    >>> f"{bytes_sent(SEVEN_B, 2, 8) / 1e6:.0f} MB, {bytes_sent(SEVEN_B, 3, 8) / 1e9:.1f} GB"
    '59 MB, 29.4 GB'
    """
    share = (num_workers - 1) / num_workers
    trained = share * BF16 * model.trained
    if zero_stage < 3:
        return trained * ((micro_batches if zero_stage == 2 else 1) + 1)
    gathers = 2 if micro_batches == 1 else 3 * micro_batches
    return share * BF16 * model.parameters * gathers + trained * micro_batches


def step_seconds(model: Model, machine: Machine, zero_stage: int, num_workers: int, batch_size: int = 64) -> float:
    """Return the seconds of a step if no communication overlaps with arithmetic."""
    arithmetic = batch_size / num_workers * FLOP_PER_EXAMPLE / (machine.utilisation * GPU_FLOPS)
    return arithmetic + machine.overhead + bytes_sent(model, zero_stage, num_workers) / machine.bandwidth


def communication_table() -> str:
    """Return a Markdown table of the bytes that a worker sends in a step, and of the time that it takes."""
    lines = [
        "| workers | ZeRO-2 per step | NVLink | network | ZeRO-3 per step | NVLink | network |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for num_workers in (2, 8, 64):
        cells = []
        for stage in (2, 3):
            sent = bytes_sent(SEVEN_B, stage, num_workers)
            times = [f"{1000 * sent / machine.bandwidth:.1f} ms" for machine in (NVLINK, NETWORK)]
            cells += [f"{sent / 1e6:,.0f} MB", *times]
        lines.append(f"| {num_workers} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def throughput_table() -> str:
    """Return a Markdown table of how GPUs are shared by trials: time of a step, and steps per second of all trials."""
    lines = [
        "| GPUs | trials at once × workers | step of a trial | steps/s of all trials, ZeRO-2 | ZeRO-3 |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for gpus in (8, 64):
        for num_workers in (1, 2, 4, 8, 64):
            if num_workers <= gpus:
                machine = NVLINK if num_workers <= 8 else NETWORK
                two, three = (step_seconds(SEVEN_B, machine, stage, num_workers) for stage in (2, 3))
                rates = " | ".join(f"{gpus / num_workers / seconds:.1f}" for seconds in (two, three))
                lines.append(f"| {gpus} | {gpus // num_workers} × {num_workers} | {1000 * two:.0f} ms | {rates} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{communication_table()}\n{throughput_table()}")
