"""The section of a report about the study's own search objectives, if they are not just W-F1 and gap."""

from __future__ import annotations

import pandas as pd

from analysis.pareto.attainment import objectives_history
from analysis.pareto.objectives_front import describe_objectives, display_scale, objectives_table
from analysis.plots.search import history_figure, objectives_figure
from analysis.plots.style import render
from analysis.report.context import ReportContext
from analysis.report.html import Picture, Section, Table


def objectives_sections(context: ReportContext) -> list[Section]:
    """Return the front over the study's own objectives; no section if it searched W-F1 and gap without constraints."""
    plan, points = context.study.plan, context.objectives
    if points is None or points.empty:
        return []
    violating = points[points["violations"].astype(bool)]
    names = "; ".join(points.loc[points["on_front"], "name"])
    blocks: list[Picture | Table] = [
        Picture(
            render(objectives_figure(points, plan), "svg"), f"Front on dev over {describe_objectives(plan)}: {names}."
        ),
        Table(objectives_table(points, plan)),
    ]
    if len(violating):
        blocks.append(Table(_violations_table(violating), "Configurations that violate a constraint"))
    if points["on_front"].any():
        history = render(history_figure(objectives_history(points, plan)), "svg")
        blocks.append(Picture(history, "Hypervolume of this front by number of trials."))
    constraints = ""
    if len(violating):
        verb = "violates" if len(violating) == 1 else "violate"
        constraints = f" {len(violating)} of {len(points)} configurations {verb} a constraint and cannot be on it."
    return [
        Section(
            "Search objectives",
            f"This study searched {describe_objectives(plan)}. The front below is over these objectives, on "
            f"dev.{constraints} Rates and gaps are in points. The sections after this one are about W-F1 and "
            "the gender gap.",
            tuple(blocks),
        )
    ]


def _violations_table(violating: pd.DataFrame) -> pd.DataFrame:
    violations = [
        "; ".join(f"{constraint}, by {display_scale(constraint) * excess:.1f}" for constraint, excess in each.items())
        for each in violating["violations"]
    ]
    return pd.DataFrame({"configuration": violating["name"], "violates": violations})
