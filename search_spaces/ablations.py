"""The arms of an ablation: configurations that differ from each other in one thing, each with a name and no knobs.

Every arm is trained on the same split; a control split is set aside for all (``study.ablation``), whoever uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces.knobs import Reference, Space

WEIGHT = "objective.fairness_weight"
KIND = "objective.estimator.kind"
ERM = {"objective.method": "erm"}
HELD_OUT = {KIND: "held_out"}
LEVEL_UP = {"objective.weight_floor": 0.0}


def constant(weight: float) -> dict[str, Any]:
    return {f"{WEIGHT}.schedule": "constant", f"{WEIGHT}.weight": weight}


ARMS: tuple[Reference, ...] = (
    Reference("ERM", fixed=ERM),
    Reference("ERM, balanced", fixed={**ERM, "objective.sampling": "balanced"}),
    Reference("ERM, weighted draws", fixed={**ERM, "objective.sampling": "weighted"}),
    # the paper's form: gaps of the batch; what its schedule leaves open is our guess
    Reference("paper's setting", fixed={f"{WEIGHT}.schedule": "adaptive"}),
    Reference("fixed weight 0.3", fixed=constant(0.3)),
    Reference("fixed weight 5", fixed=constant(5.0)),
    Reference("natural batches", fixed={f"{WEIGHT}.schedule": "adaptive", "objective.sampling": "natural"}),
    # its parts, one at a time
    Reference("power 1", fixed={"objective.power": 1}),
    Reference("mean over cells", fixed={"objective.reduction": "mean"}),
    Reference("sum over cells", fixed={"objective.reduction": "sum"}),
    Reference("soft-max over cells", fixed={"objective.reduction": "softmax"}),
    Reference("a weight each cell", fixed={f"{WEIGHT}.schedule": "adaptive", f"{WEIGHT}.per_cell": True}),
    Reference("driven by loss gap", fixed={f"{WEIGHT}.schedule": "adaptive", f"{WEIGHT}.driver": "loss_gap"}),
    # beyond the paper: where the gap is measured, and whether the better group may be unlearned
    Reference("moving gaps", fixed={KIND: "ema"}),
    Reference("held-out gaps", fixed=HELD_OUT),
    Reference("no unlearning", fixed=LEVEL_UP),
    Reference("moving, no unlearning", fixed={KIND: "ema", **LEVEL_UP}),
    Reference("held-out, no unlearning", fixed={**HELD_OUT, **LEVEL_UP}),
    Reference("held-out, no unlearning, 5", fixed={**constant(5.0), **HELD_OUT, **LEVEL_UP}),
    # other methods
    Reference("reweighting", fixed={"objective.method": "reweighting"}),
    Reference("group DRO", fixed={"objective.method": "group_dro"}),
    Reference("V-REx", fixed={"objective.method": "v_rex"}),
    Reference("CVaR-DRO", fixed={"objective.method": "cvar_dro"}),
    Reference("minimax", fixed={"objective.method": "minimax"}),
    Reference("MinDiff", fixed={"objective.method": "min_diff"}),
)


def ablation(languages: Sequence[str], modalities: Sequence[str], names: Sequence[str] = ()) -> Space:
    """The arms with these names, all if none is given; they are the same for every corpus."""
    chosen = tuple(arm for arm in ARMS if not names or arm.label in names)
    return Space("ablation", (), chosen)
