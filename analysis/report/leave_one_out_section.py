"""One part at a time: the paper's setting with one part left out, the plainest penalty with one part added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.comparison.arms import OBJECTIVES, arms, arms_table
from analysis.comparison.paired import Comparison
from analysis.loading.study import Study
from analysis.plots.forest import ForestInfo, forest_figure, forest_info
from analysis.plots.style import render
from analysis.report.html import Picture, Section, Table
from analysis.report.sections import compared_with
from search_spaces.ablation_arms import LEAVE_ONE_OUT

ARMS = {part: arm for of in LEAVE_ONE_OUT.values() for arm, part in of.items()}
"""By the part, the label of the arm that leaves it out or adds it."""


def leave_one_out_comparisons(study: Study, resamples: int, seed: int) -> list[Comparison]:
    """Each of ``PARTS`` on test: its arms, called by the part, against the configuration that they differ from.

    Args:
        resamples: at least; more where there are many arms.

    Returns:
        At most two; one is missing where its reference, or every arm of it, has not finished.
    """
    ids = study.configurations.dropna(subset=["label"]).set_index("label")["config_id"]
    made = []
    for reference, of in LEAVE_ONE_OUT.items():
        chosen = [str(ids[label]) for label in of if label in ids.index]
        comparison = compared_with(study, reference, chosen, resamples, seed)
        if comparison is not None:
            made.append(replace(comparison, table=comparison.table.assign(name=comparison.table["name"].map(of))))
    return made


def leave_one_out_rows(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """:func:`analysis.comparison.arms.arms` of each, one below the other, with ``arm`` (its label) and ``against``."""
    tables = [arms(each).assign(against=each.reference) for each in comparisons]
    whole = pd.concat(tables, ignore_index=True)
    whole.insert(1, "arm", whole["name"].map(ARMS))
    whole["against"] = whole["against"].where(whole["arm"].notna())
    return whole


def leave_one_out_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """:func:`analysis.comparison.arms.arms_table` of each, one below the other, with the label of each arm."""
    whole = pd.concat([arms_table(each) for each in comparisons], ignore_index=True)
    whole.insert(1, ("", "arm"), whole["", "configuration"].map(ARMS).fillna(""))
    return whole


def leave_one_out_info(comparisons: Sequence[Comparison]) -> ForestInfo:
    """Both objectives of all in one forest plot; what is told apart is so after Holm within each comparison."""
    infos = [forest_info(each, OBJECTIVES, scopes=(each.overall,)) for each in comparisons]
    kinds = {each.reference: next(iter(LEAVE_ONE_OUT[each.reference].values())).split()[0] for each in comparisons}
    return replace(
        infos[0],
        points=pd.concat([info.points for info in infos], ignore_index=True),
        names=tuple(name for info in infos for name in info.names),
        title=f"One part at a time, {comparisons[0].split}",
        subtitle=f"better to the right; {', '.join(f'“{kind}”: against {name}' for name, kind in kinds.items())}",
    )


def leave_one_out_section(comparisons: Sequence[Comparison]) -> Section:
    """Leave-one-out and add-one-in: one table and one forest plot of both objectives."""
    references = " and ".join(each.reference for each in comparisons)
    return Section(
        "One part at a time, on test",
        f"Each arm against the configuration that it differs from in one part ({references}), paired and adjusted as "
        "above, Holm over the arms of one configuration. A part left out that mattered makes W-F1 lower or the gap "
        "larger.",
        (
            Table(leave_one_out_table(comparisons)),
            Picture(
                render(forest_figure(leave_one_out_info(comparisons)), "svg"),
                "Change of W-F1 and AVG gap by part.",
            ),
        ),
    )
