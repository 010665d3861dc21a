"""The arms of an ablation: named configurations without hyperparameters, most of which differ in one setting.

All arms use the same split, with a control split held out (``study.cli.ablation``) even by arms that do not need it.
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
    """Return the settings of a constant fairness weight."""
    return {f"{WEIGHT}.schedule": "constant", f"{WEIGHT}.weight": weight}


PLAIN = {**constant(0.3), **NATURAL, "loss.power": 1, "loss.reduction": "mean"}

ARMS: tuple[NamedConfiguration, ...] = (
    NamedConfiguration("ERM", fixed=ERM),
    NamedConfiguration("ERM, balanced", fixed={**ERM, "loss.sampling": "balanced"}),
    NamedConfiguration("ERM, weighted draws", fixed={**ERM, "loss.sampling": "weighted"}),
    # the paper's loss, with gaps of the batch; where the paper leaves its schedule open, the values are our guess
    NamedConfiguration("paper's setting", fixed=PAPER),
    NamedConfiguration("fixed weight 0.3", fixed=constant(0.3)),
    NamedConfiguration("fixed weight 5", fixed=constant(5.0)),
    NamedConfiguration("natural batches", fixed={**PAPER, **NATURAL}),
    # the simplest penalty, and the same with one part of the paper's loss added
    NamedConfiguration("plain penalty", fixed=PLAIN),
    NamedConfiguration("plain penalty + balanced", fixed={**PLAIN, "loss.sampling": "balanced"}),
    NamedConfiguration(
        "plain penalty + adaptive", fixed={**{k: v for k, v in PLAIN.items() if WEIGHT not in k}, **PAPER}
    ),
    NamedConfiguration("plain penalty + power 2", fixed={**PLAIN, "loss.power": 2}),
    NamedConfiguration("plain penalty + max", fixed={**PLAIN, "loss.reduction": "max"}),
    # the paper's loss with one part changed
    NamedConfiguration("power 1", fixed={"loss.power": 1}),
    NamedConfiguration("mean over cells", fixed={"loss.reduction": "mean"}),
    NamedConfiguration("sum over cells", fixed={"loss.reduction": "sum"}),
    NamedConfiguration("soft-max over cells", fixed={"loss.reduction": "softmax"}),
    NamedConfiguration("weight per cell", fixed={**PAPER, f"{WEIGHT}.per_cell": True}),
    NamedConfiguration("weight driven by loss gap", fixed={**PAPER, f"{WEIGHT}.driver": "loss_gap"}),
    # beyond the paper: how the gap is estimated, and whether the better group may get negative weights
    NamedConfiguration("moving-average gaps", fixed={KIND: "ema"}),
    NamedConfiguration("held-out gaps", fixed=HELD_OUT),
    NamedConfiguration("no unlearning", fixed=LEVEL_UP),
    NamedConfiguration("moving-average, no unlearning", fixed={KIND: "ema", **LEVEL_UP}),
    NamedConfiguration("held-out, no unlearning", fixed={**HELD_OUT, **LEVEL_UP}),
    NamedConfiguration("held-out, no unlearning, 5", fixed={**constant(5.0), **HELD_OUT, **LEVEL_UP}),
    # other losses
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
"""Arms trained on one modality, for studies of both; all other arms are then trained on both."""

UNIFORM, TUNED = "coefficients uniform", "coefficients per"
"""Prefixes of the labels of tuned arms, found by searches of the fairness weight alone or of coefficients as well."""

FAMILIES: dict[str, tuple[str, ...]] = {
    # the paper's setting without one of its parts: balanced batches, penalty, adaptive weight, p = 2, maximum
    "leave-one-out": (
        "paper's setting",
        "natural batches",
        "ERM, balanced",
        "fixed weight 0.3",
        "power 1",
        "mean over cells",
    ),
    # ERM, balanced batches alone, then a penalty with none of the paper's parts and with each of them
    "add-one-in": (
        "ERM",
        "ERM, balanced",
        "plain penalty",
        "plain penalty + balanced",
        "plain penalty + adaptive",
        "plain penalty + power 2",
        "plain penalty + max",
    ),
    "reductions": ("paper's setting", "mean over cells", "sum over cells", "soft-max over cells", "weight per cell"),
    "weights": (
        "paper's setting",
        "fixed weight 0.3",
        "fixed weight 5",
        "weight driven by loss gap",
        "weight per cell",
    ),
    "estimators": (
        "paper's setting",
        "moving-average gaps",
        "held-out gaps",
        "no unlearning",
        "moving-average, no unlearning",
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
"""Families of arms that answer one question each; every family also contains ERM."""

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
"""Leave-one-out and add-one-in: for each base configuration, the arms that differ from it and how."""


def arms_of(modalities: Sequence[str]) -> tuple[NamedConfiguration, ...]:
    """Return every arm of a study with these modalities."""
    return ARMS if len(modalities) < 2 else (*ARMS, *MODALITY_ARMS)


def ablation(
    languages: Sequence[str], settings: Settings, labels: Sequence[str] = (), tuned: Sequence[NamedConfiguration] = ()
) -> Space:
    """Return the arms of an ablation as a space.

    Args:
        languages: of the corpus; the arms do not depend on them.
        settings: of the study.
        labels: of the arms; empty for all.
        tuned: further arms, found by searches.
    """
    arms = tuple(arm for arm in arms_of(settings.modalities) if not labels or arm.label in labels)
    return Space("ablation", (), (*arms, *tuned))
