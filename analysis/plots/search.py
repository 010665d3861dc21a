"""Figures of a whole search: attainment over seeds, hypervolume over trials, and the published systems."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.formatting import POINTS
from analysis.pareto.objectives_front import display_scale
from analysis.plots.style import COLOURS, DASHES, GREY, INK, PALE, STYLE, annotate_figure, canvas, short
from study.storage.schemas import objectives_of


def attainment_figure(surfaces: pd.DataFrame, n_seeds: int) -> Figure:
    """Draw the attainment surfaces of 25 %, 50 % and 75 % of the seeds' fronts. The gap axis is inverted.

    Args:
        surfaces: from :func:`analysis.pareto.attainment.attainment`, with at least one row.
        n_seeds: number of fronts.
    """
    with matplotlib.rc_context(STYLE):
        figure = canvas(7.2, 5.0)
        axes = figure.subplots()
        gaps, scores = POINTS * surfaces["gap"], POINTS * surfaces["w_f1"]
        axes.set_xlim(gaps.max() + max(0.5, 0.08 * (gaps.max() - gaps.min())), gaps.min() - 0.5)
        axes.set_ylim(scores.min() - 2, scores.max() + 2)
        for i, (level, corners) in enumerate(surfaces.groupby("level")):
            gap, w_f1 = (POINTS * corners[name] for name in ("gap", "w_f1"))
            axes.plot(
                [gap.iloc[0], *gap, axes.get_xlim()[0]],
                [axes.get_ylim()[0], *w_f1, w_f1.iloc[-1]],
                drawstyle="steps-post", color=COLOURS[i % 6], ls=DASHES[i % 6], lw=1.8, label=f"{level:.0f} % of seeds",
            )  # fmt: skip
        _label_axes(axes)
        figure.legend(loc="lower left", ncols=3, frameon=False, fontsize="small")
        caption = (
            "Each seed has its own front. The region below and left of a line is dominated by this share of the fronts."
        )
        annotate_figure(figure, "Attainment of the front over training seeds", f"dev, {n_seeds} seeds", caption)
    return figure


def hypervolume_figure(history: pd.DataFrame) -> Figure:
    """Draw the hypervolume of the front over trials and over hours.

    Args:
        history: from :func:`analysis.pareto.attainment.hypervolume_history`, with at least one row.
    """
    with matplotlib.rc_context(STYLE):
        figure = canvas(8.6, 3.9)
        panels = figure.subplots(1, 2, sharey=True)
        scales = {
            "n_trials": "trials finished",
            "hours": "worker-hours of finished trials (GPU-hours on GPUs)",
        }
        for axes, (column, heading) in zip(panels, scales.items(), strict=True):
            axes.plot(history[column], 1e4 * history["hypervolume"], drawstyle="steps-post", color=INK, lw=1.6)
            axes.plot(history[column].iloc[-1], 1e4 * history["hypervolume"].iloc[-1], "o", color=INK, ms=4)
            axes.set_xlabel(heading)
        panels[0].set_ylabel("hypervolume (squared points)")
        panels[0].xaxis.get_major_locator().set_params(integer=True)
        caption = "The area that the front dominates, relative to W-F1 0 and a gap of 50 points. Higher is better."
        annotate_figure(figure, "Hypervolume of the front", "dev, in the order of the trials", caption)
    return figure


def published_figure(rows: pd.DataFrame) -> Figure:
    """Draw our configurations on test beside the published systems, which were measured on other splits.

    Args:
        rows: ``modality, name, ours`` (bool), ``w_f1, gap`` (points).
    """
    modalities = list(dict.fromkeys(rows["modality"]))
    with matplotlib.rc_context(STYLE):
        figure = canvas(4.6 * len(modalities) + 0.8, 5.0)
        for axes, modality in zip(figure.subplots(1, len(modalities), squeeze=False)[0], modalities, strict=True):
            panel = rows[rows["modality"] == modality]
            for ours, marker, colour, label in (
                (False, "v", GREY, "published, different split"),
                (True, "o", COLOURS[0], "this study, test"),
            ):
                some = panel[panel["ours"] == ours]
                axes.scatter(
                    some["gap"], some["w_f1"], marker=marker, s=45, edgecolor=colour, lw=1.3,
                    facecolor=colour if ours else "none", label=label,
                )  # fmt: skip
                if not ours:
                    for row in some.itertuples():
                        axes.annotate(
                            str(row.name), (row.gap, row.w_f1), xytext=(5, 3), textcoords="offset points",
                            fontsize="x-small", color=GREY,
                        )  # fmt: skip
            axes.margins(0.22, 0.12)
            axes.xaxis.set_inverted(True)
            axes.set_title(modality, loc="left", fontsize="medium")
            _label_axes(axes)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", ncols=2, frameon=False, fontsize="small")
        annotate_figure(
            figure, "Published systems", "multilingual means; the splits differ, so figures are not comparable", ""
        )
    return figure


def _label_axes(axes: Axes) -> None:
    axes.set_xlabel("gender gap (AVG, points), smaller to the right")
    axes.set_ylabel("W-F1 (points)")


def objectives_figure(points: pd.DataFrame, plan: dict[str, Any]) -> Figure:
    """Draw the first search objective against each other one; crosses violate a constraint."""
    (first, mode), *others = objectives_of(plan)
    missed = points["violations"].astype(bool)
    looks = (
        (points[~missed & ~points["on_front"]], {"marker": "o", "color": PALE, "label": "dominated"}),
        (points[missed], {"marker": "x", "color": GREY, "label": "violates a constraint"}),
        (points[points["on_front"]], {"marker": "D", "color": COLOURS[0], "label": "front"}),
    )
    with matplotlib.rc_context(STYLE):
        figure = canvas(4.6 * len(others) + 1.2, 5.0)
        for axes, (other, other_mode) in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
            for rows, look in looks:
                if len(rows):
                    axes.scatter(display_scale(other) * rows[other], display_scale(first) * rows[first], s=40, **look)
            for row in points[points["on_front"]].to_dict("records"):
                at = (display_scale(other) * row[other], display_scale(first) * row[first])
                axes.annotate(short(row["name"], 20), at, xytext=(5, 4), textcoords="offset points", fontsize="x-small")
            axes.margins(0.15, 0.12)
            axes.xaxis.set_inverted(other_mode == "min")
            axes.yaxis.set_inverted(mode == "min")
            axes.set_xlabel(f"{_heading(other)}, {other_mode}")
            axes.set_ylabel(f"{_heading(first)}, {mode}")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", ncols=3, frameon=False, fontsize="small")
        annotate_figure(figure, "Search objectives", "dev, means over seeds", "Better is up and to the right.")
    return figure


def history_figure(history: pd.DataFrame) -> Figure:
    """Draw the hypervolume of :func:`analysis.pareto.attainment.objectives_history` over the trials."""
    with matplotlib.rc_context(STYLE):
        figure = canvas(6.2, 3.6)
        axes = figure.subplots()
        axes.plot(history["n_trials"], history["hypervolume"], drawstyle="steps-post", color=INK, lw=1.6)
        axes.set_xlabel("trials that satisfy the constraints")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("hypervolume")
        caption = "Each objective is scaled to 0 (worst of this study) to 1 (best)."
        annotate_figure(
            figure, "Hypervolume of the front over the search objectives", "dev, in the order of the trials", caption
        )
    return figure


def _heading(metric: str) -> str:
    return f"{metric} (s)" if metric == "seconds" else f"{metric} (points)"
