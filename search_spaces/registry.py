"""Spaces by name, alone or together, or from a file; with the configurations that every study runs first.

A file is TOML, one table a knob (fields: ``search_spaces.space.Knob``)::

    [[hyperparameter]]
    name = "optimisation.weight_decay"
    reason = "the paper's 0.01, and ten times more or less"
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
from search_spaces.space import Hyperparameter, NamedConfiguration, Space, exists, walk
from study.common.base_model import Frozen
from study.common.errors import SettingsError
from study.common.groups import LANGUAGES
from study.config.settings import Settings, flatten, parse

HyperparameterMaker = Callable[[Sequence[str], Settings], tuple[Hyperparameter, ...]]
SpaceMaker = Callable[[Sequence[str], Settings], Space]
"""From the languages of a corpus and the study's settings."""

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
"""arXiv 2603.21050, adaptive from 0 (its step size is our guess), where it is not the default of a knob."""


PREPARED: dict[str, str] = {
    "corpus": "the corpus is read, split and turned into features once, for all trials",
    "backbone.spec": "the backbone is loaded, and features are made for it, once for all trials",
    "prompt": "the tiny backbone's words are made from the prompt once, for all trials",
    "modalities": "all trials are compared on the same cells",
    "control": "all trials are selected on the same utterances of dev",
    "computation": "how a step is computed changes no result, so all trials would be the same configuration",
    "optimisation.epochs": "the stops, the cost and the time left of a study count the same epochs for all trials",
}
"""What trials of a study have in common, so that none of them can have its own: settings, and all below them."""


class SpaceFile(Frozen):
    """What a TOML file declares."""

    hyperparameter: tuple[Hyperparameter, ...]


def space_maker(name: str, fixed: Sequence[str] = (), pinned: Mapping[str, Any] | None = None) -> SpaceMaker:
    """The maker of a space.

    Args:
        name: names of ``SPACES`` and paths of TOML files, joined with ``+``.
        fixed: dotted settings that are given and so not searched.
        pinned: values of conditional knobs that are given: each has this value wherever it exists.

    Raises:
        SettingsError: a name that is none, or a file that cannot be read; the message names the knob and the remedy.
    """
    return partial(_make, name, _parts(name), tuple(fixed), pinned or {})


def split_fixed(name: str, base: Settings, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given of a study, parted into what all of its trials have and what only some can have.

    A conditional knob of the space, whose condition the settings do not meet, is held at its value where it exists.
    Where a given setting brings knobs along that have no default of their own (a constant schedule its weight), the
    settings start from the knobs' defaults.

    Args:
        name: of the space, as for :func:`space_maker`.
        base: settings before anything is given.
        given: dotted overrides of them.

    Returns:
        Overrides of the settings, and values to hold.

    Raises:
        SettingsError: as :func:`space_maker`.

    >>> schedule = "loss.fairness_weight.schedule"
    >>> split_fixed("schedules", Settings(), {schedule: "constant"})[0]["loss.fairness_weight.weight"]
    0.3
    >>> split_fixed("schedules", Settings(), {"loss.fairness_weight.ramp_fraction": 0.5})
    ({}, {'loss.fairness_weight.ramp_fraction': 0.5})
    """
    hyperparameters = [
        hyperparameter
        for hyperparameter in composed([(part, make(LANGUAGES, base)) for part, make in _parts(name)])
        if hyperparameter.when
    ]
    plain = flatten(base.model_dump(mode="json"))
    overrides, pinned = dict(given), {}
    for hyperparameter in hyperparameters:
        if exists(hyperparameter, {**plain, **overrides}):
            if any(overrides.get(parent, plain.get(parent)) != plain.get(parent) for parent in hyperparameter.when):
                overrides.setdefault(hyperparameter.name, hyperparameter.default)
        elif hyperparameter.name in overrides and hyperparameter.name not in plain:
            pinned[hyperparameter.name] = overrides.pop(hyperparameter.name)
    return overrides, pinned


def _parts(name: str) -> tuple[tuple[str, HyperparameterMaker], ...]:
    parts, errors = [], []
    for part in name.split("+"):
        try:
            parts.append((part, SPACES[part] if part in SPACES else _of_file(part)))
        except SettingsError as error:
            errors += error.errors
    if errors:
        raise SettingsError(errors)
    return tuple(parts)


def _make(
    name: str,
    parts: Sequence[tuple[str, HyperparameterMaker]],
    fixed: Sequence[str],
    pinned: Mapping[str, Any],
    languages: Sequence[str],
    settings: Settings,
) -> Space:
    hyperparameters = composed([(part, make(languages, settings)) for part, make in parts])
    if not hyperparameters:
        having = f"{', '.join(languages)} and {', '.join(settings.modalities)}"
        raise SettingsError([f"--space {name}: with {having} it has nothing to search"])
    left = pruned(hyperparameters, fixed, settings)
    nowhere = [
        hyperparameter
        for hyperparameter in hyperparameters
        if hyperparameter.name in pinned and hyperparameter.name not in {there.name for there in left}
    ]
    if nowhere:
        raise SettingsError([_nowhere(hyperparameter, name) for hyperparameter in nowhere])
    left = tuple(
        hyperparameter.held_at(pinned[hyperparameter.name]) if hyperparameter.name in pinned else hyperparameter
        for hyperparameter in left
    )
    if not left:
        raise SettingsError([f"--set: with {', '.join(fixed)} the space {name} has nothing left to search"])
    return Space(name, left, baselines(hyperparameters, left, settings))


def _nowhere(hyperparameter: Hyperparameter, name: str) -> str:
    only = " and ".join(
        f"{parent} is {' or '.join(map(str, values))}" for parent, values in hyperparameter.when.items()
    )
    return f"--set {hyperparameter.name}: no configuration of the space {name} has it: only where {only}; leave it out"


def composed(parts: Sequence[tuple[str, tuple[Hyperparameter, ...]]]) -> tuple[Hyperparameter, ...]:
    """The knobs of several spaces; one that is in two of them counts once.

    Raises:
        SettingsError: two spaces declare a knob differently, or coefficients a cell stand beside coarser ones.
    """
    hyperparameters: dict[str, tuple[str, Hyperparameter]] = {}
    errors = []
    for part, own in parts:
        for hyperparameter in own:
            before, known = hyperparameters.setdefault(hyperparameter.name, (part, hyperparameter))
            if known != hyperparameter:
                errors.append(f"--space: {before} and {part} declare {hyperparameter.name} differently; leave one out")
    kinds = {
        name.removeprefix(f"{COEFFICIENTS}.").split(".")[0] for name in hyperparameters if name.startswith(COEFFICIENTS)
    }
    if "cells" in kinds and len(kinds) > 1:
        errors.append("--space: coefficients per cell hold those per language and per modality already; leave one out")
    if errors:
        raise SettingsError(errors)
    return tuple(hyperparameter for _, hyperparameter in hyperparameters.values())


def pruned(
    hyperparameters: Sequence[Hyperparameter], fixed: Sequence[str], settings: Settings
) -> tuple[Hyperparameter, ...]:
    """The knobs that are left when some settings are fixed.

    A conditional knob whose parent is fixed, or never searched, loses the condition, or goes where the settings do not
    meet it.

    Args:
        fixed: dotted settings; one may stand for all below it (``loss.coefficients``).
        settings: those that hold them.

    Raises:
        SettingsError: a condition on what is neither a setting nor an earlier knob, or on a value that it cannot have.
    """
    out = {
        hyperparameter.name
        for hyperparameter in hyperparameters
        if any(hyperparameter.name == key or hyperparameter.name.startswith(f"{key}.") for key in fixed)
    }
    searched = {hyperparameter.name for hyperparameter in hyperparameters} - out
    given = {k: v for k, v in flatten(settings.model_dump(mode="json")).items() if k not in searched}
    left: dict[str, Hyperparameter] = {}
    gone: set[str] = set()
    errors = []
    for hyperparameter in hyperparameters:
        if hyperparameter.name in out:
            continue
        strangers = [
            parent for parent in hyperparameter.when if parent not in {**given, **left} and parent not in {*out, *gone}
        ]
        errors += [
            f"--space: {hyperparameter.name} depends on {p}, which is no setting and no knob before it"
            for p in strangers
        ]
        errors += (
            [] if strangers else _impossible(hyperparameter, {other.name: other for other in hyperparameters}, settings)
        )
        settled = {parent: allowed for parent, allowed in hyperparameter.when.items() if parent not in left}
        if exists(hyperparameter.model_copy(update={"when": settled}), given):
            conditions = {parent: allowed for parent, allowed in hyperparameter.when.items() if parent in left}
            left[hyperparameter.name] = hyperparameter.model_copy(update={"when": conditions})
        else:
            gone.add(hyperparameter.name)
    if errors:
        raise SettingsError(errors)
    return tuple(left.values())


def _impossible(
    hyperparameter: Hyperparameter, searched: Mapping[str, Hyperparameter], settings: Settings
) -> list[str]:
    """Values of a knob's conditions that their parents cannot have."""
    errors = []
    for parent, allowed in hyperparameter.when.items():
        words = f"--space: {hyperparameter.name} depends on {parent} being"
        for value in allowed:
            if parent in searched:
                if not searched[parent].holds(value):
                    errors.append(f"{words} {value!r}, which it cannot be; it is {searched[parent].range()}")
                continue
            try:
                settings.with_overrides({parent: value})
            except SettingsError as error:
                errors += [f"{words} {value!r}, which it cannot be: {message}" for message in error.errors]
    return errors


def baselines(
    hyperparameters: Sequence[Hyperparameter], left: Sequence[Hyperparameter], settings: Settings
) -> tuple[NamedConfiguration, ...]:
    """Plain ERM; the paper's setting with every other knob at its default; and ERM on the balanced batches of the
    group methods, since gains of a group loss are often the sampler's.

    The paper's setting has the paper's objective whatever is fixed. It informs the sampler where it lies in the space;
    else it stands beside it, as ERM does.

    Args:
        left: those of the knobs that are searched.
    """
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in left}
    everything = walk(hyperparameters, lambda hyperparameter: PAPER.get(hyperparameter.name, hyperparameter.default))
    searched = {name: value for name, value in everything.items() if name in by_name}
    given = flatten(settings.model_dump(mode="json"))
    papers = flatten({"loss": Settings().with_overrides(PAPER).loss.model_dump(mode="json")})
    outside = {key: value for key, value in papers.items() if key not in by_name and given.get(key) != value}
    if any(settings.loss.model_dump().get("coefficients", {}).values()):  # some are fixed: the paper's are all 1
        outside[COEFFICIENTS] = {}
    inside = settings.with_overrides(outside) == settings
    inside &= all(by_name[name].holds(value) for name, value in searched.items())
    paper = NamedConfiguration(
        "paper's setting", **{"hyperparameters": searched} if inside else {"fixed": {**searched, **outside}}
    )
    return (
        NamedConfiguration("ERM", fixed={"loss.method": "erm"}),
        paper,
        NamedConfiguration("ERM, balanced", fixed={"loss.method": "erm", "loss.sampling": "balanced"}),
    )


def _of_file(part: str) -> HyperparameterMaker:
    path = Path(part).expanduser()
    if path.suffix != ".toml":
        raise SettingsError(
            [f"--space: there is no {part!r}; choose from {', '.join(SPACES)}, joined with +, or give a TOML file"]
        )
    try:
        tree: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        hyperparameters = parse(SpaceFile, tree).hyperparameter
    except (OSError, ValueError) as error:
        errors = error.errors if isinstance(error, SettingsError) else [str(error)]
        raise SettingsError([f"--space {part}: {message}" for message in errors]) from None
    shared = [
        f"--space {part}: {hyperparameter.name} cannot be searched: {reason}; leave it out, "
        "and give it by a flag or --set"
        for hyperparameter in hyperparameters
        for key, reason in PREPARED.items()
        if hyperparameter.name == key or hyperparameter.name.startswith(f"{key}.")
    ]
    if shared:
        raise SettingsError(shared)
    return lambda languages, settings: hyperparameters
