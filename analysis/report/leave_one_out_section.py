"""Ablation of single components: the paper's setting without one component, the plain penalty with one more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.comparison.arms import OBJECTIVES, arms, arms_table
from analysis.comparison.paired import Comparison
from analysis.loading.study import Study
from analysis.plots.forest import ForestInfo, forest_figure, forest_info
from analysis.plots.style import render
from analysis.report.context import ReportContext, compare_with
from analysis.report.html import Picture, Section, Table
from search_spaces.ablation_arms import LEAVE_ONE_OUT

ARMS = {component: arm for arms_of in LEAVE_ONE_OUT.values() for arm, component in arms_of.items()}
"""By component, the label of the arm that removes or adds it."""


def leave_one_out_comparisons(study: Study, resamples: int, seed: int) -> list[Comparison]:
    """Compare the arms of each reference in ``LEAVE_ONE_OUT`` with it on test; arms are named by their component.

    Args:
        resamples: at least; more if there are many arms.

    Returns:
        At most two comparisons. One is missing if its reference, or all of its arms, have not finished.
    """
    ids = study.configurations.dropna(subset=["label"]).set_index("label")["config_id"]
    comparisons = []
    for reference, components_of in LEAVE_ONE_OUT.items():
        config_ids = [str(ids[label]) for label in components_of if label in ids.index]
        comparison = compare_with(study, reference, config_ids, resamples, seed)
        if comparison is not None:
            table = comparison.table.assign(name=comparison.table["name"].map(components_of))
            comparisons.append(replace(comparison, table=table))
    return comparisons


def leave_one_out_rows(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return :func:`analysis.comparison.arms.arms` of all, with ``arm`` (a label) and ``against`` (the reference)."""
    rows = pd.concat([arms(each).assign(against=each.reference) for each in comparisons], ignore_index=True)
    rows.insert(1, "arm", rows["name"].map(ARMS))
    rows["against"] = rows["against"].where(rows["arm"].notna())
    return rows


def leave_one_out_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return :func:`analysis.comparison.arms.arms_table` of all, with the label of each arm."""
    table = pd.concat([arms_table(each) for each in comparisons], ignore_index=True)
    table.insert(1, ("", "arm"), table["", "configuration"].map(ARMS).fillna(""))
    return table


def leave_one_out_info(comparisons: Sequence[Comparison]) -> ForestInfo:
    """Return the data of one forest plot of all comparisons, on both objectives."""
    infos = [forest_info(each, OBJECTIVES, scopes=(each.overall,)) for each in comparisons]
    references = {next(iter(LEAVE_ONE_OUT[each.reference].values())).split()[0]: each.reference for each in comparisons}
    against = ", ".join(f"“{kind} …” against {reference}" for kind, reference in references.items())
    return replace(
        infos[0],
        points=pd.concat([info.points for info in infos], ignore_index=True),
        names=tuple(name for info in infos for name in info.names),
        title=f"Ablation of single components, {comparisons[0].split}",
        subtitle=f"better to the right; {against}",
    )


def leave_one_out_sections(context: ReportContext) -> list[Section]:
    """Return a table and a forest plot of leave-one-out and add-one-in arms, if there are any."""
    comparisons = context.leave_one_out
    if not comparisons:
        return []
    references = " or ".join(each.reference for each in comparisons)
    alt = "Forest plot of the table: gain in W-F1 and reduction of the AVG gap, by component."
    return [
        Section(
            "Ablation of single components on test",
            f"Each arm differs from its reference ({references}) in one component. Intervals, tests and verdicts are "
            "those of the comparison with ERM; Holm's method covers the arms of one reference. If a removed component "
            "matters, W-F1 is lower or the gap is larger without it.",
            (
                Table(leave_one_out_table(comparisons)),
                Picture(render(forest_figure(leave_one_out_info(comparisons)), "svg"), alt),
            ),
        )
    ]
