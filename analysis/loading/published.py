"""The figures that arXiv 2603.21050 reports, to be drawn beside our own and never compared with them.

Its split and its genders cannot be rebuilt, so every row carries the label "published, different split". Its gaps are
of the size that chance alone gives at 1,500 utterances a gender (:mod:`analysis.stats.permutation`), and none has an
interval. Only the paper's abstract and digests by others were at hand: ``published.csv`` holds what these state.
"""

from __future__ import annotations

from importlib import resources

import pandas as pd

from analysis.formatting import POINTS

LABEL = "published, different split"
FIGURES = ("w_f1", "accuracy", "gap")


def published() -> pd.DataFrame:
    """The published rows.

    Returns:
        One row a (system, modality, language): ``system, modality, language`` ("multilingual" is the unweighted mean
        over the three), ``w_f1, accuracy, gap`` (AVG) as fractions, NaN where nothing is stated, ``source`` and
        ``label``, which is ``LABEL`` in every row.
    """
    with resources.files("analysis.loading").joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    return table.assign(**{name: table[name] / POINTS for name in FIGURES}, label=LABEL)
