"""The benchmark's layout (arXiv 2603.21050): a row a configuration, and for each language W-F1, ACC and five gaps."""

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
    """The tables of the paper's layout, one a modality.

    Args:
        config_ids: the rows, in this order.
        split: "dev" or "test".

    Returns:
        By modality, points: the index is the names of the configurations (``configuration``), the columns are
        (language, figure) in the order of ``LANGUAGES`` and then the ``multilingual`` mean, unweighted over the
        languages; figures are ``FIGURES``, means over the finished seeds, gaps absolute. NaN where a gap is undefined.
    """
    names = study.configurations.set_index("config_id")["name"]
    cells = study.cells[(study.cells["split"] == split) & study.cells["config_id"].isin(config_ids)]
    means = cells.astype(dict.fromkeys(FIGURES, float)).groupby(["modality", "config_id", "language"], sort=False)
    of_seeds = (POINTS * means[list(FIGURES)].mean(skipna=False)).rename(columns=FIGURES)
    tables = {}
    for modality in (word for word in MODALITIES if word in set(cells["modality"])):
        of_modality = of_seeds.xs(modality, level="modality")
        languages = [word for word in LANGUAGES if word in set(of_modality.index.get_level_values("language"))]
        blocks = {language: of_modality.xs(language, level="language") for language in languages}
        of_all = pd.concat(blocks).groupby(level="config_id", sort=False)
        blocks[MEAN] = of_all.mean(skipna=False)
        table = pd.concat(blocks, axis="columns")
        table = table.loc[[config_id for config_id in config_ids if config_id in table.index]]
        table.index = pd.Index(names[table.index], name="configuration")
        tables[modality] = table
    return tables


def benchmark_csv(tables: dict[str, pd.DataFrame]) -> str:
    """The tables in one file: ``modality, configuration`` and a column a (language, figure), in points."""
    flat = []
    for modality, table in tables.items():
        columns = [" ".join(names) for names in table.columns]
        flat.append(table.set_axis(columns, axis="columns").reset_index().assign(modality=modality))
    whole = pd.concat(flat).set_index("modality").round(2)
    return whole.to_csv(lineterminator="\n")


def benchmark_latex(tables: dict[str, pd.DataFrame], split: str, notes: Sequence[str]) -> str:
    """The tables as LaTeX, one a modality."""
    said = f"on {split}, in points; gaps are absolute, AVG is the mean of the four. {' '.join(notes)}"
    return "\n".join(
        tabular(table.map(two_decimals).rename_axis(None), f"{modality}, {said}") for modality, table in tables.items()
    )


def two_decimals(value: float) -> str:
    """As the paper prints a figure; an en dash where it is undefined."""
    return "–" if value != value else f"{value:.2f}"
