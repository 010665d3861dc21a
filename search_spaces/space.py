"""A knob: one dotted setting with its range and the reason for it; a space: the knobs a study searches.

A space knows no Optuna study: ``Space.suggest`` takes anything with Optuna's ``suggest_*`` methods (define-by-run).
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
    """The part of ``optuna.Trial`` that a space uses."""

    @property
    def user_attrs(self) -> Mapping[str, Any]: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Hyperparameter(Frozen):
    """One searched setting: a range of numbers, or choices.

    Attributes:
        name: dotted key of ``study.config.settings.Settings``.
        reason: why it is searched, and why in this range.
        default: what a trial has that was run before the knob was added, where its settings do not say.
        low, high: a range, both ends included.
        scale: of the range.
        integer: whole numbers only.
        choices: in place of a range.
        unit: of the value.
        when: names of earlier knobs, and the values of each for which this one exists.
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
    def _sound(self) -> Hyperparameter:
        if self.choices:
            if self.low is not None or self.high is not None:
                raise ValueError(f"{self.name} has choices and a range: give one of them")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError(f"{self.name} names a choice twice")
        elif self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(f"{self.name} needs choices, or a low below its high")
        elif self.scale == "log" and self.low <= 0:
            raise ValueError(f"{self.name} has a log scale, so its low must be above 0")
        elif self.integer and (self.low % 1 or self.high % 1):
            raise ValueError(f"{self.name} is an integer, so its low and high must be whole numbers")
        if empty := [parent for parent, allowed in self.when.items() if not allowed]:
            raise ValueError(f"{self.name} names no value of {', '.join(empty)} in its condition")
        if not self.holds(self.default):
            raise ValueError(f"{self.name} has the default {self.default!r}, which is not in its own range")
        return self

    def holds(self, value: Any) -> bool:
        """Whether the knob can have this value."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and not (self.integer and value % 1)

    def ends(self) -> tuple[Choice, ...]:
        """The values that are checked against the settings before a start: every choice, or both ends of the range."""
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)

    def between(self) -> Sequence[Choice]:
        """Values between the ends that are checked as well: the whole numbers, up to a thousand of them, or one that is
        not whole."""
        if self.choices:
            return ()
        assert self.low is not None and self.high is not None
        if self.integer:
            return range(int(self.low) + 1, int(self.high))[:1000]
        return (self.low + (math.sqrt(5) - 1) / 2 * (self.high - self.low),)

    def values(self) -> Sequence[Choice] | None:
        """Every value that it can have; None where there is no end of them."""
        if self.choices or not self.integer:
            return self.choices or None
        assert self.low is not None and self.high is not None
        return range(int(self.low), int(self.high) + 1)

    def contains(self, other: Hyperparameter) -> bool:
        """Whether it has every value of another knob, so that a study that searched that one can go on with this."""
        return bool(self.choices) == bool(other.choices) and all(
            self.holds(value) for value in (*other.ends(), *other.between())
        )

    def suggest(self, trial: Suggester) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        assert self.low is not None and self.high is not None
        log = self.scale == "log"
        if self.integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=log)
        return trial.suggest_float(self.name, self.low, self.high, log=log)

    def on_grid(self, points: int) -> Hyperparameter:
        """The same knob with ``points`` choices, evenly spaced on its scale, in place of its range.

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

    def held_at(self, value: Choice) -> Hyperparameter:
        """The same knob with this value alone, wherever it exists; it need not lie in the range."""
        return self.model_copy(
            update={"choices": (value,), "default": value, "low": None, "high": None, "scale": "linear"}
        )

    def range(self) -> str:
        """The range as a reader would write it."""
        unit = f" {self.unit}" if self.unit else ""
        if self.choices:
            return " | ".join(map(str, self.choices)) + unit
        marks = [mark for mark, there in (("log", self.scale == "log"), ("integer", self.integer)) if there]
        return f"{self.low:g} … {self.high:g}" + (f" ({', '.join(marks)})" if marks else "") + unit


@dataclass(frozen=True)
class NamedConfiguration:
    """A configuration that every study of a space runs first.

    ``knobs`` lie inside the space and inform the sampler; ``fixed`` are settings outside it (plain ERM, say). ``note``
    says where it comes from, if that needs saying.
    """

    label: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Space:
    """What a study searches, for the cells it has."""

    name: str
    hyperparameters: tuple[Hyperparameter, ...]
    baselines: tuple[NamedConfiguration, ...]

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """Dotted overrides of the settings for one trial, conditional knobs left out where they do not apply."""
        if fixed := trial.user_attrs.get("fixed"):
            return dict(fixed)
        if not self.hyperparameters:
            raise ValueError(f"the space {self.name} has named configurations only, and none of them is left to run")
        return walk(self.hyperparameters, lambda hyperparameter: hyperparameter.suggest(trial))

    def on_grid(self, points: int) -> Space:
        """The same space with at most ``points`` values a knob; a reference that is not among them lies outside."""
        hyperparameters = tuple(hyperparameter.on_grid(points) for hyperparameter in self.hyperparameters)
        by_name = {hyperparameter.name: hyperparameter for hyperparameter in hyperparameters}
        baselines = tuple(
            baseline
            if all(by_name[name].holds(value) for name, value in baseline.hyperparameters.items())
            else replace(baseline, hyperparameters={}, fixed=baseline.hyperparameters)
            for baseline in self.baselines
        )
        return Space(self.name, hyperparameters, baselines)

    @property
    def finite(self) -> bool:
        """Whether it has an end of configurations."""
        return all(hyperparameter.values() is not None for hyperparameter in self.hyperparameters)

    def points(self) -> Iterator[dict[str, Any]]:
        """Every configuration of a finite space."""
        return _points(self.hyperparameters, {})


def walk(hyperparameters: Sequence[Hyperparameter], choose: Callable[[Hyperparameter], Any]) -> dict[str, Any]:
    """The values of the knobs that exist given those before them."""
    values: dict[str, Any] = {}
    for hyperparameter in hyperparameters:
        if exists(hyperparameter, values):
            values[hyperparameter.name] = choose(hyperparameter)
    return values


def exists(hyperparameter: Hyperparameter, values: Mapping[str, Any]) -> bool:
    """Whether a conditional knob applies beside these values."""
    return all(values.get(parent) in allowed for parent, allowed in hyperparameter.when.items())


def _points(hyperparameters: Sequence[Hyperparameter], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not hyperparameters:
        yield values
    elif not exists(hyperparameters[0], values):
        yield from _points(hyperparameters[1:], values)
    else:
        for choice in hyperparameters[0].values() or ():
            yield from _points(hyperparameters[1:], {**values, hyperparameters[0].name: choice})
