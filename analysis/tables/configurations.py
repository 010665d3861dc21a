"""Tables of the configurations of a study, in points: the front, all configurations, cells, rates, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.formatting import GAP_PREFIX, POINTS, format_hyperparameters
from analysis.loading.study import Study
from study.evaluation.metrics import GAP_KINDS

_NONE = (float("nan"), float("nan"))
_KIND_NAMES = {"tpr": "TPR", "fpr": "FPR", "w_f1": "W-F1", "accuracy": "ACC"}
_FIGURE_NAMES = {
    "dev_w_f1": "dev W-F1",
    "dev_gap": "dev gap",
    "test_w_f1": "test W-F1",
    "test_gap": "test gap",
}


def front_table(points: pd.DataFrame) -> pd.DataFrame:
    """Return the configurations on the front, best dev W-F1 first.

    Args:
        points: output of :func:`analysis.pareto.front.front`.

    Returns:
        ``configuration, dev W-F1, dev gap, test W-F1, test gap, hyperparameters``; figures in points.
    """
    chosen = points[points["on_front"]].sort_values(["dev_w_f1", "dev_gap"], ascending=[False, True])
    return _figures_table(chosen)


def configurations_table(
    points: pd.DataFrame, n_seeds_planned: int, intervals: Mapping[str, tuple[float, float]] | None = None
) -> pd.DataFrame:
    """Return all configurations, best dev W-F1 first.

    Args:
        points: output of :func:`analysis.pareto.front.front`.
        intervals: by config_id, the 95 % interval of dev W-F1 as fractions; shown in a column of its own.

    Returns:
        The columns of :func:`front_table`, ``front`` ("yes" or empty), ``95 % interval`` if there are ``intervals``,
        and ``seeds``, which notes an incomplete configuration.
    """
    ordered = points.sort_values(["dev_w_f1", "dev_gap"], ascending=[False, True])
    table = _figures_table(ordered)
    if intervals is not None:
        texts = [
            f"{POINTS * low:.1f} to {POINTS * high:.1f}".replace("-", "−") if (low == low and high == high) else "–"
            for low, high in (intervals.get(config_id, _NONE) for config_id in ordered["config_id"])
        ]
        table.insert(list(table.columns).index("dev W-F1") + 1, "95 % interval", texts)
    table.insert(1, "front", ["yes" if on_front else "" for on_front in ordered["on_front"]])
    seeds = [
        str(n)
        if complete
        else f"{n}, some modalities only"
        if n >= n_seeds_planned
        else f"{n} of {n_seeds_planned}, incomplete"
        for n, complete in zip(ordered["n_seeds"], ordered["complete"], strict=True)
    ]
    table.insert(len(table.columns) - 1, "seeds", seeds)
    return table


def cells_table(study: Study, config_ids: Sequence[str], split: str) -> pd.DataFrame:
    """Return figures by language and modality, averaged over seeds.

    Args:
        config_ids: the configurations, in this order.
        split: "dev" or "test".

    Returns:
        ``configuration, language, modality, women, men, unknown`` (utterances), then in points ``W-F1, accuracy,
        gap`` (AVG), the signed gaps ``F − M TPR, F − M FPR, F − M W-F1, F − M ACC``, and those of W-F1 and ACC at
        common class priors.
    """
    names = study.configurations.set_index("config_id")["name"]
    chosen = study.cells[(study.cells["split"] == split) & study.cells["config_id"].isin(config_ids)]
    common = ("w_f1", "accuracy")
    figures = ["w_f1", "accuracy", "gap", *(f"signed_{k}" for k in GAP_KINDS), *(f"standardised_{k}" for k in common)]
    sizes = ["n_female", "n_male", "n_unknown"]
    keys = ["config_id", "language", "modality"]
    chosen = chosen.reindex(columns=[*keys, *sizes, *figures]).astype(dict.fromkeys(figures, float))
    grouped = chosen.groupby(keys, sort=False)
    frame = pd.concat([grouped[sizes].first(), POINTS * grouped[figures].mean(skipna=False)], axis=1).reset_index()
    order = {config_id: i for i, config_id in enumerate(config_ids)}
    frame = frame.sort_values("config_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
    frame.insert(0, "configuration", frame.pop("config_id").map(names))
    headings = {"n_female": "women", "n_male": "men", "n_unknown": "unknown", "w_f1": "W-F1"}
    headings |= {f"signed_{kind}": f"{GAP_PREFIX}{_KIND_NAMES[kind]}" for kind in GAP_KINDS}
    headings |= {f"standardised_{kind}": f"{GAP_PREFIX}{_KIND_NAMES[kind]}, common priors" for kind in common}
    return frame.rename(columns=headings)


def rates_table(runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return TPR and FPR by emotion of one configuration.

    Args:
        runs: output of :func:`study.evaluation.metrics.class_rates`, one per seed, on the same utterances.

    Returns:
        One row per (language, modality, emotion): ``n F, n M``, the utterances of that emotion by women and men, and
        ``TPR F, TPR M, FPR F, FPR M``, averaged over seeds, in points.
    """
    keys = ["language", "modality", "emotion"]
    mean = pd.concat(runs).groupby([*keys, "gender"], sort=False)[["n", "tpr", "fpr"]].mean().reset_index()
    wide = mean.pivot_table(index=keys, columns="gender", values=["n", "tpr", "fpr"], sort=False, dropna=False)
    table = wide.index.to_frame(index=False)
    for letter, gender in (("F", "female"), ("M", "male")):
        table[f"n {letter}"] = wide["n", gender].to_numpy().astype(int)
    for rate in ("tpr", "fpr"):
        for letter, gender in (("F", "female"), ("M", "male")):
            table[f"{rate.upper()} {letter}"] = POINTS * wide[rate, gender].to_numpy()
    return table


def groups_table(figures: Mapping[str, Any]) -> pd.DataFrame:
    """Return the figures of one split of one run by language, modality and gender.

    Args:
        figures: output of :func:`study.evaluation.metrics.evaluate`.

    Returns:
        For each cell a row for women, for men and for all (including unknown gender), and for each modality the mean
        over its languages: ``language, modality, gender, utterances``, then in points ``W-F1, accuracy, UAR, invalid``
        and ``gap`` (AVG), which only rows of all genders have.
    """
    shares = ["w_f1", "accuracy", "uar", "invalid", "gap"]
    rows: list[dict[str, Any]] = []
    means: dict[str, list[dict[str, Any]]] = {}
    for name, cell in figures["cells"].items():
        language, _, modality = name.partition("/")
        sizes = {gender: cell[f"n_{gender}"] for gender in ("female", "male", "unknown")}
        for gender, group in cell["by_group"].items():
            rows.append({"language": language, "modality": modality, "gender": gender, "utterances": sizes[gender]})
            rows[-1] |= {kind: group.get(kind) for kind in shares[:-1]}  # older records have no UAR by gender
        whole = {"language": language, "modality": modality, "gender": "all", "utterances": sum(sizes.values())}
        rows.append({**whole, **{kind: cell[kind] for kind in shares}})
        means.setdefault(modality, []).append(rows[-1])
    for modality, cells in means.items():
        over = pd.DataFrame(cells)
        mean = over[shares].astype(float).mean()
        rows.append({"language": "mean", "modality": modality, "gender": "all", **mean})
        rows[-1]["utterances"] = int(over["utterances"].sum())
    frame = pd.DataFrame(rows)
    frame[shares] = POINTS * frame[shares].astype(float)
    return frame.rename(columns={"w_f1": "W-F1", "uar": "UAR"})


def front_csv(points: pd.DataFrame) -> str:
    """Return the front as CSV: one row per configuration, figures in points with two decimals, one column per
    hyperparameter."""
    chosen = points[points["on_front"]].sort_values(["dev_w_f1", "dev_gap"], ascending=[False, True])
    frame = chosen[["config_id", "number", "label", "n_seeds"]].reset_index(drop=True)
    for column in _FIGURE_NAMES:
        frame[f"{column}_points"] = (POINTS * chosen[column]).round(2).to_numpy()
    hyperparameters = pd.DataFrame(chosen["hyperparameters"].tolist()).add_prefix("hyperparameter.")
    return pd.concat([frame, hyperparameters], axis=1).to_csv(index=False, lineterminator="\n")


def _figures_table(rows: pd.DataFrame) -> pd.DataFrame:
    table = rows[["name"]].rename(columns={"name": "configuration"}).reset_index(drop=True)
    for column, heading in _FIGURE_NAMES.items():
        table[heading] = POINTS * rows[column].to_numpy(dtype=float)
    table["hyperparameters"] = [format_hyperparameters(hyperparameters) for hyperparameters in rows["hyperparameters"]]
    return table
