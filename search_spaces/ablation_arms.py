"""The arms of an ablation: configurations that differ from each other in one thing, each with a name and no knobs.

Every arm is trained on the same split; a control split is set aside for all (``study.ablation``), whoever uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces.space import Reference, Space
from study.config.settings import Settings

WEIGHT = "objective.fairness_weight"
KIND = "objective.estimator.kind"
ERM = {"objective.method": "erm"}
PAPER = {f"{WEIGHT}.schedule": "adaptive"}
HELD_OUT = {KIND: "held_out"}
LEVEL_UP = {"objective.weight_floor": 0.0}
NATURAL = {"objective.sampling": "natural"}


def constant(weight: float) -> dict[str, Any]:
    return {f"{WEIGHT}.schedule": "constant", f"{WEIGHT}.weight": weight}


PLAIN = {**constant(0.3), **NATURAL, "objective.power": 1, "objective.reduction": "mean"}

ARMS: tuple[Reference, ...] = (
    Reference("ERM", fixed=ERM),
    Reference("ERM, balanced", fixed={**ERM, "objective.sampling": "balanced"}),
    Reference("ERM, weighted draws", fixed={**ERM, "objective.sampling": "weighted"}),
    # the paper's form: gaps of the batch; what its schedule leaves open is our guess
    Reference("paper's setting", fixed=PAPER),
    Reference("fixed weight 0.3", fixed=constant(0.3)),
    Reference("fixed weight 5", fixed=constant(5.0)),
    Reference("natural batches", fixed={**PAPER, **NATURAL}),
    # the plainest penalty, and each part of the paper's added to it
    Reference("plain penalty", fixed=PLAIN),
    Reference("plain penalty + balanced", fixed={**PLAIN, "objective.sampling": "balanced"}),
    Reference("plain penalty + adaptive", fixed={**{k: v for k, v in PLAIN.items() if WEIGHT not in k}, **PAPER}),
    Reference("plain penalty + power 2", fixed={**PLAIN, "objective.power": 2}),
    Reference("plain penalty + max", fixed={**PLAIN, "objective.reduction": "max"}),
    # its parts, one at a time
    Reference("power 1", fixed={"objective.power": 1}),
    Reference("mean over cells", fixed={"objective.reduction": "mean"}),
    Reference("sum over cells", fixed={"objective.reduction": "sum"}),
    Reference("soft-max over cells", fixed={"objective.reduction": "softmax"}),
    Reference("a weight each cell", fixed={**PAPER, f"{WEIGHT}.per_cell": True}),
    Reference("driven by loss gap", fixed={**PAPER, f"{WEIGHT}.driver": "loss_gap"}),
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


HEARD: tuple[Reference, ...] = tuple(
    Reference(f"{label}, {modality} only", fixed={**fixed, "modalities": [modality]})
    for modality in ("speech", "speech+text")
    for label, fixed in (("ERM", ERM), ("paper's setting", PAPER))
)
"""What is heard, for studies of both modalities: there, all other arms are trained on both."""

UNIFORM, TUNED = "coefficients uniform", "coefficients per"
"""How the labels of arms begin that were found by searches of the fairness weight alone, and of coefficients too."""

FAMILIES: dict[str, tuple[str, ...]] = {
    # the paper's setting without one of its parts: balanced batches, the penalty, its adaptive weight, p = 2, the max
    "leave-one-out": (
        "paper's setting",
        "natural batches",
        "ERM, balanced",
        "fixed weight 0.3",
        "power 1",
        "mean over cells",
    ),
    # nothing, balanced batches alone, then a penalty with none of the paper's parts and with one of them
    "add-one-in": (
        "ERM",
        "ERM, balanced",
        "plain penalty",
        "plain penalty + balanced",
        "plain penalty + adaptive",
        "plain penalty + power 2",
        "plain penalty + max",
    ),
    "reductions": ("paper's setting", "mean over cells", "sum over cells", "soft-max over cells", "a weight each cell"),
    "weights": ("paper's setting", "fixed weight 0.3", "fixed weight 5", "driven by loss gap", "a weight each cell"),
    "estimators": (
        "paper's setting",
        "moving gaps",
        "held-out gaps",
        "no unlearning",
        "moving, no unlearning",
        "held-out, no unlearning",
    ),
    "methods": (
        "ERM, balanced",
        "ERM, weighted draws",
        "paper's setting",
        "reweighting",
        "group DRO",
        "V-REx",
        "CVaR-DRO",
        "minimax",
        "MinDiff",
    ),
    "modalities": ("paper's setting", *(arm.label for arm in HEARD)),
}
"""Arms that answer one question, by its name; ERM is beside all of them."""

PARTS: dict[str, dict[str, str]] = {
    "paper's setting": {
        "natural batches": "without balanced batches",
        "ERM, balanced": "without the penalty",
        "fixed weight 0.3": "without the adaptive weight",
        "power 1": "without power 2",
        "mean over cells": "without the maximum",
    },
    "plain penalty": {
        "plain penalty + balanced": "with balanced batches",
        "plain penalty + adaptive": "with the adaptive weight",
        "plain penalty + power 2": "with power 2",
        "plain penalty + max": "with the maximum",
    },
}
"""Leave-one-out and add-one-in: by the configuration that they differ from, arms and the part left out or added."""


def arms_of(modalities: Sequence[str]) -> tuple[Reference, ...]:
    """Every arm of a study that hears these."""
    return ARMS if len(modalities) < 2 else (*ARMS, *HEARD)


def ablation(
    languages: Sequence[str], settings: Settings, names: Sequence[str] = (), found: Sequence[Reference] = ()
) -> Space:
    """The arms with these names, all if none is given, the same for every corpus; and those that searches found."""
    chosen = tuple(arm for arm in arms_of(settings.modalities) if not names or arm.label in names)
    return Space("ablation", (), (*chosen, *found))
