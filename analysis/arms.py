"""Arms against a reference on both objectives: one row an arm, over all cells."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparison import Comparison, in_words, p_in_words
from analysis.tables import POINTS
from analysis.uncertainty import holm


def arms(comparison: Comparison) -> pd.DataFrame:
    """Every arm of a comparison on W-F1 and on the AVG gap, over the widest scope.

    Returns:
        The reference first, then one row an arm: ``name, n_seeds`` and for each of ``w_f1`` and ``avg`` the value,
        the ``_difference``, its ``_low`` and ``_high`` (fractions; of ``avg`` the difference plus and minus the
        reach of paired swaps), ``_p``, ``_holm`` (Holm over the arms, each objective by itself) and ``_says``.
    """
    table = comparison.table[comparison.table["scope"] == comparison.overall]
    first = table.drop_duplicates("quantity").set_index("quantity")
    rows = table.drop_duplicates("name")[["name", "n_seeds"]].set_index("name")
    reference = {"n_seeds": rows["n_seeds"].max()}
    for quantity in ("w_f1", "avg"):
        if quantity not in first.index:
            continue
        of = table[table["quantity"] == quantity].set_index("name")
        reference[quantity] = first.loc[quantity, "reference"]
        rows[quantity], rows[f"{quantity}_difference"] = of["value"], of["difference"]
        rows[f"{quantity}_low"] = of["low"].fillna(of["difference"] - of["reach"])
        rows[f"{quantity}_high"] = of["high"].fillna(of["difference"] + of["reach"])
        rows[f"{quantity}_p"], rows[f"{quantity}_says"] = of["p"], of["says"]
        rows[f"{quantity}_holm"] = holm(rows[f"{quantity}_p"])
    whole = pd.concat([pd.DataFrame([reference], index=[comparison.reference]), rows])
    return whole.rename_axis("name").reset_index()


def arms_table(comparison: Comparison) -> pd.DataFrame:
    """:func:`arms` for a reader: points, ranges and p values as words.

    Returns:
        Columns of two levels: ``configuration, seeds``, and under ``W-F1`` and ``AVG gap`` the ``mean`` over seeds, the
        ``difference``, its ``95 %`` range, ``p``, ``Holm`` and what it ``is``; empty in the row of the reference.
    """
    found = arms(comparison)
    out: dict[tuple[str, str], object] = {
        ("", "configuration"): found["name"],
        ("", "seeds"): found["n_seeds"].astype(int),
    }
    for quantity, heading in (("w_f1", "W-F1"), ("avg", "AVG gap")):
        if quantity not in found:
            continue
        ends = zip(found[f"{quantity}_low"], found[f"{quantity}_high"], strict=True)
        out[heading, "mean"] = POINTS * found[quantity]
        out[heading, "difference"] = POINTS * found[f"{quantity}_difference"]
        out[heading, "95 %"] = [in_words(low, high) for low, high in ends]
        out[heading, "p"] = [p_in_words(p) for p in found[f"{quantity}_p"]]
        out[heading, "Holm"] = [p_in_words(p) for p in found[f"{quantity}_holm"]]
        out[heading, "is"] = found[f"{quantity}_says"].astype(object).replace(np.nan, "")
    return pd.DataFrame(out)
