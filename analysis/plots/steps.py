"""The loss over the training steps: fairness weight, gap of every cell, active cell, negative weights."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.loading.study import PAPER, Study
from analysis.plots.style import DASHES, GREY, INK, STYLE, annotate_figure, canvas

MAX_CONFIGURATIONS = 3
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9")
LINES = tuple(zip(COLOURS, DASHES, strict=True))
"""Colour and dash of each cell."""


@dataclass(frozen=True)
class StepsInfo:
    """The data of the figure: one run per configuration.

    Attributes:
        names: of the configurations, in the order of the columns.
        cells: the cells, in the order of their colours.
        steps: ``name, step, epoch, weight`` (the mean over cells if each has its own), ``active``,
            ``negative_weights`` (fraction).
        gaps: ``name, step, cell, gap``: the absolute gap in nats, a moving average over a tenth of the run's steps.
        weights: ``name, step, cell, weight``, for configurations with one weight per cell.
        seed: of the runs.
    """

    names: tuple[str, ...]
    cells: tuple[str, ...]
    steps: pd.DataFrame
    gaps: pd.DataFrame
    weights: pd.DataFrame
    seed: int


def steps_info(study: Study) -> StepsInfo | None:
    """Return the steps of the paper's setting and of the configurations with the best dev W-F1 and a fairness weight.

    Returns:
        ``None`` if no configuration has a fairness weight.
    """
    seed = min(study.seeds)
    runs = study.runs[study.runs["seed"] == seed].sort_values("dev_w_f1", ascending=False)
    runs = pd.concat([runs[runs["label"] == PAPER], runs[runs["label"] != PAPER]])
    chosen: dict[str, pd.DataFrame] = {}
    for run in runs.itertuples():
        if len(chosen) < MAX_CONFIGURATIONS:
            steps = study.records.steps(str(run.config_id), seed)
            if not steps.empty and steps["fairness_weight"].any():
                chosen[str(run.name)] = steps.assign(name=str(run.name))
    if not chosen:
        return None
    pooled = pd.concat(chosen.values(), ignore_index=True)
    return StepsInfo(
        names=tuple(chosen),
        cells=tuple(column.removeprefix("gap/") for column in map(str, pooled) if column.startswith("gap/")),
        steps=pooled[["name", "step", "epoch", "active", "negative_weights"]].assign(weight=pooled["fairness_weight"]),
        gaps=pd.concat([_by_cell(steps, "gap", smooth=True) for steps in chosen.values()], ignore_index=True),
        weights=pd.concat([_by_cell(steps, "fairness_weight") for steps in chosen.values()], ignore_index=True),
        seed=seed,
    )


def steps_figure(info: StepsInfo) -> Figure:
    """Draw weight, gaps, active cell and share of negative weights over the steps, one column per configuration."""
    rows = (
        "fairness weight",
        "gap of the losses (nats)",
        "active cell, in the order of the legend",
        "utterances with a negative weight (%)",
    )
    looks = dict(zip(info.cells, LINES * len(info.cells), strict=False))
    with matplotlib.rc_context(STYLE):
        figure = canvas(3.4 * len(info.names) + 1.2, 8.2)
        panels = figure.subplots(
            len(rows), len(info.names), sharex="col", sharey="row", squeeze=False, height_ratios=(2, 2, 1, 1)
        )
        for column, name in enumerate(info.names):
            steps, gaps, weights = (table[table["name"] == name] for table in (info.steps, info.gaps, info.weights))
            weight, gap, active, negative = panels[:, column]
            weight.set_title(f"{name}\n", loc="left", fontsize="medium", fontweight="bold")
            if weights.empty:
                weight.plot(steps["step"], steps["weight"], color=INK, lw=1.5)
            for table, axes, value in ((weights, weight, "weight"), (gaps, gap, "gap")):
                for cell, line in table.groupby("cell", sort=False):
                    colour, dash = looks[str(cell)]
                    axes.plot(line["step"], line[value], color=colour, ls=dash, lw=1.3, label=cell)
            for place, cell in enumerate(info.cells):
                at = steps.loc[steps["active"] == cell, "step"]
                active.plot(at, [place] * len(at), "|", color=looks[cell][0], ms=7)
            active.set_yticks([])
            active.set_ylim(len(info.cells) - 0.5, -0.5)
            negative.plot(steps["step"], 100.0 * steps["negative_weights"], color=INK, lw=1.0)
            negative.set_xlabel("training step")
            _epoch_lines(list(panels[:, column]), steps)
        for axes, heading in zip(panels[:, 0], rows, strict=True):
            axes.annotate(
                heading, (0, 1), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points", color=GREY,
                fontsize="small", va="bottom", annotation_clip=False,
            )  # fmt: skip
        handles, labels = panels[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", ncols=len(labels), frameon=False, fontsize="small")
        annotate_figure(
            figure, "The loss over the training steps", f"every training step, seed {info.seed}; thin lines: epochs", ""
        )
        figure.subplots_adjust(top=1 - 1.25 / figure.get_figheight(), hspace=0.35)
    return figure


def _by_cell(steps: pd.DataFrame, kind: str, smooth: bool = False) -> pd.DataFrame:
    """Return the columns ``kind/CELL`` as rows ``name, step, cell, value``.

    With ``smooth``, values are absolute and averaged over a tenth of the steps.
    """
    value = {"gap": "gap", "fairness_weight": "weight"}[kind]
    wide = steps[[column for column in map(str, steps) if column.startswith(f"{kind}/")]].astype(float)
    wide.columns = wide.columns.str.removeprefix(f"{kind}/")
    if smooth:
        wide = wide.abs().rolling(max(1, len(wide) // 10), min_periods=1, center=True).mean()
    long = wide.assign(step=steps["step"], name=steps["name"]).melt(["name", "step"], var_name="cell", value_name=value)
    return long.dropna(subset=[value])


def _epoch_lines(panels: list[Axes], steps: pd.DataFrame) -> None:
    for start in steps.groupby("epoch")["step"].min().iloc[1:]:
        for axes in panels:
            axes.axvline(start - 0.5, color=GREY, lw=0.5, alpha=0.5, zorder=0)
