"""The arms of an ablation against a reference on both objectives, over the widest scope."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.comparison.paired import Comparison, adjust_by_holm
from analysis.formatting import POINTS, format_interval, format_p

OBJECTIVES = ("w_f1", "avg")


def adjusted(comparison: Comparison) -> Comparison:
    """Return the comparison with p values of the widest scope adjusted by Holm over the arms.

    Each quantity is one family of tests. Rows of other scopes stay as they are.
    """
    widest = comparison.table[comparison.table["scope"] == comparison.overall]
    table = adjust_by_holm(comparison.table, widest.groupby("quantity", sort=False))
    return replace(comparison, table=table, over_arms=True)


def arms(comparison: Comparison) -> pd.DataFrame:
    """Return every arm on W-F1 and AVG gap, over the widest scope.

    Returns:
        The reference first, then one row per arm: ``name, n_seeds`` and, for each of ``w_f1`` and ``avg`` (fractions),
        the value and with a suffix ``_difference``, ``_low`` and ``_high``, ``_p``, ``_holm`` (p adjusted over the
        arms, each objective by itself) and ``_verdict``, which rests on the adjusted p. ``_low`` and ``_high`` are the
        95 % interval of the difference for W-F1, and the 95 % range of the paired permutation null, centred on 0, for
        AVG.
    """
    table = adjusted(comparison).table
    table = table[table["scope"] == comparison.overall]
    first = table.drop_duplicates("quantity").set_index("quantity")
    rows = table.drop_duplicates("name")[["name", "n_seeds"]].set_index("name")
    reference = {"n_seeds": rows["n_seeds"].max()}
    for quantity in OBJECTIVES:
        if quantity not in first.index:
            continue
        of_quantity = table[table["quantity"] == quantity].set_index("name")
        reference[quantity] = first.loc[quantity, "reference"]
        rows[quantity], rows[f"{quantity}_difference"] = of_quantity["value"], of_quantity["difference"]
        rows[f"{quantity}_low"] = of_quantity["low"].fillna(-of_quantity["null_range"])
        rows[f"{quantity}_high"] = of_quantity["high"].fillna(of_quantity["null_range"])
        rows[f"{quantity}_p"], rows[f"{quantity}_holm"] = of_quantity["p"], of_quantity["p_holm"]
        rows[f"{quantity}_verdict"] = of_quantity["verdict"]
    with_reference = pd.concat([pd.DataFrame([reference], index=[comparison.reference]), rows])
    return with_reference.rename_axis("name").reset_index()


def arms_table(comparison: Comparison) -> pd.DataFrame:
    """Return :func:`arms` for display: figures in points, ranges and p values as text.

    Returns:
        Columns of two levels: ``configuration``, and under ``W-F1`` and ``AVG gap`` the ``mean`` over seeds, the
        ``difference``, its ``95 % interval`` (for AVG the ``95 % null range``), p after ``Holm`` and the ``verdict``.
        All but the mean are empty in the row of the reference.
    """
    rows = arms(comparison)
    out: dict[tuple[str, str], object] = {("", "configuration"): rows["name"]}
    headings = {"w_f1": ("W-F1", "95 % interval"), "avg": ("AVG gap", "95 % null range")}
    for quantity, (heading, spread) in headings.items():
        if quantity not in rows:
            continue
        ends = zip(rows[f"{quantity}_low"], rows[f"{quantity}_high"], strict=True)
        out[heading, "mean"] = POINTS * rows[quantity]
        out[heading, "difference"] = POINTS * rows[f"{quantity}_difference"]
        out[heading, spread] = [format_interval(low, high) for low, high in ends]
        out[heading, "Holm"] = [format_p(p) for p in rows[f"{quantity}_holm"]]
        out[heading, "verdict"] = rows[f"{quantity}_verdict"].astype(object).replace(np.nan, "")
    return pd.DataFrame(out)
