"""A comparison as a table for a reader; :mod:`analysis.comparison.paired` defines its rows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.comparison.paired import QUANTITIES, Comparison
from analysis.formatting import POINTS, format_interval, format_p
from study.common.errors import RecordError

MAIN = (
    "w_f1",
    "w_f1_female",
    "w_f1_male",
    "signed_tpr",
    "signed_fpr",
    "standardised_w_f1",
    "standardised_accuracy",
    "avg",
)
"""The quantities shown by default. Gaps that depend on class priors are shown at common priors."""


def comparison_table(
    comparison: Comparison, quantities: Sequence[str] = MAIN, scope: str | None = None, configuration: str | None = None
) -> pd.DataFrame:
    """Return the comparison in points, with headings.

    Args:
        quantities: names of ``QUANTITIES``, in this order.
        scope, configuration: show only this one.

    Raises:
        RecordError: the comparison has no such scope or configuration; the message lists those that it has.
    """
    table = comparison.table[comparison.table["quantity"].isin(quantities)]
    if scope is not None:
        _require_one_of("scope", scope, comparison.table["scope"])
        table = table[table["scope"] == scope]
    if configuration is not None:
        _require_one_of("configuration", configuration, comparison.table["name"], comparison.table["config_id"])
        table = table[(table["name"] == configuration) | (table["config_id"] == configuration)]
    order = {name: i for i, name in enumerate(quantities)}
    table = table.sort_values("quantity", key=lambda names: names.map(order), kind="stable")
    table = table.sort_values("config_id", key=lambda ids: ids.map(_first_positions(comparison.table)), kind="stable")
    return pd.DataFrame(
        {
            "configuration": table["name"],
            "seeds": table["n_seeds"],
            "quantity": table["quantity"].map(QUANTITIES),
            "of": table["scope"],
            "F/M": [f"{f}/{m}" for f, m in zip(table["n_female"], table["n_male"], strict=True)],
            comparison.reference: POINTS * table["reference"],
            "value": POINTS * table["value"],
            "difference": POINTS * table["difference"],
            "95 % interval": [
                format_interval(low, high) for low, high in zip(table["low"], table["high"], strict=True)
            ],
            "p": [format_p(value) for value in table["p"]],
            "Holm": [format_p(value) for value in table["p_holm"]],
            "verdict": table["verdict"],
        }
    ).reset_index(drop=True)


def _require_one_of(option: str, value: str, known: pd.Series, *others: pd.Series) -> None:
    if not any((names == value).any() for names in (known, *others)):
        raise RecordError(
            f"--{option} {value}: the comparison has no such {option}; it has {'; '.join(known.unique())}."
        )


def _first_positions(table: pd.DataFrame) -> dict[str, int]:
    return {config_id: i for i, config_id in enumerate(table["config_id"].unique())}
