"""Search spaces by name, alone or combined, or from a TOML file; and the baseline configurations of every search.

A file has one table per hyperparameter (fields: ``search_spaces.space.Hyperparameter``)::

    [[hyperparameter]]
    name = "optimisation.weight_decay"
    reason = "a tenth to ten times the paper's 0.01"
    default = 0.01
    low = 0.001
    high = 0.1
    scale = "log"
    # when = {"loss.fairness_weight.schedule" = ["adaptive"]}
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from search_spaces import builtin
from search_spaces.builtin import COEFFICIENTS, WEIGHT
from search_spaces.space import Choice, Hyperparameter, NamedConfiguration, Space, applies, walk
from study.common.base_model import Frozen
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES
from study.config.settings import Settings, flatten, parse

HyperparameterMaker = Callable[[Sequence[str], Settings], tuple[Hyperparameter, ...]]
"""Makes the hyperparameters of a space from the languages of a corpus and the settings of a study."""
SpaceMaker = Callable[[Sequence[str], Settings], Space]
"""Makes a space from the languages of a corpus and the settings of a study."""

SPACES: dict[str, HyperparameterMaker] = {
    make.__name__: make
    for make in (
        builtin.fairness,
        builtin.schedules,
        builtin.coefficients_per_language,
        builtin.coefficients_per_modality,
        builtin.coefficients_per_cell,
        builtin.penalty,
        builtin.training,
        builtin.full,
    )
}

PAPER: dict[str, Any] = {f"{WEIGHT}.schedule": "adaptive", f"{WEIGHT}.initial": 0.0, f"{WEIGHT}.step_size": 2.0}
"""The paper's values (arXiv 2603.21050) of hyperparameters whose default differs; the step size is our guess."""

SHARED: dict[str, str] = {
    "corpus": "the corpus is read, split and turned into features once for all trials",
    "backbone.spec": "the backbone is loaded, and features are computed for it, once for all trials",
    "prompt": "the vocabulary of the tiny backbone is built from the prompt once for all trials",
    "modalities": "all trials are compared on the same cells",
    "control": "all trials are selected on the same dev utterances",
    "computation": "it changes no result, so all trials would be the same configuration",
    "optimisation.epochs": "early stopping, cost and remaining time assume the same epochs for all trials",
}
"""Settings that all trials of a study share, with everything below them, and why they cannot be searched."""


class SpaceFile(Frozen):
    """Content of a TOML file."""

    hyperparameter: tuple[Hyperparameter, ...]


def space_maker(name: str, fixed: Sequence[str] = (), pinned: Mapping[str, Any] | None = None) -> SpaceMaker:
    """Return the maker of a search space.

    Args:
        name: names of ``SPACES`` and paths of TOML files, joined with ``+``.
        fixed: names of settings that are given and hence not searched.
        pinned: given values of conditional hyperparameters; they take these values in every trial in which they apply.

    Raises:
        SettingsError: there is no such space, or a file is invalid.
    """
    return partial(_make, name, _parts(name), tuple(fixed), pinned or {})


def split_overrides(name: str, base: Settings, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split given settings into those of all trials and those of trials in which a conditional hyperparameter applies.

    A conditional hyperparameter that does not apply to the settings is pinned. If a given setting makes others apply
    that have no default in ``Settings`` (a constant schedule needs a weight), they take the hyperparameter's default.

    Args:
        name: of the space, as for :func:`space_maker`.
        base: settings before the overrides.
        overrides: given settings, by dotted name.

    Returns:
        Overrides of the settings, and values of pinned hyperparameters.

    Raises:
        SettingsError: as :func:`space_maker`.

    >>> schedule = "loss.fairness_weight.schedule"
    >>> split_overrides("schedules", Settings(), {schedule: "constant"})[0]["loss.fairness_weight.weight"]
    0.3
    >>> split_overrides("schedules", Settings(), {"loss.fairness_weight.ramp_fraction": 0.5})
    ({}, {'loss.fairness_weight.ramp_fraction': 0.5})
    """
    hyperparameters = combine([(part, make(LANGUAGES, base)) for part, make in _parts(name)])
    current = flatten(base.model_dump(mode="json"))
    shared: dict[str, Any] = dict(overrides)
    pinned: dict[str, Any] = {}
    for hyperparameter in hyperparameters:
        if not hyperparameter.when:
            continue
        if applies(hyperparameter, {**current, **shared}):
            if any(shared.get(parent, current.get(parent)) != current.get(parent) for parent in hyperparameter.when):
                shared.setdefault(hyperparameter.name, hyperparameter.default)
        elif hyperparameter.name in shared and hyperparameter.name not in current:
            pinned[hyperparameter.name] = shared.pop(hyperparameter.name)
    return shared, pinned


def _parts(name: str) -> tuple[tuple[str, HyperparameterMaker], ...]:
    parts: list[tuple[str, HyperparameterMaker]] = []
    errors: list[str] = []
    for part in name.split("+"):
        try:
            parts.append((part, SPACES[part] if part in SPACES else _read_file(part)))
        except SettingsError as error:
            errors += error.errors
    if errors:
        raise SettingsError(errors)
    return tuple(parts)


def _make(
    name: str,
    parts: Sequence[tuple[str, HyperparameterMaker]],
    fixed: Sequence[str],
    pinned: Mapping[str, Choice],
    languages: Sequence[str],
    settings: Settings,
) -> Space:
    hyperparameters = combine([(part, make(languages, settings)) for part, make in parts])
    if not hyperparameters:
        cells = f"{', '.join(languages)} and {', '.join(settings.modalities)}"
        raise SettingsError([f"--space {name}: has nothing to search with {cells}"])
    searched = remove_fixed(hyperparameters, fixed, settings)
    names = {hyperparameter.name for hyperparameter in searched}
    unused = [each for each in hyperparameters if each.name in pinned and each.name not in names]
    if unused:
        raise SettingsError(
            [
                f"--set {each.name}: applies to no configuration of the space {name}, only if {_condition(each)}; "
                "leave it out"
                for each in unused
            ]
        )
    searched = tuple(each.pinned_at(pinned[each.name]) if each.name in pinned else each for each in searched)
    if not searched:
        raise SettingsError([f"--set: with {', '.join(fixed)} given, the space {name} has nothing left to search"])
    return Space(name, searched, baseline_configurations(hyperparameters, searched, settings))


def _condition(hyperparameter: Hyperparameter) -> str:
    return " and ".join(
        f"{parent} is {' or '.join(map(str, values))}" for parent, values in hyperparameter.when.items()
    )


def combine(parts: Sequence[tuple[str, tuple[Hyperparameter, ...]]]) -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters of several spaces; one that occurs in two of them counts once.

    Raises:
        SettingsError: two spaces declare a hyperparameter differently, or coefficients per cell are combined with
            coefficients per language or per modality.
    """
    hyperparameters: dict[str, tuple[str, Hyperparameter]] = {}
    errors = []
    for part, own in parts:
        for hyperparameter in own:
            other, known = hyperparameters.setdefault(hyperparameter.name, (part, hyperparameter))
            if known != hyperparameter:
                errors.append(f"--space: {other} and {part} declare {hyperparameter.name} differently; leave one out")
    kinds = {
        name.removeprefix(f"{COEFFICIENTS}.").split(".")[0] for name in hyperparameters if name.startswith(COEFFICIENTS)
    }
    if "cells" in kinds and len(kinds) > 1:
        errors.append("--space: coefficients per cell already cover those per language and per modality; leave one out")
    if errors:
        raise SettingsError(errors)
    return tuple(hyperparameter for _, hyperparameter in hyperparameters.values())


def remove_fixed(
    hyperparameters: Sequence[Hyperparameter], fixed: Sequence[str], settings: Settings
) -> tuple[Hyperparameter, ...]:
    """Return the hyperparameters that are still searched when some settings are fixed.

    A condition on a parent that is not searched is decided by the settings: the hyperparameter loses the condition, or
    is removed.

    Args:
        hyperparameters: of the space.
        fixed: dotted names of settings; one may stand for all below it (``loss.coefficients``).
        settings: settings of the study, fixed ones included.

    Raises:
        SettingsError: a condition refers to neither a setting nor an earlier hyperparameter, or to an impossible value.
    """
    removed = {
        hyperparameter.name
        for hyperparameter in hyperparameters
        if any(hyperparameter.name == key or hyperparameter.name.startswith(f"{key}.") for key in fixed)
    }
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in hyperparameters}
    current = flatten(settings.model_dump(mode="json"))
    given = {key: value for key, value in current.items() if key not in by_name or key in removed}
    searched: dict[str, Hyperparameter] = {}
    errors = []
    for hyperparameter in hyperparameters:
        if hyperparameter.name in removed:
            continue
        unknown = [parent for parent in hyperparameter.when if parent not in {*given, *searched, *removed}]
        errors += [
            f"--space: {hyperparameter.name} depends on {parent}, which is neither a setting nor an earlier "
            "hyperparameter"
            for parent in unknown
        ]
        if not unknown:
            errors += _condition_errors(hyperparameter, by_name, settings)
        decided = {parent: allowed for parent, allowed in hyperparameter.when.items() if parent not in searched}
        if applies(hyperparameter.model_copy(update={"when": decided}), given):
            conditions = {parent: allowed for parent, allowed in hyperparameter.when.items() if parent in searched}
            searched[hyperparameter.name] = hyperparameter.model_copy(update={"when": conditions})
        else:
            removed.add(hyperparameter.name)
    if errors:
        raise SettingsError(errors)
    return tuple(searched.values())


def _condition_errors(
    hyperparameter: Hyperparameter, by_name: Mapping[str, Hyperparameter], settings: Settings
) -> list[str]:
    """Return an error for each value in a hyperparameter's condition that the parent cannot have."""
    errors = []
    for parent, allowed in hyperparameter.when.items():
        for value in allowed:
            problem = f"--space: {hyperparameter.name} depends on {parent} being {value!r}, which is impossible"
            if parent in by_name:
                if not by_name[parent].allows(value):
                    errors.append(f"{problem}; it is {by_name[parent].range()}")
                continue
            try:
                settings.with_overrides({parent: value})
            except SettingsError as error:
                errors += [f"{problem}: {message}" for message in error.errors]
    return errors


def baseline_configurations(
    hyperparameters: Sequence[Hyperparameter], searched: Sequence[Hyperparameter], settings: Settings
) -> tuple[NamedConfiguration, ...]:
    """Return the configurations that every search runs first.

    They are plain ERM; the paper's setting, with all other hyperparameters at their defaults; and ERM on the balanced
    batches of the group losses, since a gain of a group loss may come from its sampling alone.

    The paper's setting always has the paper's loss, whatever is fixed. It informs the sampler if it lies in the space;
    otherwise it consists of fixed settings, as ERM does.

    Args:
        hyperparameters: of the space.
        searched: those that are not fixed.
        settings: of the study.
    """
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in searched}
    values = walk(hyperparameters, lambda hyperparameter: PAPER.get(hyperparameter.name, hyperparameter.default))
    inside = {name: value for name, value in values.items() if name in by_name}
    current = flatten(settings.model_dump(mode="json"))
    paper_loss = flatten({"loss": Settings().with_overrides(PAPER).loss.model_dump(mode="json")})
    outside = {key: value for key, value in paper_loss.items() if key not in by_name and current.get(key) != value}
    if any(settings.loss.model_dump().get("coefficients", {}).values()):  # some are fixed: the paper's are all 1
        outside[COEFFICIENTS] = {}
    in_space = settings.with_overrides(outside) == settings
    in_space &= all(by_name[name].allows(value) for name, value in inside.items())
    label = "paper's setting"
    paper = (
        NamedConfiguration(label, hyperparameters=inside)
        if in_space
        else NamedConfiguration(label, fixed={**inside, **outside})
    )
    return (
        NamedConfiguration("ERM", fixed={"loss.method": "erm"}),
        paper,
        NamedConfiguration("ERM, balanced", fixed={"loss.method": "erm", "loss.sampling": "balanced"}),
    )


def _read_file(name: str) -> HyperparameterMaker:
    path = Path(name).expanduser()
    if path.suffix != ".toml":
        raise SettingsError(
            [f"--space: there is no {name!r}; choose from {', '.join(SPACES)}, joined with +, or give a TOML file"]
        )
    try:
        hyperparameters = parse(SpaceFile, tomllib.loads(path.read_text(encoding="utf-8"))).hyperparameter
    except (OSError, ValueError) as error:
        errors = error.errors if isinstance(error, SettingsError) else [str(error)]
        raise SettingsError([f"--space {name}: {message}" for message in errors]) from None
    shared = [
        f"--space {name}: {hyperparameter.name} cannot be searched: {reason}; leave it out, and set it with a flag or "
        "--set"
        for hyperparameter in hyperparameters
        for key, reason in SHARED.items()
        if f"{hyperparameter.name}.".startswith(f"{key}.")
    ]
    if shared:
        raise SettingsError(shared)
    return lambda languages, settings: hyperparameters
