"""Figures of a search as a whole: what its fronts attain over seeds, how it grew, and the published rows beside it."""

from __future__ import annotations

from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.formatting import POINTS
from analysis.pareto.objectives_front import display_scale
from analysis.plots.style import COLOURS, DASHES, GREY, INK, PALE, STYLE, canvas, short, words
from study.storage.schemas import objectives_of


def attainment_figure(surfaces: pd.DataFrame, n_seeds: int) -> Figure:
    """The surfaces that a quarter, half and three quarters of the seeds' fronts attain, the gap falling to the right.

    Args:
        surfaces: from :func:`analysis.pareto.attainment.attainment`, with at least one row.
        n_seeds: fronts that it was made of.
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
        _axes_words(axes)
        figure.legend(loc="lower left", ncols=3, frameon=False, fontsize="small")
        caption = "Each seed has a front of its own. Below and left of a line is what so many of these fronts beat."
        words(figure, "What the front attains over training seeds", f"dev, {n_seeds} seeds", caption)
    return figure


def hypervolume_figure(history: pd.DataFrame) -> Figure:
    """The hypervolume of the front over the trials, and over the hours that they took.

    Args:
        history: from :func:`analysis.pareto.attainment.hypervolume_history`, with at least one row.
    """
    with matplotlib.rc_context(STYLE):
        figure = canvas(8.6, 3.9)
        panels = figure.subplots(1, 2, sharey=True)
        scales = {
            "n_trials": "trials finished",
            "hours": "hours × ranks of finished trials (GPU-hours on GPUs)",
        }
        for axes, (column, heading) in zip(panels, scales.items(), strict=True):
            axes.plot(history[column], 1e4 * history["hypervolume"], drawstyle="steps-post", color=INK, lw=1.6)
            axes.plot(history[column].iloc[-1], 1e4 * history["hypervolume"].iloc[-1], "o", color=INK, ms=4)
            axes.set_xlabel(heading)
        panels[0].set_ylabel("hypervolume (squared points)")
        panels[0].xaxis.get_major_locator().set_params(integer=True)
        caption = (
            "The area of W-F1 and gap that the front beats, up to W-F1 0 and a gap of 50 points. Higher is better."
        )
        words(figure, "How the front grew", "dev, in the order of the trials", caption)
    return figure


def published_figure(rows: pd.DataFrame) -> Figure:
    """Our configurations on test and the published systems, one panel a modality; they were measured on other splits.

    Args:
        rows: ``modality, name, ours`` (bool), ``w_f1, gap`` (points).
    """
    modalities = list(dict.fromkeys(rows["modality"]))
    with matplotlib.rc_context(STYLE):
        figure = canvas(4.6 * len(modalities) + 0.8, 5.0)
        for axes, modality in zip(figure.subplots(1, len(modalities), squeeze=False)[0], modalities, strict=True):
            here = rows[rows["modality"] == modality]
            for ours, marker, colour, said in (
                (False, "v", GREY, "published, different split"),
                (True, "o", COLOURS[0], "this study, test"),
            ):
                some = here[here["ours"] == ours]
                axes.scatter(
                    some["gap"], some["w_f1"], marker=marker, s=45, edgecolor=colour, lw=1.3,
                    facecolor=colour if ours else "none", label=said,
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
            _axes_words(axes)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", ncols=2, frameon=False, fontsize="small")
        words(figure, "Beside the published rows", "multilingual means; not comparable figures", "")
    return figure


def _axes_words(axes: Axes) -> None:
    axes.set_xlabel("gender gap (AVG, points), smaller to the right")
    axes.set_ylabel("W-F1 (points)")


def objectives_figure(points: pd.DataFrame, plan: dict[str, Any]) -> Figure:
    """The first objective against each other one; a cross misses a requirement."""
    (first, mode), *others = objectives_of(plan)
    missed = points["violations"].astype(bool)
    looks = (
        (points[~missed & ~points["on_front"]], {"marker": "o", "color": PALE, "label": "beaten"}),
        (points[missed], {"marker": "x", "color": GREY, "label": "misses a requirement"}),
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
        words(figure, "What was searched for", "dev, means over seeds", "Better is up and right.")
    return figure


def history_figure(history: pd.DataFrame) -> Figure:
    """The hypervolume of :func:`goals_history` over the trials."""
    with matplotlib.rc_context(STYLE):
        figure = canvas(6.2, 3.6)
        axes = figure.subplots()
        axes.plot(history["n_trials"], history["hypervolume"], drawstyle="steps-post", color=INK, lw=1.6)
        axes.set_xlabel("trials that keep the requirements")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("hypervolume")
        caption = "From 0 to 1, each objective between the worst and the best of this study."
        words(figure, "How this front grew", "dev, in the order of the trials", caption)
    return figure


def _heading(metric: str) -> str:
    return f"{metric} (s)" if metric == "seconds" else f"{metric} (points)"
