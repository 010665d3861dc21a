"""Format numbers, hyperparameters and tables as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

POINTS = 100.0
"""From a fraction to points."""
GAP_PREFIX = "F − M "
SIGNED_PREFIXES = (GAP_PREFIX, "difference")
"""Columns whose names begin with one of these are printed with a sign."""


def format_interval(low: float, high: float) -> str:
    """Format an interval of fractions in points with signs; empty if it is NaN.

    >>> format_interval(-0.012, 0.03)
    '−1.2 to +3.0'
    >>> format_interval(-0.0, 0.0001)
    '+0.0 to +0.0'
    """
    return "" if np.isnan(low) else " to ".join(_format_value(POINTS * end, "+") for end in (low, high))


def format_p(value: float) -> str:
    """Format a p value; empty if it is NaN."""
    return "" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def format_hyperparameters(hyperparameters: Mapping[str, Any]) -> str:
    """Format the hyperparameters of a trial as one line.

    >>> weight = {"fairness_weight.schedule": "constant", "fairness_weight.weight": 0.5, "coefficients.en": 1.25}
    >>> format_hyperparameters(weight)
    'fairness weight constant, weight 0.5; coefficients en 1.25'
    >>> format_hyperparameters({"loss.method": "erm", "modalities": ["speech"]})
    'method erm; modalities speech'
    """
    groups: dict[str, list[str]] = {}
    for key, value in hyperparameters.items():
        parts = [part for part in key.split(".") if part not in ("loss", "languages", "modalities")] or [key]
        group, leaf = parts[0].replace("_", " "), " ".join(parts[1:]).replace("_", " ")
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        text = " and ".join(map(str, value)) if isinstance(value, list | tuple) else text
        # the schedule goes first and without its key: it says which parameters follow
        if leaf == "schedule":
            groups.setdefault(group, []).insert(0, text)
        else:
            groups.setdefault(group, []).append(f"{leaf} {text}".strip())
    return "; ".join(f"{group} {', '.join(values)}" for group, values in groups.items())


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as strings: one decimal, a sign on signed gaps, an en dash where a figure is undefined."""
    out = {}
    for column in table:
        name = column[-1] if isinstance(column, tuple) else column
        sign = "+" if str(name).startswith(SIGNED_PREFIXES) else ""
        out[column] = [_format_value(value, sign) for value in table[column]]
    return pd.DataFrame(out, columns=table.columns, dtype=str)


def as_text(table: pd.DataFrame) -> str:
    """Return the table as aligned columns for a terminal: text left-aligned, numbers right-aligned.

    >>> print(as_text(pd.DataFrame({"configuration": ["ERM", "trial 1"], "dev gap": [12.04, 8.0]})))
    configuration  dev gap
    ERM               12.0
    trial 1            8.0
    """
    strings = formatted(table)
    columns = []
    for column in table:
        cells = [str(column), *strings[column]]
        width = max(map(len, cells))
        align = str.rjust if pd.api.types.is_numeric_dtype(table[column]) else str.ljust
        columns.append([align(cell, width) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _format_value(value: Any, sign: str) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{round(value, 1) + 0.0:{sign}.1f}".replace("-", "−")  # + 0.0: no minus zero
    return "" if value is None else str(value)
