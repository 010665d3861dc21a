"""The published results of arXiv 2603.21050. They are shown beside this study's results and never compared with them.

Neither the paper's split nor its gender labels can be reproduced, so every row has the label "published, different
split". The published gaps are about as large as chance alone produces with 1,500 utterances per gender
(:mod:`analysis.stats.permutation`), and they have no intervals. ``published.csv`` contains what the paper's abstract
and secondary sources state; the full paper was not available.
"""

from __future__ import annotations

from importlib import resources

import pandas as pd

from analysis.formatting import POINTS

LABEL = "published, different split"
FIGURES = ("w_f1", "accuracy", "gap")


def published() -> pd.DataFrame:
    """Return the published results.

    Returns:
        One row per (system, modality, language): ``system, modality, language`` ("multilingual" is the unweighted mean
        over the three languages), ``w_f1, accuracy, gap`` (AVG) as fractions, NaN where nothing is stated, ``source``
        and ``label`` (always ``LABEL``).
    """
    with resources.files("analysis.loading").joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    return table.assign(**{name: table[name] / POINTS for name in FIGURES}, label=LABEL)
