"""Numbers and tables as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def in_words(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"{POINTS * low:+.1f} to {POINTS * high:+.1f}".replace("-", "−")


def p_in_words(value: float) -> str:
    return "" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


POINTS = 100.0


GAP_PREFIX = "F − M "


SIGNED_PREFIXES = (GAP_PREFIX, "difference")


def hyperparameters_in_words(hyperparameters: Mapping[str, Any]) -> str:
    """The knobs of a trial as one readable line.

    >>> weight = {"fairness_weight.schedule": "constant", "fairness_weight.weight": 0.5, "coefficients.en": 1.25}
    >>> hyperparameters_in_words(weight)
    'fairness weight constant, weight 0.5; coefficients en 1.25'
    >>> hyperparameters_in_words({"loss.method": "erm", "modalities": ["speech"]})
    'method erm; modalities speech'
    """
    groups: dict[str, list[str]] = {}
    for key, value in hyperparameters.items():
        parts = [part for part in key.split(".") if part not in ("loss", "languages", "modalities")] or [key]
        group, leaf = parts[0].replace("_", " "), " ".join(parts[1:]).replace("_", " ")
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        shown = " and ".join(map(str, value)) if isinstance(value, list | tuple) else shown
        # the schedule says what kind of weight the rest describes, so it goes first and without its key
        if leaf == "schedule":
            groups.setdefault(group, []).insert(0, shown)
        else:
            groups.setdefault(group, []).append(f"{leaf} {shown}".strip())
    return "; ".join(f"{group} {', '.join(words)}" for group, words in groups.items())


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The table as strings: one decimal, a sign on signed gaps, an en dash where a figure is undefined."""
    out = {}
    for column in table:
        name = column[-1] if isinstance(column, tuple) else column
        sign = "+" if str(name).startswith(SIGNED_PREFIXES) else ""
        out[column] = [_shown(value, sign) for value in table[column]]
    return pd.DataFrame(out, columns=table.columns, dtype=str)


def as_text(table: pd.DataFrame) -> str:
    """The table in aligned columns for a terminal: words to the left, figures to the right, no colour.

    >>> print(as_text(pd.DataFrame({"configuration": ["ERM", "trial 1"], "dev gap": [12.04, 8.0]})))
    configuration  dev gap
    ERM               12.0
    trial 1            8.0
    """
    shown = formatted(table)
    columns = []
    for column in table:
        cells = [str(column), *shown[column]]
        width = max(map(len, cells))
        align = str.rjust if pd.api.types.is_numeric_dtype(table[column]) else str.ljust
        columns.append([align(cell, width) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _shown(value: Any, sign: str) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{round(value, 1) + 0.0:{sign}.1f}".replace("-", "−")  # + 0.0: no minus zero
    return "" if value is None else str(value)
