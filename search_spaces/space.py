"""A hyperparameter: one searched setting with its range. A space: the hyperparameters that a study searches.

The module does not import Optuna: ``Space.suggest`` takes any object with Optuna's ``suggest_*`` methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, model_validator

from study.common.base_model import Frozen

Number = Annotated[float, Field(allow_inf_nan=False)]
Choice = bool | int | float | str


class Suggester(Protocol):
    """The methods of ``optuna.Trial`` that a space uses."""

    @property
    def user_attrs(self) -> Mapping[str, Any]: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Hyperparameter(Frozen):
    """One searched setting: a range of numbers, or a set of choices.

    Attributes:
        name: dotted name of a setting in ``study.config.settings.Settings``.
        reason: why it is searched, and why in this range.
        default: value of trials that ran before the hyperparameter was added to the space, if their settings have none.
        low: lower end of the range, included.
        high: upper end of the range, included.
        scale: scale on which the range is sampled.
        integer: whether only integers are allowed.
        choices: the allowed values, instead of a range.
        unit: unit of the value.
        when: condition for the hyperparameter to apply: allowed values of earlier hyperparameters, by name.
    """

    name: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    default: Choice
    low: Number | None = None
    high: Number | None = None
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False
    choices: tuple[Choice, ...] = ()
    unit: str = ""
    when: dict[str, tuple[Choice, ...]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Hyperparameter:
        if self.choices:
            if self.low is not None or self.high is not None:
                raise ValueError(f"{self.name} has both choices and a range; give one of them")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError(f"{self.name} contains a choice twice")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"{self.name} needs choices, or a range with low below high")
        elif self.scale == "log" and self.low <= 0:
            raise ValueError(f"{self.name} has a log scale, so low must be above 0")
        elif self.integer and (self.low % 1 or self.high % 1):
            raise ValueError(f"{self.name} is an integer, so low and high must be integers")
        if empty := [parent for parent, allowed in self.when.items() if not allowed]:
            raise ValueError(f"{self.name} has a condition on {', '.join(empty)} without values")
        if not self.allows(self.default):
            raise ValueError(f"{self.name} has the default {self.default!r}, which is outside its range")
        return self

    def allows(self, value: Any) -> bool:
        """Return whether the value is a choice or lies in the range."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and not (self.integer and value % 1)

    def ends(self) -> tuple[Choice, ...]:
        """Return every choice, or both ends of the range; they are validated before a study starts."""
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)

    def between(self) -> Sequence[Choice]:
        """Return values inside the range that are validated as well: up to 1000 integers, or one non-integer number."""
        if self.choices:
            return ()
        assert self.low is not None and self.high is not None
        if self.integer:
            return range(int(self.low) + 1, int(self.high))[:1000]
        return (self.low + (math.sqrt(5) - 1) / 2 * (self.high - self.low),)

    def values(self) -> Sequence[Choice] | None:
        """Return all allowed values, or None if there are infinitely many."""
        if self.choices or not self.integer:
            return self.choices or None
        assert self.low is not None and self.high is not None
        return range(int(self.low), int(self.high) + 1)

    def contains(self, other: Hyperparameter) -> bool:
        """Return whether every value of ``other`` is allowed, so that a study of ``other`` can be extended."""
        return bool(self.choices) == bool(other.choices) and all(
            self.allows(value) for value in (*other.ends(), *other.between())
        )

    def suggest(self, trial: Suggester) -> Any:
        """Return the value that a trial suggests."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        assert self.low is not None and self.high is not None
        log = self.scale == "log"
        if self.integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=log)
        return trial.suggest_float(self.name, self.low, self.high, log=log)

    def on_grid(self, points: int) -> Hyperparameter:
        """Return the hyperparameter with ``points`` evenly spaced choices, on its scale, instead of its range.

        >>> hyperparameter = Hyperparameter(name="a", reason="-", default=1.0, low=0.1, high=10.0, scale="log")
        >>> hyperparameter.on_grid(3).choices
        (0.1, 1.0, 10.0)
        """
        if self.choices:
            return self
        assert self.low is not None and self.high is not None
        log = self.scale == "log"
        low, high = (math.log(self.low), math.log(self.high)) if log else (self.low, self.high)
        raw = [low + (high - low) * i / (points - 1) for i in range(points)]
        values = [float(f"{math.exp(value) if log else value:.6g}") for value in raw]
        values[0], values[-1] = self.low, self.high
        choices = tuple(dict.fromkeys(int(round(value)) if self.integer else value for value in values))
        nearest = min(choices, key=lambda value: abs(value - float(self.default)))
        return self.model_copy(
            update={"choices": choices, "default": nearest, "low": None, "high": None, "scale": "linear"}
        )

    def pinned_at(self, value: Choice) -> Hyperparameter:
        """Return the hyperparameter with a single value, which may lie outside the range."""
        return self.model_copy(
            update={"choices": (value,), "default": value, "low": None, "high": None, "scale": "linear"}
        )

    def range(self) -> str:
        """Return the range or the choices as text."""
        unit = f" {self.unit}" if self.unit else ""
        if self.choices:
            return " | ".join(map(str, self.choices)) + unit
        notes = [note for note, shown in (("log", self.scale == "log"), ("integer", self.integer)) if shown]
        return f"{self.low:g} … {self.high:g}" + (f" ({', '.join(notes)})" if notes else "") + unit


@dataclass(frozen=True)
class NamedConfiguration:
    """A named configuration, such as a baseline or an arm of an ablation.

    Attributes:
        label: its name.
        hyperparameters: values inside the search space; they inform the sampler.
        fixed: settings outside the search space, such as those of plain ERM.
        note: where the configuration comes from.
    """

    label: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Space:
    """The hyperparameters that a study searches, and the baseline configurations that it runs first."""

    name: str
    hyperparameters: tuple[Hyperparameter, ...]
    baselines: tuple[NamedConfiguration, ...]

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """Return the settings of a trial by dotted name, without conditional hyperparameters that do not apply."""
        if fixed := trial.user_attrs.get("fixed"):
            return dict(fixed)
        if not self.hyperparameters:
            raise ValueError(f"the space {self.name} has only named configurations, and all of them have run")
        return walk(self.hyperparameters, lambda hyperparameter: hyperparameter.suggest(trial))

    def on_grid(self, points: int) -> Space:
        """Return the space with at most ``points`` values per hyperparameter.

        Baseline configurations that are not on the grid become fixed settings.
        """
        hyperparameters = tuple(hyperparameter.on_grid(points) for hyperparameter in self.hyperparameters)
        by_name = {hyperparameter.name: hyperparameter for hyperparameter in hyperparameters}
        baselines = tuple(
            baseline
            if all(by_name[name].allows(value) for name, value in baseline.hyperparameters.items())
            else replace(baseline, hyperparameters={}, fixed=baseline.hyperparameters)
            for baseline in self.baselines
        )
        return Space(self.name, hyperparameters, baselines)

    @property
    def finite(self) -> bool:
        """Whether the number of configurations is finite."""
        return all(hyperparameter.values() is not None for hyperparameter in self.hyperparameters)

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield every configuration of a finite space."""
        return _points(self.hyperparameters, {})


def walk(hyperparameters: Sequence[Hyperparameter], choose: Callable[[Hyperparameter], Any]) -> dict[str, Any]:
    """Choose a value for each hyperparameter that applies, given the values chosen before; return them by name."""
    values: dict[str, Any] = {}
    for hyperparameter in hyperparameters:
        if applies(hyperparameter, values):
            values[hyperparameter.name] = choose(hyperparameter)
    return values


def applies(hyperparameter: Hyperparameter, values: Mapping[str, Any]) -> bool:
    """Return whether the condition of a hyperparameter holds for these values."""
    return all(values.get(parent) in allowed for parent, allowed in hyperparameter.when.items())


def _points(hyperparameters: Sequence[Hyperparameter], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not hyperparameters:
        yield values
    elif not applies(hyperparameters[0], values):
        yield from _points(hyperparameters[1:], values)
    else:
        for choice in hyperparameters[0].values() or ():
            yield from _points(hyperparameters[1:], {**values, hyperparameters[0].name: choice})
