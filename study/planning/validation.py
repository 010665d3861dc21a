"""What is wrong between the parts of a plan: settings against the corpus, named configurations against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from search_spaces import Hyperparameter, Space
from search_spaces.space import Choice, exists
from study.common.errors import SettingsError
from study.common.groups import Cell, cells
from study.config.config_id import config_id
from study.config.settings import ControlSplit, Parallelism, Settings
from study.losses.base import PenalisedLoss
from study.losses.gap_estimators import HeldOutGaps
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import AdaptiveWeight
from study.planning.request import StudyRequest


def hyperparameter_errors(
    space: Space, settings: Settings, parallelism: Parallelism, languages: tuple[str, ...]
) -> list[str]:
    """Values of a space that are no settings: of each knob every choice, or both ends and, where these are settings,
    the first between them that is none. A fault is named once, at the value that shows it first."""
    known = set(context_errors(settings, parallelism, languages, None))
    errors: dict[str, str] = {}

    def look(hyperparameter: Hyperparameter, value: Choice) -> bool:
        try:
            chosen = settings.with_overrides(_beside(hyperparameter, value, space))
            found = [
                message for message in context_errors(chosen, parallelism, languages, None) if message not in known
            ]
        except SettingsError as error:
            found = list(error.errors)
        for message in found:
            errors.setdefault(message, f"--space: {hyperparameter.name} at {value}: {message}")
        return bool(found)

    for hyperparameter in sorted(
        space.hyperparameters, key=lambda hyperparameter: not hyperparameter.when
    ):  # at what depends on others before these
        if not any([look(hyperparameter, value) for value in hyperparameter.ends()]):
            any(look(hyperparameter, value) for value in hyperparameter.between())
    return [*errors.values()]


def _beside(hyperparameter: Hyperparameter, value: Choice, space: Space) -> dict[str, Any]:
    """The value of a knob, what it depends on, and what depends on it at its default."""
    values = {parent: allowed[0] for parent, allowed in _conditions(hyperparameter, space).items()} | {
        hyperparameter.name: value
    }
    for other in space.hyperparameters:
        if other.when and other.name not in values and exists(other, values):
            values[other.name] = other.default
    return values


def _conditions(hyperparameter: Hyperparameter, space: Space) -> dict[str, tuple[Any, ...]]:
    """What must hold for a knob to exist, its parents' own conditions included."""
    parents = {other.name: other for other in space.hyperparameters}
    conditions: dict[str, tuple[Any, ...]] = {}
    for parent, allowed in hyperparameter.when.items():
        conditions |= _conditions(parents[parent], space) | {parent: allowed}
    return conditions


def baseline_errors(
    space: Space, settings: Settings, parallelism: Parallelism, languages: tuple[str, ...]
) -> list[str]:
    """Named configurations of a space that could not run with what is fixed, or that would be the same one."""
    known = set(context_errors(settings, parallelism, languages, None))
    in_use = cells(languages, settings.modalities)
    names: dict[str, str] = {}
    errors = []
    for baseline in space.baselines:
        try:
            chosen = settings.with_overrides({**baseline.hyperparameters, **baseline.fixed})
        except SettingsError as error:
            errors += [f"{baseline.label}: {message}" for message in error.errors]
            continue
        found = [message for message in context_errors(chosen, parallelism, languages, None) if message not in known]
        errors += [f"{baseline.label}: {message}" for message in found]
        if not found and not known:
            twin = names.setdefault(config_id(chosen, in_use, "", ""), baseline.label)
            if twin != baseline.label:
                errors.append(f"--set: with it, {baseline.label!r} is the same configuration as {twin!r}")
    return errors


GRID_LIMIT = 100_000


def method_errors(fixed: tuple[str, ...], space: Space) -> list[str]:
    """A space that compares methods sets the method itself."""
    key = "loss.method"
    if key in fixed and any(key in baseline.fixed for baseline in space.baselines):
        return [f"--set {key}: the space {space.name} sets it (ERM is among its first trials)"]
    return []


def size_errors(space: Space, request: StudyRequest, in_use: Sequence[Cell]) -> list[str]:
    """A grid, or a space of choices alone, has an end: no configuration is run twice."""
    if not (space.hyperparameters and space.finite):
        return []
    grid = request.sampler == "grid"
    if grid and sum(1 for _ in islice(space.points(), GRID_LIMIT + 1)) > GRID_LIMIT:  # it is queued whole
        return [f"--sampler grid: the space {space.name} has over {GRID_LIMIT:,} points; --set some of its knobs"]
    named = ({**baseline.hyperparameters, **baseline.fixed} for baseline in space.baselines)
    different = {_identity(request.settings, hyperparameters, in_use) for hyperparameters in named}
    size = 0
    for point in space.points():
        size += 1
        different.add(_identity(request.settings, point, in_use))
        if len(different) >= request.trials:
            return []
    what = "grid" if grid else f"space {space.name}"
    return [f"--trials: {request.trials} asked for, the {what} has {size} points: at most {len(different)}"]


def _identity(settings: Settings, hyperparameters: Mapping[str, Any], in_use: Sequence[Cell]) -> str:
    try:
        return config_id(settings.with_overrides(hyperparameters), in_use, "", "")
    except ValueError:  # a knob out of range, which is named elsewhere
        return str(hyperparameters)


def context_errors(
    settings: Settings, parallelism: Parallelism, languages: Sequence[str], cores: int | None
) -> list[str]:
    """What is wrong between settings, corpus and machine; empty when nothing is.

    Args:
        languages: those of the corpus.
        cores: CPU cores (or GPUs, where there are any) in reach; None if not known yet.
    """
    errors = []
    loss, batch = settings.loss, settings.optimisation.batch_size
    in_use = cells(languages, settings.modalities)
    if isinstance(loss, ErmMinMaxGap):
        errors += _coefficient_errors(loss, in_use)
    if isinstance(loss, PenalisedLoss):
        errors += _control_errors(loss, settings.control)
    groups = 2 * len(in_use)
    if loss.batch_sampling == "balanced" and batch < 2 * groups:
        errors.append(
            f"optimisation.batch_size: {batch} holds fewer than two of each of {groups} groups; "
            f"use {2 * groups} or more"
        )
    if batch % parallelism.num_workers:
        errors.append(
            f"optimisation.batch_size: {batch} cannot be shared evenly by --num-workers {parallelism.num_workers}"
        )
    if cores is not None and parallelism.num_workers > cores:
        errors.append(
            f"--num-workers: {parallelism.num_workers} workers asked for, this machine has "
            f"{cores} cores (or GPUs, if any)"
        )
    return errors


def _coefficient_errors(loss: ErmMinMaxGap, in_use: Sequence[Cell]) -> list[str]:
    coefficients = loss.coefficients
    known = {
        "languages": list(dict.fromkeys(cell.language for cell in in_use)),
        "modalities": list(dict.fromkeys(cell.modality for cell in in_use)),
        "cells": [str(cell) for cell in in_use],
    }
    errors = [
        f"loss.coefficients.{kind}.{name}: this study has only {', '.join(names)}"
        for kind, names in known.items()
        for name in getattr(coefficients, kind)
        if name not in names
    ]
    try:
        coefficients.kappa(in_use)
    except ValueError as error:
        errors.append(f"loss.coefficients: {error}")
    return errors


def _control_errors(loss: PenalisedLoss, control: ControlSplit) -> list[str]:
    """Who needs a control split, and whether a weight a cell has cells to act on."""
    weight = loss.fairness_weight
    adaptive = isinstance(weight, AdaptiveWeight)
    needs = {
        "loss.estimator.kind": isinstance(loss, ErmMinMaxGap) and isinstance(loss.estimator, HeldOutGaps),
        "loss.fairness_weight.split": adaptive and weight.split == "control",
    }
    errors = [
        f"{hyperparameter}: needs a control split: set control.fraction, e.g. 0.5 of dev"
        for hyperparameter, needed in needs.items()
        if needed and not control.fraction
    ]
    if adaptive and weight.per_cell and not isinstance(loss, ErmMinMaxGap):
        errors.append(f"loss.fairness_weight.per_cell: only minmaxgap has a penalty a cell, not {loss.method}")
    return errors
