"""Tables in the benchmark's layout (arXiv 2603.21050): W-F1, ACC and five gaps for each language."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.study import Study
from analysis.tables.latex import tabular
from study.common.groups import LANGUAGES, MODALITIES

MEAN = "multilingual"
FIGURES = {
    "w_f1": "W-F1",
    "accuracy": "ACC",
    "absolute_tpr": "ΔTPR",
    "absolute_fpr": "ΔFPR",
    "absolute_w_f1": "ΔW-F1",
    "absolute_accuracy": "ΔACC",
    "gap": "AVG",
}


def benchmark(study: Study, config_ids: Sequence[str], split: str = "test") -> dict[str, pd.DataFrame]:
    """Return one table per modality.

    Args:
        config_ids: the rows, in this order.
        split: "dev" or "test".

    Returns:
        By modality, a table in points. Its index is the names of the configurations (``configuration``); its columns
        are (language, figure) in the order of ``LANGUAGES``, then the unweighted ``multilingual`` mean. Figures are
        those of ``FIGURES``, averaged over the finished seeds; gaps are absolute. NaN where a gap is undefined.
    """
    names = study.configurations.set_index("config_id")["name"]
    cells = study.cells[(study.cells["split"] == split) & study.cells["config_id"].isin(config_ids)]
    grouped = cells.astype(dict.fromkeys(FIGURES, float)).groupby(["modality", "config_id", "language"], sort=False)
    means = (POINTS * grouped[list(FIGURES)].mean(skipna=False)).rename(columns=FIGURES)
    tables = {}
    for modality in (name for name in MODALITIES if name in set(cells["modality"])):
        in_modality = means.xs(modality, level="modality")
        languages = [name for name in LANGUAGES if name in set(in_modality.index.get_level_values("language"))]
        blocks = {language: in_modality.xs(language, level="language") for language in languages}
        blocks[MEAN] = pd.concat(blocks).groupby(level="config_id", sort=False).mean(skipna=False)
        table = pd.concat(blocks, axis="columns")
        table = table.loc[[config_id for config_id in config_ids if config_id in table.index]]
        table.index = pd.Index(names[table.index], name="configuration")
        tables[modality] = table
    return tables


def benchmark_csv(tables: dict[str, pd.DataFrame]) -> str:
    """Return all tables as one CSV: ``modality, configuration`` and a column per (language, figure), in points."""
    flat = []
    for modality, table in tables.items():
        columns = [" ".join(names) for names in table.columns]
        flat.append(table.set_axis(columns, axis="columns").reset_index().assign(modality=modality))
    return pd.concat(flat).set_index("modality").round(2).to_csv(lineterminator="\n")


def benchmark_latex(tables: dict[str, pd.DataFrame], split: str, notes: Sequence[str]) -> str:
    """Return one LaTeX table per modality.

    Args:
        notes: appended to each caption.
    """
    caption = f"on {split}, in points. Gaps are absolute; AVG is the mean of the four. {' '.join(notes)}"
    return "\n".join(
        tabular(table.map(two_decimals).rename_axis(None), f"{modality}, {caption}")
        for modality, table in tables.items()
    )


def two_decimals(value: float) -> str:
    """Format a figure as in the paper; an en dash if it is undefined."""
    return "–" if value != value else f"{value:.2f}"
