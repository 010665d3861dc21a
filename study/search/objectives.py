"""Search objectives and constraints, by metric name.

A metric name is one of:

- ``dev_`` plus a metric of ``study.evaluation.metrics.evaluate``, such as ``dev_w_f1``, ``dev_gap``,
  ``dev_worst_group_w_f1``;
- the same for a language, a modality or a cell, such as ``dev_gap@de``, ``dev_uar@speech``,
  ``dev_gap_tpr@ja/speech+text``: the mean over the cells that match;
- ``seconds``: the wall-clock seconds of a run.

Test metrics cannot be objectives. Values are means over seeds; rates and gaps are fractions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.common.groups import Cell
from study.evaluation.metrics import GAP_KINDS
from study.storage.schemas import OBJECTIVES

SECONDS = "seconds"
MODES = ("max", "min")
CELL_METRICS = ("w_f1", "accuracy", "uar", "invalid", "gap", "gap_standardised", *(f"gap_{kind}" for kind in GAP_KINDS))
OVERALL_METRICS = (*CELL_METRICS, "worst_gap", "worst_group_w_f1")
MAX_OBJECTIVES = 3


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric. ``sign`` is ``<=`` or ``>=``."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def violation(self, value: float) -> float:
        """Return by how much a value violates the constraint; 0 or less where it is met.

        >>> Constraint("dev_gap", "<=", 0.03).violation(0.05)
        0.02
        """
        return round(value - self.bound if self.sign == "<=" else self.bound - value, 12)


@dataclass(frozen=True)
class SearchObjectives:
    """The objectives of a search, as (metric, "max" or "min"), and its constraints."""

    objectives: tuple[tuple[str, str], ...] = OBJECTIVES
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of the objectives and constraints, without duplicates."""
        metrics = [metric for metric, _ in self.objectives] + [constraint.metric for constraint in self.constraints]
        return tuple(dict.fromkeys(metrics))

    def violations(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the violation of each constraint, by its text.

        Args:
            values: the value of each metric.
        """
        return {str(constraint): constraint.violation(values[constraint.metric]) for constraint in self.constraints}


def parse_search_objectives(objectives: str, constraints: Sequence[str]) -> tuple[SearchObjectives, list[str]]:
    """Parse objectives such as ``dev_w_f1:max,dev_gap:min`` and constraints such as ``gap<=0.03``.

    The prefix ``dev_`` may be omitted.

    Returns:
        The objectives and constraints (the defaults if there is an error), and the error messages.

    >>> search_objectives, errors = parse_search_objectives("dev_uar:max,seconds:min", ["gap<=0.03"])
    >>> search_objectives.objectives, str(search_objectives.constraints[0]), errors
    ((('dev_uar', 'max'), ('seconds', 'min')), 'dev_gap<=0.03', [])
    """
    errors, pairs, bounds = [], [], []
    for item in objectives.split(","):
        metric, _, mode = item.strip().rpartition(":")
        if not metric or mode not in MODES:
            errors.append(f"--objectives: {item!r} is not METRIC:max or METRIC:min")
        else:
            pairs.append((_full_name(metric), mode))
    if not errors and not 2 <= len({metric for metric, _ in pairs}) == len(pairs) <= MAX_OBJECTIVES:
        errors.append(f"--objectives: {objectives!r} must name 2 or {MAX_OBJECTIVES} different metrics")
    for text in constraints:
        match = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*", text)
        try:
            assert match
            constraint = Constraint(_full_name(match[1]), match[2], float(match[3]))
            assert math.isfinite(constraint.bound)
        except (AssertionError, ValueError):
            errors.append(f"--constraint: {text!r} is not METRIC<=NUMBER or METRIC>=NUMBER, e.g. 'gap<=0.03'")
            continue
        if constraint.metric != SECONDS and not 0 <= constraint.bound <= 1:
            errors.append(
                f"--constraint: {text!r} is not between 0 and 1; gaps and rates are fractions, so 3 points are 0.03"
            )
        bounds.append(constraint)
    return (SearchObjectives() if errors else SearchObjectives(tuple(pairs), tuple(bounds))), errors


def objective_errors(search_objectives: SearchObjectives, cells: Sequence[Cell]) -> list[str]:
    """Return an error message for each metric that a study of these cells does not record."""
    known, objectives = available_metrics(cells), dict(search_objectives.objectives)
    return [
        f"--{'objectives' if metric in objectives else 'constraint'}: there is no metric {metric}; "
        f"choose from {', '.join(known)}"
        for metric in search_objectives.metrics
        if metric not in known
    ]


def available_metrics(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the name of every metric that a study of these cells records."""
    scopes = [*(c.language for c in cells), *(c.modality for c in cells), *map(str, cells)]
    overall = [f"dev_{metric}" for metric in OVERALL_METRICS]
    return (*overall, SECONDS, *(f"dev_{metric}@{scope}" for scope in dict.fromkeys(scopes) for metric in CELL_METRICS))


def epoch_metrics(metrics: Iterable[str], row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the named metrics after one epoch, without ``seconds``, which exists for whole runs only.

    Args:
        row: a row of ``epochs.jsonl``, with the output of ``study.evaluation.metrics.evaluate`` as ``dev``.

    Raises:
        KeyError: the row lacks a metric, as rows of older versions do.
    """
    return {metric: metric_value(metric, row) for metric in metrics if metric != SECONDS}


def metric_value(metric: str, finished: Mapping[str, Any]) -> float | None:
    """Return a metric of one run.

    Args:
        finished: the ``finished.json`` of the run.

    Returns:
        None if the metric is undefined in every cell that it names.
    """
    if metric == SECONDS:
        return float(finished["seconds"]["total"])
    name, _, scope = metric.removeprefix("dev_").partition("@")
    if not scope:
        value = finished["dev"][name]
        return None if value is None else float(value)
    kind = name.removeprefix("gap_")
    values = [
        metrics["absolute"][kind] if name.startswith("gap_") and kind in GAP_KINDS else metrics[name]
        for cell, metrics in finished["dev"]["cells"].items()
        if scope in (cell, *cell.split("/", 1))
    ]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def mean_metrics(metrics: Iterable[str], runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return each metric averaged over the seeds of a configuration.

    Args:
        runs: the ``finished.json`` of each seed.

    Raises:
        ValueError: a metric is undefined for a seed; a mean over the other seeds would not be comparable.
    """
    means = {}
    for metric in metrics:
        values = [metric_value(metric, run) for run in runs]
        defined = [value for value in values if value is not None]
        if len(defined) < len(values):
            raise ValueError(f"{metric} is undefined: no dev cell that it names has an emotion spoken by both genders")
        means[metric] = sum(defined) / len(defined)
    return means


def _full_name(metric: str) -> str:
    metric = metric.strip()
    return metric if metric == SECONDS or metric.startswith("dev_") else f"dev_{metric}"
