"""The arms of an ablation: configurations that differ from each other in one thing, each with a name and no knobs.

Every arm is trained on the same split; a control split is set aside for all (``study.ablation``), whoever uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search_spaces.space import NamedConfiguration, Space
from study.config.settings import Settings

WEIGHT = "loss.fairness_weight"
KIND = "loss.estimator.kind"
ERM = {"loss.method": "erm"}
PAPER = {f"{WEIGHT}.schedule": "adaptive"}
HELD_OUT = {KIND: "held_out"}
LEVEL_UP = {"loss.min_sample_weight": 0.0}
NATURAL = {"loss.sampling": "natural"}


def constant(weight: float) -> dict[str, Any]:
    return {f"{WEIGHT}.schedule": "constant", f"{WEIGHT}.weight": weight}


PLAIN = {**constant(0.3), **NATURAL, "loss.power": 1, "loss.reduction": "mean"}

ARMS: tuple[NamedConfiguration, ...] = (
    NamedConfiguration("ERM", fixed=ERM),
    NamedConfiguration("ERM, balanced", fixed={**ERM, "loss.sampling": "balanced"}),
    NamedConfiguration("ERM, weighted draws", fixed={**ERM, "loss.sampling": "weighted"}),
    # the paper's form: gaps of the batch; what its schedule leaves open is our guess
    NamedConfiguration("paper's setting", fixed=PAPER),
    NamedConfiguration("fixed weight 0.3", fixed=constant(0.3)),
    NamedConfiguration("fixed weight 5", fixed=constant(5.0)),
    NamedConfiguration("natural batches", fixed={**PAPER, **NATURAL}),
    # the plainest penalty, and each part of the paper's added to it
    NamedConfiguration("plain penalty", fixed=PLAIN),
    NamedConfiguration("plain penalty + balanced", fixed={**PLAIN, "loss.sampling": "balanced"}),
    NamedConfiguration(
        "plain penalty + adaptive", fixed={**{k: v for k, v in PLAIN.items() if WEIGHT not in k}, **PAPER}
    ),
    NamedConfiguration("plain penalty + power 2", fixed={**PLAIN, "loss.power": 2}),
    NamedConfiguration("plain penalty + max", fixed={**PLAIN, "loss.reduction": "max"}),
    # its parts, one at a time
    NamedConfiguration("power 1", fixed={"loss.power": 1}),
    NamedConfiguration("mean over cells", fixed={"loss.reduction": "mean"}),
    NamedConfiguration("sum over cells", fixed={"loss.reduction": "sum"}),
    NamedConfiguration("soft-max over cells", fixed={"loss.reduction": "softmax"}),
    NamedConfiguration("a weight each cell", fixed={**PAPER, f"{WEIGHT}.per_cell": True}),
    NamedConfiguration("driven by loss gap", fixed={**PAPER, f"{WEIGHT}.driver": "loss_gap"}),
    # beyond the paper: where the gap is measured, and whether the better group may be unlearned
    NamedConfiguration("moving gaps", fixed={KIND: "ema"}),
    NamedConfiguration("held-out gaps", fixed=HELD_OUT),
    NamedConfiguration("no unlearning", fixed=LEVEL_UP),
    NamedConfiguration("moving, no unlearning", fixed={KIND: "ema", **LEVEL_UP}),
    NamedConfiguration("held-out, no unlearning", fixed={**HELD_OUT, **LEVEL_UP}),
    NamedConfiguration("held-out, no unlearning, 5", fixed={**constant(5.0), **HELD_OUT, **LEVEL_UP}),
    # other methods
    NamedConfiguration("reweighting", fixed={"loss.method": "reweighting"}),
    NamedConfiguration("group DRO", fixed={"loss.method": "group_dro"}),
    NamedConfiguration("V-REx", fixed={"loss.method": "v_rex"}),
    NamedConfiguration("CVaR-DRO", fixed={"loss.method": "cvar_dro"}),
    NamedConfiguration("minimax", fixed={"loss.method": "minimax"}),
    NamedConfiguration("MinDiff", fixed={"loss.method": "min_diff"}),
)


MODALITY_ARMS: tuple[NamedConfiguration, ...] = tuple(
    NamedConfiguration(f"{label}, {modality} only", fixed={**fixed, "modalities": [modality]})
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
    "modalities": ("paper's setting", *(arm.label for arm in MODALITY_ARMS)),
}
"""Arms that answer one question, by its name; ERM is beside all of them."""

LEAVE_ONE_OUT: dict[str, dict[str, str]] = {
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


def arms_of(modalities: Sequence[str]) -> tuple[NamedConfiguration, ...]:
    """Every arm of a study that hears these."""
    return ARMS if len(modalities) < 2 else (*ARMS, *MODALITY_ARMS)


def ablation(
    languages: Sequence[str], settings: Settings, names: Sequence[str] = (), found: Sequence[NamedConfiguration] = ()
) -> Space:
    """The arms with these names, all if none is given, the same for every corpus; and those that searches found."""
    chosen = tuple(arm for arm in arms_of(settings.modalities) if not names or arm.label in names)
    return Space("ablation", (), (*chosen, *found))
