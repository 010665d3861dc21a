"""The section of a report about a study's own objectives and requirements, where they are not W-F1 and gap alone."""

from __future__ import annotations

from typing import Any

import matplotlib
import moocore
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import COLOURS, GREY, INK, PALE, STYLE, canvas, render, short, words
from analysis.goals import goals_front, goals_table, in_words, own_goals, scale_of
from analysis.load import Study
from analysis.page import Picture, Section, Table
from study.goals import objectives_of
from study.records import read_trials


def goals_sections(study: Study) -> list[Section]:
    """The front over the study's own objectives; nothing for a study of W-F1 and gap without requirements."""
    if not own_goals(study.plan):
        return []
    points = goals_front(study.plan, [*read_trials(study.folder).values()])
    if points.empty:
        return []
    missed = points[points["missed"].astype(bool)]
    alt = f"The front on dev over {in_words(study.plan)}: {'; '.join(points.loc[points['on_front'], 'name'])}."
    blocks: list[Picture | Table] = [
        Picture(render(goals_figure(points, study.plan), "svg"), alt),
        Table(goals_table(points, study.plan)),
    ]
    if len(missed):
        blocks.append(Table(_missed_table(missed), "What misses a requirement"))
    if points["on_front"].any():
        history = goals_history(points, study.plan)
        blocks.append(Picture(render(history_figure(history), "svg"), "The hypervolume of this front over the trials."))
    kept = (
        f" {len(missed)} of {len(points)} configurations miss a requirement and stand in no front."
        if missed.size
        else ""
    )
    return [
        Section(
            "What was searched for",
            f"The study searched for {in_words(study.plan)}, on dev; the front below is over these.{kept} Rates and "
            "gaps in points. The sections that follow are also about W-F1 and the gap, whatever was searched for.",
            tuple(blocks),
        )
    ]


def goals_answer(study: Study) -> str:
    """The front over the study's own objectives in a sentence; empty for a study of W-F1 and gap alone."""
    if not own_goals(study.plan):
        return ""
    points = goals_front(study.plan, [*read_trials(study.folder).values()])
    chosen = points[points["on_front"]]
    return f"{len(chosen)} of {len(points)} configurations are on the front over {in_words(study.plan)}, on dev. Also: "


def goals_history(points: pd.DataFrame, plan: dict[str, Any]) -> pd.DataFrame:
    """How the hypervolume over the study's own objectives grew, trial by trial.

    Each objective runs from the worst (0) to the best (1) that any allowed configuration of the study has, so that the
    figure compares nothing but the study with itself; one that all have alike counts as 1.

    Args:
        points: from :func:`analysis.goals.goals_front`.

    Returns:
        One row an allowed configuration, in the order of the trials: ``n_trials`` and ``hypervolume``, from 0 to 1.
    """
    allowed = points[~points["missed"].astype(bool)].sort_values("number")
    signs = np.array([1.0 if mode == "max" else -1.0 for _, mode in objectives_of(plan)])
    values = signs * allowed[[metric for metric, _ in objectives_of(plan)]].to_numpy(dtype=float)
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    scaled = np.where(span > 0, (values - low) / np.where(span > 0, span, 1.0), 1.0)
    volume = moocore.Hypervolume(ref=np.zeros(len(signs)), maximise=[True] * len(signs))
    volumes = [float(volume(scaled[: i + 1])) for i in range(len(scaled))]
    return pd.DataFrame({"n_trials": np.arange(1, len(scaled) + 1), "hypervolume": volumes})


def goals_figure(points: pd.DataFrame, plan: dict[str, Any]) -> Figure:
    """The first objective against each other one; a cross misses a requirement."""
    (first, mode), *others = objectives_of(plan)
    missed = points["missed"].astype(bool)
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
                    axes.scatter(scale_of(other) * rows[other], scale_of(first) * rows[first], s=40, **look)
            for row in points[points["on_front"]].to_dict("records"):
                at = (scale_of(other) * row[other], scale_of(first) * row[first])
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


def _missed_table(missed: pd.DataFrame) -> pd.DataFrame:
    lacks = [
        "; ".join(f"{words_}, by {scale_of(words_) * by:.1f}" for words_, by in each.items())
        for each in missed["missed"]
    ]
    return pd.DataFrame({"configuration": missed["name"], "misses": lacks})


def _heading(metric: str) -> str:
    return f"{metric} (s)" if metric == "seconds" else f"{metric} (points)"
