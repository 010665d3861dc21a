"""What is wrong between the parts of a plan: settings against the corpus, named configurations against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from search_spaces import Knob, Space
from search_spaces.space import Choice, exists
from study.common.errors import SettingsError
from study.common.groups import Cell, cells
from study.config.config_id import config_id
from study.config.settings import ControlSplit, Placement, Settings
from study.losses.base import Penalised
from study.losses.gap_estimators import HeldOutGaps
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import AdaptiveWeight
from study.planning.plan import Draft


def knob_faults(space: Space, settings: Settings, placement: Placement, languages: tuple[str, ...]) -> list[str]:
    """Values of a space that are no settings: of each knob every choice, or both ends and, where these are settings,
    the first between them that is none. A fault is named once, at the value that shows it first."""
    known = set(context_faults(settings, placement, languages, None))
    faults: dict[str, str] = {}

    def look(knob: Knob, value: Choice) -> bool:
        try:
            chosen = settings.with_overrides(_beside(knob, value, space))
            found = [fault for fault in context_faults(chosen, placement, languages, None) if fault not in known]
        except SettingsError as error:
            found = list(error.faults)
        for fault in found:
            faults.setdefault(fault, f"--space: {knob.name} at {value}: {fault}")
        return bool(found)

    for knob in sorted(space.knobs, key=lambda knob: not knob.when):  # at what depends on others before these
        if not any([look(knob, value) for value in knob.ends()]):
            any(look(knob, value) for value in knob.between())
    return [*faults.values()]


def _beside(knob: Knob, value: Choice, space: Space) -> dict[str, Any]:
    """The value of a knob, what it depends on, and what depends on it at its default."""
    values = {parent: allowed[0] for parent, allowed in _conditions(knob, space).items()} | {knob.name: value}
    for other in space.knobs:
        if other.when and other.name not in values and exists(other, values):
            values[other.name] = other.default
    return values


def _conditions(knob: Knob, space: Space) -> dict[str, tuple[Any, ...]]:
    """What must hold for a knob to exist, its parents' own conditions included."""
    parents = {other.name: other for other in space.knobs}
    conditions: dict[str, tuple[Any, ...]] = {}
    for parent, allowed in knob.when.items():
        conditions |= _conditions(parents[parent], space) | {parent: allowed}
    return conditions


def reference_faults(space: Space, settings: Settings, placement: Placement, languages: tuple[str, ...]) -> list[str]:
    """Named configurations of a space that could not run with what is fixed, or that would be the same one."""
    known = set(context_faults(settings, placement, languages, None))
    in_use = cells(languages, settings.modalities)
    names: dict[str, str] = {}
    faults = []
    for reference in space.references:
        try:
            chosen = settings.with_overrides({**reference.knobs, **reference.fixed})
        except SettingsError as error:
            faults += [f"{reference.label}: {fault}" for fault in error.faults]
            continue
        found = [fault for fault in context_faults(chosen, placement, languages, None) if fault not in known]
        faults += [f"{reference.label}: {fault}" for fault in found]
        if not found and not known:
            twin = names.setdefault(config_id(chosen, in_use, "", ""), reference.label)
            if twin != reference.label:
                faults.append(f"--fix: with it, {reference.label!r} is the same configuration as {twin!r}")
    return faults


GRID_LIMIT = 100_000


def method_faults(fixed: tuple[str, ...], space: Space) -> list[str]:
    """A space that compares methods sets the method itself."""
    key = "objective.method"
    if key in fixed and any(key in reference.fixed for reference in space.references):
        return [f"--fix {key}: the space {space.name} sets it (ERM is among its first trials)"]
    return []


def size_faults(space: Space, draft: Draft, in_use: Sequence[Cell]) -> list[str]:
    """A grid, or a space of choices alone, has an end: no configuration is run twice."""
    if not (space.knobs and space.finite):
        return []
    grid = draft.sampler == "grid"
    if grid and sum(1 for _ in islice(space.points(), GRID_LIMIT + 1)) > GRID_LIMIT:  # it is queued whole
        return [f"--sampler grid: the space {space.name} has over {GRID_LIMIT:,} points; --fix some of its knobs"]
    named = ({**reference.knobs, **reference.fixed} for reference in space.references)
    different = {_identity(draft.settings, knobs, in_use) for knobs in named}
    size = 0
    for point in space.points():
        size += 1
        different.add(_identity(draft.settings, point, in_use))
        if len(different) >= draft.trials:
            return []
    what = "grid" if grid else f"space {space.name}"
    return [f"--trials: {draft.trials} asked for, the {what} has {size} points: at most {len(different)}"]


def _identity(settings: Settings, knobs: Mapping[str, Any], in_use: Sequence[Cell]) -> str:
    try:
        return config_id(settings.with_overrides(knobs), in_use, "", "")
    except ValueError:  # a knob out of range, which is named elsewhere
        return str(knobs)


def context_faults(settings: Settings, placement: Placement, languages: Sequence[str], cores: int | None) -> list[str]:
    """What is wrong between settings, corpus and machine; empty when nothing is.

    Args:
        languages: those of the corpus.
        cores: CPU cores (or GPUs, where there are any) in reach; None if not known yet.
    """
    faults = []
    objective, batch = settings.objective, settings.optimisation.batch_size
    in_use = cells(languages, settings.modalities)
    if isinstance(objective, ErmMinMaxGap):
        faults += _coefficient_faults(objective, in_use)
    if isinstance(objective, Penalised):
        faults += _control_faults(objective, settings.control)
    groups = 2 * len(in_use)
    if objective.sampled() == "balanced" and batch < 2 * groups:
        faults.append(
            f"optimisation.batch_size: {batch} holds fewer than two of each of {groups} groups; "
            f"use {2 * groups} or more"
        )
    if batch % placement.ranks:
        faults.append(f"optimisation.batch_size: {batch} cannot be shared evenly by --ranks {placement.ranks}")
    if cores is not None and placement.ranks > cores:
        faults.append(f"--ranks: {placement.ranks} workers asked for, this machine has {cores} cores (or GPUs, if any)")
    return faults


def _coefficient_faults(objective: ErmMinMaxGap, in_use: Sequence[Cell]) -> list[str]:
    coefficients = objective.coefficients
    known = {
        "languages": list(dict.fromkeys(cell.language for cell in in_use)),
        "modalities": list(dict.fromkeys(cell.modality for cell in in_use)),
        "cells": [str(cell) for cell in in_use],
    }
    faults = [
        f"objective.coefficients.{kind}.{name}: this study has only {', '.join(names)}"
        for kind, names in known.items()
        for name in getattr(coefficients, kind)
        if name not in names
    ]
    try:
        coefficients.kappa(in_use)
    except ValueError as error:
        faults.append(f"objective.coefficients: {error}")
    return faults


def _control_faults(objective: Penalised, control: ControlSplit) -> list[str]:
    """Who needs a control split, and whether a weight a cell has cells to act on."""
    weight = objective.fairness_weight
    adaptive = isinstance(weight, AdaptiveWeight)
    needs = {
        "objective.estimator.kind": isinstance(objective, ErmMinMaxGap)
        and isinstance(objective.estimator, HeldOutGaps),
        "objective.fairness_weight.split": adaptive and weight.split == "control",
    }
    faults = [
        f"{knob}: needs a control split: set control.fraction, e.g. 0.5 of dev"
        for knob, needed in needs.items()
        if needed and not control.fraction
    ]
    if adaptive and weight.per_cell and not isinstance(objective, ErmMinMaxGap):
        faults.append(
            f"objective.fairness_weight.per_cell: only minmaxgap has a penalty a cell, not {objective.method}"
        )
    return faults
