"""Arms against a reference on both objectives: one row an arm, over all cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.comparison.paired import Comparison, by_holm
from analysis.formatting import POINTS, format_interval, format_p

OBJECTIVES = ("w_f1", "avg")


def adjusted(comparison: Comparison) -> Comparison:
    """Return the comparison with p values of the widest scope adjusted by Holm over the arms.

    Each quantity is one family of tests. Rows of other scopes stay as they are.
    """
    widest = comparison.table[comparison.table["scope"] == comparison.overall]
    table = by_holm(comparison.table, widest.groupby("quantity", sort=False))
    return replace(comparison, table=table, over_arms=True)


def arms(comparison: Comparison) -> pd.DataFrame:
    """Every arm of a comparison on W-F1 and on the AVG gap, over the widest scope.

    Returns:
        The reference first, then one row an arm: ``name, n_seeds`` and for each of ``w_f1`` and ``avg`` the value,
        the ``_difference``, the ``_low`` and ``_high`` end of its interval (fractions; of ``avg`` the ends of the 95 %
        range of the paired permutation null), ``_p``, ``_holm`` (adjusted over the arms, each objective by itself) and
        ``_verdict``, which rests on the adjusted p.
    """
    table = adjusted(comparison).table
    table = table[table["scope"] == comparison.overall]
    first = table.drop_duplicates("quantity").set_index("quantity")
    rows = table.drop_duplicates("name")[["name", "n_seeds"]].set_index("name")
    reference = {"n_seeds": rows["n_seeds"].max()}
    for quantity in OBJECTIVES:
        if quantity not in first.index:
            continue
        of = table[table["quantity"] == quantity].set_index("name")
        reference[quantity] = first.loc[quantity, "reference"]
        rows[quantity], rows[f"{quantity}_difference"] = of["value"], of["difference"]
        rows[f"{quantity}_low"] = of["low"].fillna(-of["null_range"])
        rows[f"{quantity}_high"] = of["high"].fillna(of["null_range"])
        rows[f"{quantity}_p"], rows[f"{quantity}_verdict"] = of["p"], of["verdict"]
        rows[f"{quantity}_holm"] = of["p_holm"]
    whole = pd.concat([pd.DataFrame([reference], index=[comparison.reference]), rows])
    return whole.rename_axis("name").reset_index()


def arms_table(comparison: Comparison) -> pd.DataFrame:
    """:func:`arms` for a reader: points, ranges and p values as words.

    Returns:
        Columns of two levels: ``configuration``, and under ``W-F1`` and ``AVG gap`` the ``mean`` over seeds, the
        ``difference``, its ``95 %`` interval (of AVG, which has none, the ``95 % null range``), p after
        ``Holm`` and the ``verdict`` by that; empty in the row of the reference.
    """
    found = arms(comparison)
    out: dict[tuple[str, str], object] = {("", "configuration"): found["name"]}
    for quantity, heading, spread in (("w_f1", "W-F1", "95 %"), ("avg", "AVG gap", "95 % null range")):
        if quantity not in found:
            continue
        ends = zip(found[f"{quantity}_low"], found[f"{quantity}_high"], strict=True)
        out[heading, "mean"] = POINTS * found[quantity]
        out[heading, "difference"] = POINTS * found[f"{quantity}_difference"]
        out[heading, spread] = [format_interval(low, high) for low, high in ends]
        out[heading, "Holm"] = [format_p(p) for p in found[f"{quantity}_holm"]]
        out[heading, "verdict"] = found[f"{quantity}_verdict"].astype(object).replace(np.nan, "")
    return pd.DataFrame(out)
