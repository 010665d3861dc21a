"""A knob: one dotted setting with its range and the reason for it; a space: the knobs a study searches.

A space knows no Optuna study: ``Space.suggest`` takes anything with Optuna's ``suggest_*`` methods (define-by-run).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Suggester(Protocol):
    """The part of ``optuna.Trial`` that a space uses."""

    user_attrs: Mapping[str, Any]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Knob:
    """One searched setting.

    Attributes:
        name: dotted key of ``study.settings.Settings``.
        reason: why it is searched, and why in this range.
        low, high, log: a float range; or
        choices: a categorical.
        unit: of the value.
        when: (name of an earlier knob, its values for which this one exists).
    """

    name: str
    reason: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] = ()
    unit: str = ""
    when: tuple[str, tuple[str, ...]] | None = None

    def suggest(self, trial: Suggester) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def range(self) -> str:
        """The range as a reader would write it."""
        if self.choices:
            return " | ".join(self.choices)
        return f"{self.low:g} … {self.high:g}{' (log)' if self.log else ''}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True)
class Reference:
    """A configuration that every study of a space runs first.

    ``knobs`` lie inside the space and inform the sampler; ``fixed`` are settings outside it (plain ERM, say).
    """

    label: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """What a study searches, for the cells it has."""

    name: str
    knobs: tuple[Knob, ...]
    references: tuple[Reference, ...]

    def suggest(self, trial: Suggester) -> dict[str, Any]:
        """Dotted overrides of the settings for one trial, conditional knobs left out where they do not apply."""
        if fixed := trial.user_attrs.get("fixed"):
            return dict(fixed)
        if not self.knobs:
            raise ValueError(f"the space {self.name} has named configurations only, and none of them is left to run")
        values: dict[str, Any] = {}
        for knob in self.knobs:
            if knob.when is None or values.get(knob.when[0]) in knob.when[1]:
                values[knob.name] = knob.suggest(trial)
        return values
