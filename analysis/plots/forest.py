"""The forest plot of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.comparison.paired import KINDS, QUANTITIES, Comparison
from analysis.comparison.verdict import NOT_SIGNIFICANT, TOO_FEW_CLUSTERS
from analysis.plots.style import COLOURS, GREY, INK, MARKERS, STYLE, annotate_figure, canvas, save, short


@dataclass(frozen=True)
class ForestInfo:
    """Paired differences with their intervals, in points, better to the right.

    Attributes:
        points: one row a (panel, configuration, scope): ``panel, name, scope, estimate, low, high, significant,
            overshot, is_null``. ``significant`` is true where the verdict is better or worse; ``overshot`` where a gap
            is reversed and larger, which the axis cannot show; ``is_null`` where ``low`` and ``high`` are the 95 %
            range of the paired permutation null, centred on 0, and not an interval.
        panels: headings, left to right.
        names: configurations, top to bottom.
        scopes: distinguished by marker, in this order.
        title, subtitle, caption: sentences.
    """

    points: pd.DataFrame
    panels: tuple[str, ...]
    names: tuple[str, ...]
    scopes: tuple[str, ...]
    title: str
    subtitle: str
    caption: str


def forest_info(
    comparison: Comparison,
    quantities: Sequence[str] = ("w_f1", "standardised_w_f1"),
    scopes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> ForestInfo:
    """Return the data and texts of a forest plot.

    Args:
        quantities: one panel each. A gap is shown as its reduction, so that better is to the right in every
            panel. An absolute gap has no interval: its bar is the 95 % range of the paired permutation null.
        scopes: languages, modalities or means to show; by default every cell and the mean over all cells.
        names: configurations to show, top to bottom; by default all. One without a row in these scopes is left out.

    Raises:
        ValueError: there is nothing to show.
    """
    table = comparison.table
    if scopes is None:
        in_order = list(table["scope"].unique())
        scopes = [*table.loc[table["is_cell"], "scope"].unique(), in_order[-1]]
    scopes = tuple(dict.fromkeys(scopes))
    names = tuple(table["name"].unique() if names is None else names)
    headings = {name: _heading(name) for name in quantities}
    chosen = table[table["quantity"].isin(quantities) & table["scope"].isin(scopes) & table["name"].isin(names)]
    if chosen.empty:
        raise ValueError(f"no row of {', '.join(names)} for {', '.join(scopes)}")
    names = tuple(name for name in names if (chosen["name"] == name).any())
    # the difference of a gap that shrinks is negative
    sign = chosen["kind"].map({"level": 100.0, "signed gap": -100.0, "absolute gap": -100.0})
    is_null = chosen["kind"] == "absolute gap"
    low = chosen["low"].where(~is_null, -chosen["null_range"])
    high = chosen["high"].where(~is_null, chosen["null_range"])
    ends = pd.DataFrame({"low": sign * low, "high": sign * high})
    points = pd.DataFrame(
        {
            "panel": chosen["quantity"].map(headings),
            "name": chosen["name"],
            "scope": chosen["scope"],
            "estimate": sign * chosen["difference"],
            "low": ends.min(axis=1),
            "high": ends.max(axis=1),
            "significant": ~chosen["verdict"].isin([NOT_SIGNIFICANT, TOO_FEW_CLUSTERS]),
            "overshot": (chosen["kind"] == "signed gap")
            & (chosen["value"] * chosen["reference"] < 0)
            & (chosen["value"].abs() > chosen["reference"].abs()),
            "is_null": is_null,
        }
    ).reset_index(drop=True)
    seeds = sorted(chosen["n_seeds"].unique())
    return ForestInfo(
        points=points,
        panels=tuple(headings.values()),
        names=names,
        scopes=scopes,
        title=f"Against {comparison.reference}, {comparison.split}" + (", by cell" if len(scopes) > 1 else ""),
        subtitle=f"paired differences, {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} "
        f"seed{'' if seeds == [1] else 's'}, better to the right",
        caption=" ".join(
            [
                f"Lines: 95 % intervals over {comparison.by}s and, with several seeds, seeds; not adjusted for the "
                "number of comparisons. Filled: significant difference from the reference "
                f"({_describe_significance(chosen, comparison)}).",
                *(
                    ["Crossed out: the gap reversed and became larger in the opposite direction."]
                    if points["overshot"].any()
                    else []
                ),
                *(
                    [
                        "Dashed: 95 % range of the paired permutation null, within which differences are not "
                        "significant before adjustment; an absolute gap has no interval."
                    ]
                    if points["is_null"].any()
                    else []
                ),
                *comparison.notes,
            ]
        ),
    )


def forest_figure(info: ForestInfo) -> Figure:
    """Draw the differences from a reference: one row per configuration, one panel per quantity, better to the right.

    Marker shape and colour stand for a cell or a mean over cells (the last one is black). A marker is filled if the
    difference is significant, and crossed out if a gap is reversed and larger. The line at 0 is the reference.
    """
    looks = {scope: (MARKERS[i % 6], COLOURS[i % 6]) for i, scope in enumerate(info.scopes)}
    if len(info.scopes) > 1:
        looks[info.scopes[-1]] = ("D", "#000000")
    spread = [0.0] if len(looks) == 1 else [0.3 - 0.6 * i / (len(looks) - 1) for i in range(len(looks))]
    offsets = dict(zip(info.scopes, spread, strict=True))
    heights = {name: len(info.names) - i for i, name in enumerate(info.names)}
    with matplotlib.rc_context(STYLE):
        figure = canvas(9.5, 2.6 + len(info.names) * max(0.35, 0.14 * len(looks)))
        panels = figure.subplots(1, len(info.panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(panels, info.panels, strict=True):
            axes.axvline(0, color=GREY, lw=1, zorder=1)
            for (name, scope), row in info.points[info.points["panel"] == panel].groupby(["name", "scope"], sort=False):
                marker, colour = looks[str(scope)]
                estimate, low, high = (float(row[column].iloc[0]) for column in ("estimate", "low", "high"))
                height = heights[str(name)] + offsets[str(scope)]
                dash = (0, (3, 1.5)) if bool(row["is_null"].iloc[0]) else "-"
                axes.plot([low, high], [height, height], color=colour, lw=1.4, ls=dash, zorder=2)
                filled = bool(row["significant"].iloc[0])
                axes.plot(estimate, height, marker, ms=6, color=colour, mfc=colour if filled else "white", zorder=3)
                if bool(row["overshot"].iloc[0]):
                    axes.plot(estimate, height, "x", ms=9, color=INK, mew=1.4, zorder=4)
            axes.set_xlabel(panel)
            axes.set_yticks(list(heights.values()), [short(name) for name in heights])
            axes.set_ylim(0.4, len(info.names) + 0.6)
            axes.yaxis.set_tick_params(length=0)
        handles = [
            Line2D([], [], marker=marker, color=colour, ls="", ms=6, label=scope)
            for scope, (marker, colour) in looks.items()
        ]
        figure.legend(handles=handles, loc="lower left", ncols=min(4, len(handles)), frameon=False, fontsize="small")
        longest = max(text.get_window_extent().width for text in panels[0].get_yticklabels()) / figure.dpi
        annotate_figure(figure, info.title, info.subtitle, info.caption, left=max(0.75, longest + 0.25))
    return figure


def _describe_significance(chosen: pd.DataFrame, comparison: Comparison) -> str:
    """Say which p value decides significance. A cell that is the widest scope counts as a mean."""
    cells = chosen["is_cell"] & (chosen["scope"] != comparison.overall)
    means = "over all cells after Holm over the rows" if comparison.over_arms else "by p alone"
    parts = ["cells after Holm over those of a row"] if cells.any() else []
    return "; ".join([*parts, *([] if cells.all() else [f"means {means}"])])


def _heading(quantity: str) -> str:
    if KINDS[quantity] == "level":
        return f"{QUANTITIES[quantity]} gained (points)"
    return f"{QUANTITIES[quantity].strip('|').replace(' gap', ' gap closed', 1)} (points)"


def draw_forest(comparison: Comparison, stem: str) -> None:
    """Write the forest plot of a comparison to ``stem.png`` and ``stem.svg``."""
    save(forest_figure(forest_info(comparison)), stem)
