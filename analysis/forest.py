"""What a forest plot of a comparison shows; :func:`analysis.figures.forest_figure` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.comparison import KINDS, QUANTITIES, Comparison


@dataclass(frozen=True)
class ForestInfo:
    """Paired differences with their intervals, in points, better to the right.

    Attributes:
        points: one row a (panel, configuration, scope): ``panel, name, scope, estimate, low, high, told_apart,
            overshot``. ``told_apart`` is true where the comparison says better or worse; ``overshot`` where a gap is
            on the other side of 0 and larger there, which the axis cannot show.
        panels: headings, left to right.
        names: configurations, top to bottom.
        scopes: told apart by marker, in this order.
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
    """The data and the words of a forest plot.

    Args:
        quantities: one panel each, levels and signed gaps; a signed gap is shown as what was closed of it, so that
            better is to the right everywhere.
        scopes: by default every cell and the mean over all of them.
        names: configurations to show, top to bottom; by default all of them.

    Raises:
        ValueError: an absolute gap, which has no interval, or nothing to show.
    """
    without = [name for name in quantities if KINDS.get(name) not in ("level", "signed gap")]
    if without:
        raise ValueError(f"{', '.join(without)}: only levels and signed gaps have an interval to draw")
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
    # a gap that shrinks has a difference below 0
    sign = chosen["kind"].map({"level": 100.0, "signed gap": -100.0})
    ends = pd.DataFrame({"low": sign * chosen["low"], "high": sign * chosen["high"]})
    points = pd.DataFrame(
        {
            "panel": chosen["quantity"].map(headings),
            "name": chosen["name"],
            "scope": chosen["scope"],
            "estimate": sign * chosen["difference"],
            "low": ends.min(axis=1),
            "high": ends.max(axis=1),
            "told_apart": chosen["says"].isin(["higher", "lower", "smaller", "larger"]),
            "overshot": (chosen["kind"] == "signed gap")
            & (chosen["value"] * chosen["reference"] < 0)
            & (chosen["value"].abs() > chosen["reference"].abs()),
        }
    ).reset_index(drop=True)
    seeds = sorted(chosen["n_seeds"].unique())
    return ForestInfo(
        points=points,
        panels=tuple(headings.values()),
        names=names,
        scopes=scopes,
        title=f"Against {comparison.reference}, {comparison.split}",
        subtitle=f"paired differences, {' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} "
        f"seed{'' if seeds == [1] else 's'}, better to the right",
        caption=" ".join(
            [
                f"Lines: 95 % intervals over {comparison.by}s and, with several seeds, seeds; not adjusted for the "
                "number of comparisons. Filled: told apart from the reference. Crossed out: the gap passed 0 and is "
                "larger on the other side, so nothing was closed.",
                *comparison.notes,
            ]
        ),
    )


def _heading(quantity: str) -> str:
    if KINDS[quantity] == "level":
        return f"{QUANTITIES[quantity]} gained (points)"
    return f"{QUANTITIES[quantity].replace(' gap', ' gap closed', 1)} (points)"
