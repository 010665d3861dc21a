"""Contexts of a report for tests of its sections."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from analysis.loading.study import Study
from analysis.pareto.front import front
from analysis.pareto.objectives_front import has_custom_objectives, objectives_front
from analysis.pareto.uncertainty import Uncertainty
from analysis.report.context import ReportContext, select_configurations
from analysis.tables.benchmark import benchmark


def report_context(study: Study, **changes: Any) -> ReportContext:
    """Return a context without comparisons, noise floors and intervals, unless ``changes`` has them."""
    points = front(study.configurations)
    selected = select_configurations(points)
    values: dict[str, Any] = {
        "study": study,
        "confirmation": None,
        "points": points,
        "objectives": objectives_front(study.plan, study.trials) if has_custom_objectives(study.plan) else None,
        "selected": selected,
        "uncertainty": Uncertainty("ERM", "speaker", None, {}, {}, 0),
        "pareto": Figure(),
        "chance": {},
        "comparison": None,
        "leave_one_out": [],
        "benchmark": benchmark(study, selected),
        "resamples": 20,
        "seed": 0,
    }
    return ReportContext(**values | changes)
