"""What a search looks for: objectives and requirements on the dev figures of a trial, by name.

A metric is ``dev_`` and a figure of ``study.evaluation.metrics.evaluate`` (``dev_w_f1``, ``dev_gap``,
``dev_worst_group_w_f1``), or one of a language, a modality or a cell (``dev_gap@de``, ``dev_uar@speech``,
``dev_gap_tpr@ja/speech+text``), the mean over the cells that this names; or ``seconds``, the wall-clock seconds of a
run on its ranks. Of test nothing can be named. Values are means over seeds, fractions for rates and gaps.
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
OF_A_CELL = ("w_f1", "accuracy", "uar", "invalid", "gap", "gap_standardised", *(f"gap_{kind}" for kind in GAP_KINDS))
FIGURES = (*OF_A_CELL, "worst_gap", "worst_group_w_f1")
MOST = 3


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial should keep: ``sign`` is ``<=`` or ``>=``."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def violation(self, value: float) -> float:
        """Above 0 where the requirement is not met, by how much.

        >>> Constraint("dev_gap", "<=", 0.03).violation(0.05)
        0.02
        """
        return round(value - self.bound if self.sign == "<=" else self.bound - value, 12)


@dataclass(frozen=True)
class SearchObjectives:
    """Objectives as (metric, "max" or "min"), and requirements."""

    objectives: tuple[tuple[str, str], ...] = OBJECTIVES
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that is needed, once."""
        named = [metric for metric, _ in self.objectives] + [constraint.metric for constraint in self.constraints]
        return tuple(dict.fromkeys(named))

    def violations(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each requirement lacks, by its words."""
        return {str(each): each.violation(values[each.metric]) for each in self.constraints}


def parse_search_objectives(objectives: str, constraints: Sequence[str]) -> tuple[SearchObjectives, list[str]]:
    """Goals from ``dev_w_f1:max,dev_gap:min`` and ``gap<=0.03`` (``dev_`` may be left out), and what is wrong.

    >>> search_objectives, errors = parse_search_objectives("dev_uar:max,seconds:min", ["gap<=0.03"])
    >>> search_objectives.objectives, str(search_objectives.constraints[0]), errors
    ((('dev_uar', 'max'), ('seconds', 'min')), 'dev_gap<=0.03', [])
    """
    errors, wanted, bounds = [], [], []
    for item in objectives.split(","):
        metric, _, mode = item.strip().rpartition(":")
        if not metric or mode not in MODES:
            errors.append(f"--objectives: {item!r} is not METRIC:max or METRIC:min")
        else:
            wanted.append((_full_name(metric), mode))
    if not errors and not 2 <= len({metric for metric, _ in wanted}) == len(wanted) <= MOST:
        errors.append(f"--objectives: {objectives!r} must name 2 or {MOST} different metrics")
    for text in constraints:
        match = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*", text)
        try:
            assert match
            bound = Constraint(_full_name(match[1]), match[2], float(match[3]))
            assert math.isfinite(bound.bound)
        except (AssertionError, ValueError):
            errors.append(f"--constraint: {text!r} is not METRIC<=NUMBER or METRIC>=NUMBER, e.g. 'gap<=0.03'")
            continue
        if bound.metric != SECONDS and not 0 <= bound.bound <= 1:
            errors.append(
                f"--constraint: {text!r} is not from 0 to 1, but gaps and rates are fractions: 0.03 is 3 points"
            )
        bounds.append(bound)
    return (SearchObjectives() if errors else SearchObjectives(tuple(wanted), tuple(bounds))), errors


def objective_errors(search_objectives: SearchObjectives, cells: Sequence[Cell]) -> list[str]:
    """Metrics that a study of these cells does not record."""
    known, wanted = metrics_of(cells), dict(search_objectives.objectives)
    return [
        f"--{'objectives' if name in wanted else 'constraint'}: there is no metric {name}; "
        f"choose from {', '.join(known)}"
        for name in search_objectives.metrics
        if name not in known
    ]


def metrics_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Every metric that a study of these cells records."""
    scopes = [*dict.fromkeys(c.language for c in cells), *dict.fromkeys(c.modality for c in cells), *map(str, cells)]
    whole = [f"dev_{figure}" for figure in FIGURES]
    return (*whole, SECONDS, *(f"dev_{figure}@{scope}" for scope in dict.fromkeys(scopes) for figure in OF_A_CELL))


def epoch_metrics(metrics: Iterable[str], row: Mapping[str, Any]) -> dict[str, float | None]:
    """What one epoch tells of each metric; of ``seconds`` nothing, which are those of a whole run.

    Args:
        row: with the figures of ``study.evaluation.metrics.evaluate`` as ``dev``; a line of ``epochs.jsonl``, say.

    Raises:
        KeyError: the row lacks such a figure, as records from before all were kept do.
    """
    return {metric: metric_value(metric, row) for metric in metrics if metric != SECONDS}


def metric_value(metric: str, finished: Mapping[str, Any]) -> float | None:
    """A metric of one run.

    Args:
        finished: its ``finished.json``.

    Returns:
        None where it is not defined: no cell that the metric names has it.
    """
    if metric == SECONDS:
        return float(finished["seconds"]["total"])
    figure, _, scope = metric.removeprefix("dev_").partition("@")
    if not scope:
        value = finished["dev"][figure]
        return None if value is None else float(value)
    kind = figure.removeprefix("gap_")
    found = [
        cell["absolute"][kind] if figure.startswith("gap_") and kind in GAP_KINDS else cell[figure]
        for name, cell in finished["dev"]["cells"].items()
        if scope in (name, *name.split("/", 1))
    ]
    defined = [value for value in found if value is not None]
    return sum(defined) / len(defined) if defined else None


def mean_metrics(metrics: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each metric averaged over the seeds of a configuration.

    Raises:
        ValueError: one is not defined for a seed; a mean over the others would be another figure.
    """
    means = {}
    for metric in metrics:
        values = [metric_value(metric, run) for run in runs]
        defined = [value for value in values if value is not None]
        if len(defined) < len(values):
            why = "no cell of dev that it names has both genders with an emotion in common"
            raise ValueError(f"{metric} is not defined: {why}")
        means[metric] = sum(defined) / len(defined)
    return means


def _full_name(metric: str) -> str:
    metric = metric.strip()
    return metric if metric == SECONDS or metric.startswith("dev_") else f"dev_{metric}"
