"""Training curves."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from analysis.loading.study import ERM, PAPER
from analysis.plots.pareto import MANY
from analysis.plots.style import STYLE, annotate_figure, canvas, family_legend, family_style

_TRAINING = {
    "dev_w_f1": "dev W-F1 (points)",
    "dev_gap": "dev gap (AVG, points; smaller is up)",
    "fairness_weight": "fairness weight",
}


def training_lines(epochs: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds, for each configuration and epoch that all its finished seeds reached.

    Args:
        epochs: from :func:`analysis.loading.study.load_epochs`.

    Returns:
        ``config_id, name, family, epoch, dev_w_f1, dev_gap, fairness_weight``; fractions.
    """
    seeds = epochs.groupby("config_id")["seed"].transform("nunique")
    reached = epochs.groupby(["config_id", "epoch"])["seed"].transform("nunique")
    keys = ["config_id", "name", "family", "epoch"]
    return epochs[seeds == reached].groupby(keys, sort=False)[list(_TRAINING)].mean().reset_index()


def training_figure(lines: pd.DataFrame) -> Figure:
    """Draw dev W-F1, dev gap and fairness weight over the epochs, one line per configuration.

    Args:
        lines: from :func:`training_lines`.
    """
    many = lines["config_id"].nunique() > MANY
    is_faint = ~lines["name"].isin([ERM, PAPER]) & many
    named, faint = lines[~is_faint], lines[is_faint].astype({"config_id": "category"})
    alpha = min(
        0.4, max(0.05, 20 / max(1, faint["config_id"].nunique()))
    )  # a thousand opaque lines would hide the bold ones
    with matplotlib.rc_context(STYLE):
        figure = canvas(10, 4.1)
        panels = figure.subplots(1, 3)
        for axes, (column, heading) in zip(panels, _TRAINING.items(), strict=True):
            scale = 1.0 if column == "fairness_weight" else 100.0
            for (_, name, family), line in named.groupby(["config_id", "name", "family"], sort=False):
                marker, colour, _ = family_style(str(family))
                marked = name in (ERM, PAPER)
                axes.plot(
                    line["epoch"], scale * line[column], color=colour, marker=marker, ms=5 if marked else 3.5,
                    lw=2.2 if marked else 1.1, alpha=1.0 if marked else 0.8, ls="--" if name == PAPER else "-",
                    zorder=3 if marked else 2,
                )  # fmt: skip
            for family, some in faint.groupby("family", sort=False):
                drawn = some[["epoch", column]].to_numpy(dtype=float) * (1.0, scale)
                ends = np.flatnonzero(np.diff(some["config_id"].cat.codes)) + 1
                marker, colour, _ = family_style(str(family))
                axes.add_collection(LineCollection(np.split(drawn, ends), colors=colour, lw=1.1, alpha=alpha, zorder=1))
                last = drawn[[*(ends - 1), -1]]  # markers distinguish families in greyscale
                axes.scatter(*last.T, marker=marker, s=14, color=colour, alpha=min(1.0, 2 * alpha), lw=0, zorder=1)
            axes.autoscale_view()
            axes.set_title(heading, loc="left", fontsize="medium")
            axes.set_xlabel("epoch")
            axes.yaxis.set_inverted(column == "dev_gap")
            axes.xaxis.get_major_locator().set_params(integer=True)
        family_legend(figure, lines["family"])
        marked_names = [name for name in (ERM, PAPER) if name in set(lines["name"])]
        bold = f"; bold: {' and '.join(marked_names)}" if marked_names else ""
        annotate_figure(figure, "Training, one line per configuration", f"figures on the development split{bold}", "")
    return figure
