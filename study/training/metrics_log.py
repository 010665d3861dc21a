"""What is kept of a training step and of an epoch: rows of ``steps.parquet`` and ``epochs.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.common.groups import Cell
from study.losses.base import LossParts, UtteranceWeights


def step_record(
    cells: Sequence[Cell], weights: Sequence[float], parts: LossParts, by_utterance: UtteranceWeights
) -> dict[str, Any]:
    """What the objective saw in one step.

    Args:
        weights: lambda_t: none, one, or one a cell.
        parts, by_utterance: of the whole effective batch.

    Returns:
        ``loss`` and ``penalty`` in nats (nats^p); ``fairness_weight`` (the mean of several, and then
        ``fairness_weight/CELL``); ``gap/CELL`` signed, in nats, as estimated, None where absent; ``active``, the cell
        that counts most; ``negative_weights``, the share of utterances with a negative weight.
    """
    names = [str(cell) for cell in cells]
    lambdas = zip(names, weights, strict=True) if len(weights) > 1 else ()
    gaps = zip(names, parts.signed_gaps.tolist(), parts.present.tolist(), strict=True)
    active = int(parts.active)
    return {
        "loss": float(parts.risk),
        "penalty": float(parts.penalty),
        **{f"fairness_weight/{name}": weight for name, weight in lambdas},
        "fairness_weight": sum(weights) / len(weights) if weights else 0.0,
        **{f"gap/{name}": gap if there else None for name, gap, there in gaps},
        "active": names[active] if active >= 0 else None,
        "negative_weights": float((by_utterance.losses < 0).float().mean()),
    }


def epoch_record(
    epoch: int, steps: Sequence[Mapping[str, Any]], dev: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Means over the steps of an epoch, absolute gaps, the last fairness weight, dev figures, and seconds so far.

    Args:
        steps: of this and other epochs, each with its ``epoch``.
        dev: of ``study.evaluation.metrics.evaluate``, kept whole: any figure has its curve.
    """
    own = pd.DataFrame([step for step in steps if step["epoch"] == epoch])
    gaps = own.filter(like="gap/").astype(float).abs().mean().dropna()
    return {
        "epoch": epoch,
        **{name: float(own[name].mean()) for name in ("loss", "penalty", "negative_weights")},
        "fairness_weight": float(own["fairness_weight"].iloc[-1]),
        "gaps": {name.removeprefix("gap/"): float(gap) for name, gap in gaps.items()},
        "dev": dict(dev),
        "seconds": {name: round(value, 3) for name, value in seconds.items() if name != "total"},
    }
