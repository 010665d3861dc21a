"""A model of step time and communication: ZeRO-2 against ZeRO-3, and trials at once against ranks a trial.

``python -m cluster.scaling_model`` prints the tables of ``cluster/README.md``. Traffic follows from parameter counts;
the seconds of a step are arithmetic at an assumed utilisation plus an assumed overhead, and have not been measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

BF16 = 2  # bytes
FLOP_AN_EXAMPLE = 3.73e12  # Qwen2-Audio-7B, LoRA, states of the tower kept, 3.6 s of speech and 50 tokens of text
CARD_FLOPS = 790e12  # an H200 in bf16


@dataclass(frozen=True)
class Model:
    """Attributes: parameters of the backbone, and those that are trained."""

    parameters: float
    trained: float


SEVEN_B = Model(parameters=8.4e9, trained=16.8e6)


@dataclass(frozen=True)
class Machine:
    """Attributes:

    bandwidth: bytes a second that a GPU sends to others.
    utilisation: share of ``CARD_FLOPS`` that a step reaches while it computes.
    overhead: seconds of a step that no GPU shortens: launches, gathering losses, the optimiser.
    """

    bandwidth: float
    utilisation: float = 0.5
    overhead: float = 0.03


NVLINK, NETWORK = Machine(450e9), Machine(50e9)


def traffic(model: Model, zero_stage: int, num_workers: int, passes: int = 1) -> float:
    """Bytes that a rank sends in one step, by ring algorithms.

    Stages 0 and 1 and 2 reduce the trained gradients (2, once each pass) and share the new weights; stage 3 also
    gathers every weight for each forward and each backward pass, with several passes for the one without gradient too.

    >>> f"{traffic(SEVEN_B, 2, 8) / 1e6:.0f} MB, {traffic(SEVEN_B, 3, 8) / 1e9:.1f} GB"
    '59 MB, 29.4 GB'
    """
    share = (num_workers - 1) / num_workers
    trained = share * BF16 * model.trained
    if zero_stage < 3:
        return trained * ((passes if zero_stage == 2 else 1) + 1)
    gathers = 2 * passes if passes == 1 else 3 * passes
    return share * BF16 * model.parameters * gathers + trained * passes


def step_seconds(model: Model, machine: Machine, zero_stage: int, num_workers: int, batch_size: int = 64) -> float:
    """Of a batch over ``ranks``, nothing of the communication hidden behind arithmetic."""
    arithmetic = batch_size / num_workers * FLOP_AN_EXAMPLE / (machine.utilisation * CARD_FLOPS)
    return arithmetic + machine.overhead + traffic(model, zero_stage, num_workers) / machine.bandwidth


def traffic_table() -> str:
    """Markdown: bytes a rank sends in a step, and how long that takes."""
    lines = [
        "| ranks | ZeRO-2 a step | NVLink | network | ZeRO-3 a step | NVLink | network |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for num_workers in (2, 8, 64):
        cells = []
        for stage in (2, 3):
            sent = traffic(SEVEN_B, stage, num_workers)
            times = [f"{1000 * sent / machine.bandwidth:.1f} ms" for machine in (NVLINK, NETWORK)]
            cells += [f"{sent / 1e6:,.0f} MB", *times]
        lines.append(f"| {num_workers} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def trials_table() -> str:
    """Markdown: GPUs shared as trials at once times ranks a trial, by a trial's step and by steps a second of all."""
    lines = [
        "| GPUs | trials at once × ranks | a step of a trial | steps/s of all, ZeRO-2 | ZeRO-3 |",
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
    sys.stdout.write(f"{traffic_table()}\n{trials_table()}")
