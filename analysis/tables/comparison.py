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
"""What is comparison_table unless asked otherwise: of the gaps that class priors touch, those at common priors."""


def comparison_table(
    comparison: Comparison, quantities: Sequence[str] = MAIN, scope: str | None = None, configuration: str | None = None
) -> pd.DataFrame:
    """The comparison as a reader wants it: figures in points, fewer columns, words for names.

    Args:
        quantities: of ``QUANTITIES``, comparison_table in this order.
        scope, configuration: only rows of this one.

    Raises:
        RecordError: there are none; the message says what there is.
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
    table = table.sort_values("config_id", key=lambda ids: ids.map(_first_places(comparison.table)), kind="stable")
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


def _require_one_of(what: str, asked: str, known: pd.Series, *others: pd.Series) -> None:
    if not any((names == asked).any() for names in (known, *others)):
        raise RecordError(f"--{what} {asked}: no such {what} was compared; there is {'; '.join(known.unique())}.")


def _first_places(table: pd.DataFrame) -> dict[str, int]:
    return {config_id: i for i, config_id in enumerate(table["config_id"].unique())}
