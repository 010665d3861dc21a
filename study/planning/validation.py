"""Errors between the parts of a plan: settings against the corpus, and configurations of a space against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from search_spaces import Hyperparameter, Space
from search_spaces.space import Choice, applies
from study.common.errors import SettingsError
from study.common.groups import Cell, cells
from study.config.config_id import config_id
from study.config.settings import ControlSplit, Parallelism, Settings
from study.losses.base import PenalisedLoss
from study.losses.gap_estimators import HeldOutGaps
from study.losses.minmaxgap import ErmMinMaxGap
from study.losses.schedules import AdaptiveWeight
from study.planning.request import StudyRequest

GRID_LIMIT = 100_000
"""Largest number of grid points, since all of them are queued at the start."""


def hyperparameter_errors(
    space: Space, settings: Settings, parallelism: Parallelism, languages: tuple[str, ...]
) -> list[str]:
    """Return errors of values in a space that are invalid settings.

    All choices of a hyperparameter are tried, or both ends of its range and, if these are valid, the values between
    them up to the first invalid one. The same error is reported once, for the first value that causes it.
    """
    known = set(context_errors(settings, parallelism, languages, None))
    errors: dict[str, str] = {}

    def is_invalid(hyperparameter: Hyperparameter, value: Choice) -> bool:
        try:
            changed = settings.with_overrides(_with_dependencies(hyperparameter, value, space))
            messages = [m for m in context_errors(changed, parallelism, languages, None) if m not in known]
        except SettingsError as error:
            messages = list(error.errors)
        for message in messages:
            errors.setdefault(message, f"--space: {hyperparameter.name} at {value}: {message}")
        return bool(messages)

    conditional_first = sorted(space.hyperparameters, key=lambda hyperparameter: not hyperparameter.when)
    for hyperparameter in conditional_first:  # their errors name them rather than the hyperparameters they depend on
        if not any([is_invalid(hyperparameter, value) for value in hyperparameter.ends()]):
            any(is_invalid(hyperparameter, value) for value in hyperparameter.between())
    return [*errors.values()]


def _with_dependencies(hyperparameter: Hyperparameter, value: Choice, space: Space) -> dict[str, Any]:
    """Return a value together with the values that its condition needs, and defaults of what depends on it."""
    values = {parent: allowed[0] for parent, allowed in _conditions(hyperparameter, space).items()}
    values[hyperparameter.name] = value
    for other in space.hyperparameters:
        if other.when and other.name not in values and applies(other, values):
            values[other.name] = other.default
    return values


def _conditions(hyperparameter: Hyperparameter, space: Space) -> dict[str, tuple[Any, ...]]:
    """Return the condition of a hyperparameter, including the conditions of its parents."""
    by_name = {other.name: other for other in space.hyperparameters}
    conditions: dict[str, tuple[Any, ...]] = {}
    for parent, allowed in hyperparameter.when.items():
        conditions |= _conditions(by_name[parent], space) | {parent: allowed}
    return conditions


def baseline_errors(
    space: Space, settings: Settings, parallelism: Parallelism, languages: tuple[str, ...]
) -> list[str]:
    """Return errors of named configurations that are invalid with the fixed settings, or equal to each other."""
    known = set(context_errors(settings, parallelism, languages, None))
    in_use = cells(languages, settings.modalities)
    labels: dict[str, str] = {}
    errors = []
    for baseline in space.baselines:
        try:
            changed = settings.with_overrides({**baseline.hyperparameters, **baseline.fixed})
        except SettingsError as error:
            errors += [f"{baseline.label}: {message}" for message in error.errors]
            continue
        messages = [m for m in context_errors(changed, parallelism, languages, None) if m not in known]
        errors += [f"{baseline.label}: {message}" for message in messages]
        if not messages and not known:
            twin = labels.setdefault(config_id(changed, in_use, "", ""), baseline.label)
            if twin != baseline.label:
                errors.append(f"--set: with these settings {baseline.label!r} and {twin!r} are the same configuration")
    return errors


def method_errors(fixed: tuple[str, ...], space: Space) -> list[str]:
    """Return an error if ``--set`` gives the loss method although the baseline configurations set it."""
    key = "loss.method"
    if key in fixed and any(key in baseline.fixed for baseline in space.baselines):
        return [f"--set {key}: the space {space.name} sets it (ERM is one of its baseline configurations)"]
    return []


def size_errors(space: Space, request: StudyRequest, in_use: Sequence[Cell]) -> list[str]:
    """Return an error if a finite space has fewer configurations than trials; none is run twice."""
    if not (space.hyperparameters and space.finite):
        return []
    grid = request.sampler == "grid"
    if grid and sum(1 for _ in islice(space.points(), GRID_LIMIT + 1)) > GRID_LIMIT:
        return [
            f"--sampler grid: the space {space.name} has over {GRID_LIMIT:,} points; --set some of its hyperparameters"
        ]
    baselines = ({**baseline.hyperparameters, **baseline.fixed} for baseline in space.baselines)
    different = {_identity(request.settings, hyperparameters, in_use) for hyperparameters in baselines}
    size = 0
    for point in space.points():
        size += 1
        different.add(_identity(request.settings, point, in_use))
        if len(different) >= request.trials:
            return []
    what = "grid" if grid else f"space {space.name}"
    return [
        f"--trials: {request.trials} requested, but the {what} has {size} points, with the baseline configurations "
        f"{len(different)}; use at most {len(different)}"
    ]


def _identity(settings: Settings, hyperparameters: Mapping[str, Any], in_use: Sequence[Cell]) -> str:
    try:
        return config_id(settings.with_overrides(hyperparameters), in_use, "", "")
    except ValueError:  # an invalid value, which hyperparameter_errors reports
        return str(hyperparameters)


def context_errors(
    settings: Settings, parallelism: Parallelism, languages: Sequence[str], cores: int | None
) -> list[str]:
    """Return errors between settings, corpus and machine.

    Args:
        settings: of a configuration.
        parallelism: of a trial.
        languages: of the corpus.
        cores: available CPU cores, or GPUs where there are any; None if unknown.
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
            f"optimisation.batch_size: {batch} is less than two utterances for each of {groups} groups; "
            f"use {2 * groups} or more"
        )
    if batch % parallelism.num_workers:
        errors.append(f"optimisation.batch_size: {batch} is not divisible by --num-workers {parallelism.num_workers}")
    if cores is not None and parallelism.num_workers > cores:
        errors.append(
            f"--num-workers: {parallelism.num_workers} workers requested, but this machine has {cores} cores (or GPUs)"
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
        f"loss.coefficients.{kind}.{name}: not part of this study, which has {', '.join(names)}"
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
    """Return errors of a loss without the control split, or without the penalty per cell, that it needs."""
    weight = loss.fairness_weight if isinstance(loss.fairness_weight, AdaptiveWeight) else None
    needs = {
        "loss.estimator.kind": isinstance(loss, ErmMinMaxGap) and isinstance(loss.estimator, HeldOutGaps),
        "loss.fairness_weight.split": weight is not None and weight.split == "control",
    }
    errors = [
        f"{name}: needs a control split; set control.fraction, e.g. to 0.5"
        for name, needed in needs.items()
        if needed and not control.fraction
    ]
    if weight is not None and weight.per_cell and not isinstance(loss, ErmMinMaxGap):
        errors.append("loss.fairness_weight.per_cell: only the loss minmaxgap has a penalty per cell")
    return errors
