"""The records of training steps and epochs: rows of ``steps.parquet`` and ``epochs.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.common.groups import Cell
from study.losses.base import LossValue, SampleWeights


def step_record(
    cells: Sequence[Cell], fairness_weights: Sequence[float], value: LossValue, sample_weights: SampleWeights
) -> dict[str, Any]:
    """Return the row of one step.

    Args:
        fairness_weights: lambda_t: none, one, or one a cell.
        value, sample_weights: of the global batch.

    Returns:
        ``loss`` (the risk, in nats) and ``penalty`` (in nats^p); ``fairness_weight``, the mean if there are several,
        and then also ``fairness_weight/CELL``; ``gap/CELL``, the signed estimated gap in nats, None if undefined;
        ``active``, the cell with the largest penalty; ``negative_weights``, the share of utterances with a negative
        weight.
    """
    names = [str(cell) for cell in cells]
    by_cell = zip(names, fairness_weights, strict=True) if len(fairness_weights) > 1 else ()
    gaps = zip(names, value.signed_gaps.tolist(), value.present.tolist(), strict=True)
    active = int(value.active)
    return {
        "loss": float(value.risk),
        "penalty": float(value.penalty),
        **{f"fairness_weight/{name}": weight for name, weight in by_cell},
        "fairness_weight": sum(fairness_weights) / len(fairness_weights) if fairness_weights else 0.0,
        **{f"gap/{name}": gap if present else None for name, gap, present in gaps},
        "active": names[active] if active >= 0 else None,
        "negative_weights": float((sample_weights.losses < 0).float().mean()),
    }


def epoch_record(
    epoch: int, steps: Sequence[Mapping[str, Any]], dev: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Return the row of one epoch: means over its steps, absolute gaps, the last fairness weight, and dev metrics.

    Args:
        steps: rows of this and other epochs.
        dev: all metrics of ``study.evaluation.metrics.evaluate``, so that any of them can be plotted over epochs.
        seconds: spent so far in each activity.
    """
    rows = pd.DataFrame([step for step in steps if step["epoch"] == epoch])
    gaps = rows.filter(like="gap/").astype(float).abs().mean().dropna()
    return {
        "epoch": epoch,
        **{name: float(rows[name].mean()) for name in ("loss", "penalty", "negative_weights")},
        "fairness_weight": float(rows["fairness_weight"].iloc[-1]),
        "gaps": {str(name).removeprefix("gap/"): float(gap) for name, gap in gaps.items()},
        "dev": dict(dev),
        "seconds": {name: round(value, 3) for name, value in seconds.items() if name != "total"},
    }
