"""What was found by searching, beside the same configurations on fresh seeds: a winner is partly luck."""

from __future__ import annotations

import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.pareto.objectives_front import objectives_front, own_objectives, scale_of
from study.storage.schemas import objectives_of

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


def with_objectives(rows: pd.DataFrame, search: Study, again: Study) -> pd.DataFrame:
    """The rows of :func:`confirmation` with a study's own objectives, where these are not W-F1 and gap alone.

    Returns:
        The same with the objective ``NAME`` as ``goal NAME``, on fresh seeds as ``fresh_goal NAME``; fractions, or
        seconds; NaN where a trial lacks seeds. ``missed`` and ``fresh_missed``, in words, where it has requirements.
    """
    if not own_objectives(search.plan):
        return rows
    for prefix, study in (("", search), ("fresh_", again)):
        points = objectives_front(search.plan | {"seeds": study.plan["seeds"]}, study.trials)
        points = points.set_index("config_id").reindex(rows["config_id"])
        own = {
            f"{prefix}goal {metric}": points[metric].to_numpy(dtype=float) for metric, _ in objectives_of(search.plan)
        }
        missed = [", ".join(each) or "nothing" if isinstance(each, dict) else "–" for each in points["missed"]]
        rows = rows.assign(**own, **({f"{prefix}missed": missed} if search.plan.get("constraints") else {}))
    return rows


def confirmation_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The same for a reader, in points: as searched, then on fresh seeds; a study's own objectives first."""
    table = pd.DataFrame({"configuration": rows["name"]})
    table["seeds"] = [f"{a} → {b}" for a, b in zip(rows["seeds"], rows["fresh_seeds"], strict=True)]
    for column in [name for name in map(str, rows) if name.startswith("goal ")]:
        metric = column.removeprefix("goal ")
        pairs = zip(rows[column], rows[f"fresh_{column}"], strict=True)
        table[metric] = [" → ".join(_shown(value, scale_of(metric)) for value in pair) for pair in pairs]
    if "missed" in rows:
        pairs = zip(rows["missed"], rows["fresh_missed"], strict=True)
        table["misses"] = [f"{found} → {fresh}" for found, fresh in pairs]
    for split in ("dev", "test"):
        for words, figure in FIGURES.items():
            pairs = zip(rows[f"{split}_{figure}"], rows[f"fresh_{split}_{figure}"], strict=True)
            table[f"{split} {words}"] = [f"{_shown(found)} → {_shown(fresh)}" for found, fresh in pairs]
    return table


def _shown(value: float, scale: float = POINTS) -> str:
    return "–" if value != value else f"{scale * value:.1f}"
