"""What was found by searching, beside the same configurations on fresh seeds: a winner is partly luck."""

from __future__ import annotations

import pandas as pd

from analysis.load import Study
from analysis.tables import POINTS

FIGURES = {"W-F1": "w_f1", "gap": "gap"}


def confirmation(search: Study, again: Study) -> pd.DataFrame:
    """Every configuration that has run again.

    Args:
        search: the study that found them.
        again: the study of the same configurations on other seeds.

    Returns:
        ``config_id, name, seeds, fresh_seeds`` and, for dev and test, ``{split}_w_f1`` and ``{split}_gap`` as searched,
        with ``fresh_`` before them on the fresh seeds; fractions, means over seeds.
    """
    columns = [f"{split}_{figure}" for split in ("dev", "test") for figure in FIGURES.values()]
    kept = again.configurations.set_index("config_id")
    rows = []
    for found in search.configurations.to_dict("records"):
        if found["config_id"] not in kept.index:
            continue
        fresh = kept.loc[found["config_id"]]
        row = {"config_id": found["config_id"], "name": found["name"], "seeds": found["n_seeds"]}
        row |= {"fresh_seeds": int(fresh["n_seeds"])}
        row |= {column: found[column] for column in columns} | {f"fresh_{c}": float(fresh[c]) for c in columns}
        rows.append(row)
    names = ["config_id", "name", "seeds", "fresh_seeds", *columns, *(f"fresh_{c}" for c in columns)]
    return pd.DataFrame(rows, columns=names)


def confirmation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The same for a reader, in points: as searched, then on fresh seeds."""
    table = pd.DataFrame({"configuration": rows["name"]})
    table["seeds"] = [f"{a} → {b}" for a, b in zip(rows["seeds"], rows["fresh_seeds"], strict=True)]
    for split in ("dev", "test"):
        for words, figure in FIGURES.items():
            pairs = zip(rows[f"{split}_{figure}"], rows[f"fresh_{split}_{figure}"], strict=True)
            table[f"{split} {words}"] = [f"{_points(found)} → {_points(fresh)}" for found, fresh in pairs]
    return table


def _points(value: float) -> str:
    return "–" if value != value else f"{POINTS * value:.1f}"
