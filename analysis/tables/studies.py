"""The configurations of several studies as a table for a reader."""

from __future__ import annotations

import pandas as pd

from analysis.constants import SPLITS
from analysis.formatting import POINTS

_HEADINGS = {
    "study": "study", "name": "configuration", "on_front": "front", "n_seeds": "seeds", "dev_w_f1": "dev W-F1",
    "dev_gap": "dev gap", "test_w_f1": "test W-F1", "test_gap": "test gap", "comparable_dev": "dev set",
    "comparable_test": "test set",
}  # fmt: skip


def studies_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the output of :func:`analysis.comparison.studies.side_by_side` in points, with headings."""
    renamed = table[list(_HEADINGS)].rename(columns=_HEADINGS)
    renamed["front"] = ["yes" if on_front else "" for on_front in renamed["front"]]
    for heading in ("seeds", "dev set", "test set"):
        renamed[heading] = renamed[heading].astype(str)
    for split in SPLITS:
        renamed[f"{split} W-F1"] *= POINTS
        renamed[f"{split} gap"] *= POINTS
    return renamed
