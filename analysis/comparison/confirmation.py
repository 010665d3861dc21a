"""Configurations selected by a search beside the same configurations on fresh seeds.

The dev figures of a selected configuration are optimistic, since the search selected it by them.
"""

from __future__ import annotations

import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.pareto.objectives_front import display_scale, has_custom_objectives, objectives_front
from study.storage.schemas import objectives_of

FIGURES = {"W-F1": "w_f1", "gap": "gap"}
_OBJECTIVE = "objective "


def confirmation(search: Study, fresh: Study) -> pd.DataFrame:
    """List the configurations of a search that were trained again on fresh seeds.

    Args:
        search: the study that searched.
        fresh: the study of the same configurations on other seeds.

    Returns:
        ``config_id, name, seeds, fresh_seeds`` and, for dev and test, ``{split}_w_f1`` and ``{split}_gap`` of the
        search, prefixed with ``fresh_`` for the fresh seeds; fractions, means over seeds.
    """
    columns = [f"{split}_{figure}" for split in ("dev", "test") for figure in FIGURES.values()]
    on_fresh = fresh.configurations.set_index("config_id")
    rows = []
    for searched in search.configurations.to_dict("records"):
        config_id = searched["config_id"]
        if config_id not in on_fresh.index:
            continue
        again = on_fresh.loc[config_id]
        row = {"config_id": config_id, "name": searched["name"], "seeds": searched["n_seeds"]}
        row |= {"fresh_seeds": int(again["n_seeds"])}
        row |= {column: searched[column] for column in columns} | {f"fresh_{c}": float(again[c]) for c in columns}
        rows.append(row)
    names = ["config_id", "name", "seeds", "fresh_seeds", *columns, *(f"fresh_{c}" for c in columns)]
    return pd.DataFrame(rows, columns=names)


def with_objectives(rows: pd.DataFrame, search: Study, fresh: Study) -> pd.DataFrame:
    """Add the search objectives to the rows of :func:`confirmation`, unless they are W-F1 and gap without constraints.

    Returns:
        The rows with a column ``objective NAME`` per objective, and ``fresh_objective NAME`` on fresh seeds (fractions
        or seconds; NaN if a trial lacks seeds); and if there are constraints, ``violations`` and ``fresh_violations``
        as text.
    """
    if not has_custom_objectives(search.plan):
        return rows
    for prefix, study in (("", search), ("fresh_", fresh)):
        points = objectives_front(search.plan | {"seeds": study.plan["seeds"]}, study.trials)
        points = points.set_index("config_id").reindex(rows["config_id"])
        metrics = [metric for metric, _ in objectives_of(search.plan)]
        rows = rows.assign(**{f"{prefix}{_OBJECTIVE}{m}": points[m].to_numpy(dtype=float) for m in metrics})
        if search.plan.get("constraints"):
            violations = [", ".join(v) or "none" if isinstance(v, dict) else "–" for v in points["violations"]]
            rows = rows.assign(**{f"{prefix}violations": violations})
    return rows


def confirmation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows for display: values of the search → values on fresh seeds, in points; objectives first."""
    table = pd.DataFrame({"configuration": rows["name"]})
    table["seeds"] = [f"{a} → {b}" for a, b in zip(rows["seeds"], rows["fresh_seeds"], strict=True)]
    for column in [name for name in map(str, rows) if name.startswith(_OBJECTIVE)]:
        metric = column.removeprefix(_OBJECTIVE)
        table[metric] = _arrows(rows, column, display_scale(metric))
    if "violations" in rows:
        pairs = zip(rows["violations"], rows["fresh_violations"], strict=True)
        table["violations"] = [f"{searched} → {fresh}" for searched, fresh in pairs]
    for split in ("dev", "test"):
        for heading, figure in FIGURES.items():
            table[f"{split} {heading}"] = _arrows(rows, f"{split}_{figure}", POINTS)
    return table


def _arrows(rows: pd.DataFrame, column: str, scale: float) -> list[str]:
    pairs = zip(rows[column], rows[f"fresh_{column}"], strict=True)
    return [" → ".join("–" if value != value else f"{scale * value:.1f}" for value in pair) for pair in pairs]
