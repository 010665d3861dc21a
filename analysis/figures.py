"""The figures. What they show is computed elsewhere; here it is only drawn.

Better is up and right. Colours are Okabe and Ito's, told apart by the colour-blind; marker shapes say the same again,
so every figure can be read in grey. Nothing here touches pyplot, so no state outlives a call.
"""

from __future__ import annotations

import io
import os
import textwrap
import uuid
from collections.abc import Iterable

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis.forest import ForestInfo
from analysis.load import ERM, PAPER
from analysis.pareto import MANY, ParetoInfo

DPI = 160
INK, GREY, PALE = "#222222", "#6b6b6b", "#c9c9c9"
STYLE = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("notebook", font_scale=0.85),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.hashsalt": "analysis",  # the same study gives the same file
}
SCHEDULES: dict[str, tuple[str, str, str]] = {
    # schedule: marker, colour, words of the legend
    "none": ("X", "#000000", "no penalty"),
    "constant": ("o", "#0072B2", "constant weight"),
    "linear": ("^", "#E69F00", "linear ramp"),
    "cosine": ("s", "#009E73", "cosine ramp"),
    "adaptive": ("D", "#CC79A7", "adaptive weight"),
    "default": ("P", "#56B4E9", "default schedule"),
}
_OTHER = ("v", "#8c6d31")
_SCOPES = (("o", "#0072B2"), ("^", "#E69F00"), ("s", "#009E73"), ("v", "#CC79A7"), ("P", "#56B4E9"), ("X", "#D55E00"))


def pareto_figure(info: ParetoInfo) -> Figure:
    """W-F1 against the gender gap, in points, the gap falling to the right.

    Filled markers are dev figures, with the front as a step line: everything below and left of it is beaten. Thin
    lines lead to the same configurations on test (hollow). The front, ERM and the paper's setting are named, the
    front as far as there is room.
    """
    with matplotlib.rc_context(STYLE):
        figure = _blank(8.6, 6.6)
        axes = figure.subplots()
        points = info.points
        if points.empty:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no configuration has a gender gap to show", ha="center", color=GREY)
            _words(figure, info.title, info.subtitle, info.caption)
            return figure
        _limits(axes, info)
        if info.floor is not None:
            low, mean, high = info.floor
            axes.axvspan(low, high, color="#ececec", lw=0, zorder=0)
            axes.axvline(mean, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
            axes.annotate(
                "noise floor", (mean, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                ha="center", va="bottom", color=GREY, fontsize="small",
            )  # fmt: skip
        tested = points[points["named"]] if info.test_of_named_only else points
        ends = tested[["dev_gap", "test_gap", "dev_w_f1", "test_w_f1"]].to_numpy(dtype=float)
        axes.plot(ends[:, :2].T, ends[:, 2:].T, color=PALE, lw=0.9, zorder=2)
        _front_line(axes, points[points["on_front"]])
        _markers(axes, tested, "test", filled=False, zorder=3)
        _markers(axes, points, "dev", filled=True, zorder=5)
        axes.set_xlabel("gender gap (AVG, points), smaller to the right")
        axes.set_ylabel("W-F1 (points)")
        _schedule_legend(figure, points["schedule"])
        _words(figure, info.title, info.subtitle, info.caption)
        _name_points(figure, axes, points, tested)
    return figure


def forest_figure(info: ForestInfo) -> Figure:
    """Differences to a reference with their intervals: a row a configuration, a panel a quantity, better to the right.

    A marker shape and colour is a cell or a mean over cells (the last one black); filled where told apart
    from the reference, crossed out where a gap is larger on the other side of 0. The line at 0 is the reference.
    """
    looks = {scope: _SCOPES[i % len(_SCOPES)] for i, scope in enumerate(info.scopes)}
    if len(info.scopes) > 1:
        looks[info.scopes[-1]] = ("D", "#000000")
    spread = [0.0] if len(looks) == 1 else [0.3 - 0.6 * i / (len(looks) - 1) for i in range(len(looks))]
    offsets = dict(zip(info.scopes, spread, strict=True))
    heights = {name: len(info.names) - i for i, name in enumerate(info.names)}
    with matplotlib.rc_context(STYLE):
        figure = _blank(9.5, 2.6 + len(info.names) * max(0.35, 0.14 * len(looks)))
        panels = figure.subplots(1, len(info.panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(panels, info.panels, strict=True):
            axes.axvline(0, color=GREY, lw=1, zorder=1)
            for (name, scope), row in info.points[info.points["panel"] == panel].groupby(["name", "scope"], sort=False):
                marker, colour = looks[str(scope)]
                estimate, low, high = (float(row[column].iloc[0]) for column in ("estimate", "low", "high"))
                height = heights[str(name)] + offsets[str(scope)]
                axes.plot([low, high], [height, height], color=colour, lw=1.4, zorder=2)
                filled = bool(row["told_apart"].iloc[0])
                axes.plot(estimate, height, marker, ms=6, color=colour, mfc=colour if filled else "white", zorder=3)
                if bool(row["overshot"].iloc[0]):
                    axes.plot(estimate, height, "x", ms=9, color=INK, mew=1.4, zorder=4)
            axes.set_xlabel(panel)
            axes.set_yticks(list(heights.values()), list(heights))
            axes.set_ylim(0.4, len(info.names) + 0.6)
            axes.yaxis.set_tick_params(length=0)
        handles = [
            Line2D([], [], marker=marker, color=colour, ls="", ms=6, label=scope)
            for scope, (marker, colour) in looks.items()
        ]
        figure.legend(handles=handles, loc="lower left", ncols=len(handles), frameon=False, fontsize="small")
        longest = max(text.get_window_extent().width for text in panels[0].get_yticklabels()) / figure.dpi
        _words(figure, info.title, info.subtitle, info.caption, left=max(0.75, longest + 0.25))
    return figure


def training_figure(epochs: pd.DataFrame) -> Figure:
    """Dev W-F1, dev gap and fairness weight over the epochs, one line a configuration (its seeds averaged).

    An epoch is drawn where every finished seed of the configuration reached it.

    Args:
        epochs: from :func:`analysis.load.load_epochs`.
    """
    figures = {
        "dev_w_f1": "dev W-F1 (points)",
        "dev_gap": "dev gap (AVG, points; smaller is up)",
        "fairness_weight": "fairness weight",
    }
    seeds = epochs.groupby("config_id")["seed"].transform("nunique")
    reached = epochs.groupby(["config_id", "epoch"])["seed"].transform("nunique")
    keys = ["config_id", "name", "schedule", "epoch"]
    many = epochs["config_id"].nunique() > MANY
    lines = epochs[seeds == reached].groupby(keys, sort=False)[list(figures)].mean().reset_index()
    with matplotlib.rc_context(STYLE):
        figure = _blank(10, 4.1)
        panels = figure.subplots(1, 3)
        for axes, (column, heading) in zip(panels, figures.items(), strict=True):
            scale = 1.0 if column == "fairness_weight" else 100.0
            for (_, name, schedule), line in lines.groupby(["config_id", "name", "schedule"], sort=False):
                marker, colour, _ = _look(str(schedule))
                marked = name in (ERM, PAPER)
                faint = many and not marked
                axes.plot(
                    line["epoch"], scale * line[column], color=colour, marker="" if faint else marker,
                    ms=5 if marked else 3.5, lw=2.2 if marked else 1.1, alpha=1.0 if marked else 0.4 if faint else 0.8,
                    ls="--" if name == PAPER else "-", zorder=3 if marked else 2,
                )  # fmt: skip
            axes.set_title(heading, loc="left", fontsize="medium")
            axes.set_xlabel("epoch")
            axes.yaxis.set_inverted(column == "dev_gap")
            axes.xaxis.get_major_locator().set_params(integer=True)
        _schedule_legend(figure, lines["schedule"])
        marked_names = [name for name in (ERM, PAPER) if name in set(lines["name"])]
        bold = f"; bold: {' and '.join(marked_names)}" if marked_names else ""
        _words(figure, "Training, one line a configuration", f"figures on the development split{bold}", "")
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """The bytes of a figure, "png" (160 dots an inch) or "svg"; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def save(figure: Figure, stem: str) -> tuple[str, str]:
    """Write ``stem.png`` and ``stem.svg``, each aside and then renamed; their paths."""
    paths = []
    for kind in ("png", "svg"):
        path = f"{stem}.{kind}"
        aside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        with open(aside, "wb") as stream:
            stream.write(render(figure, kind))
        os.replace(aside, path)
        paths.append(path)
    return paths[0], paths[1]


def _blank(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _look(schedule: str) -> tuple[str, str, str]:
    return SCHEDULES.get(schedule, (*_OTHER, schedule))


def _limits(axes: Axes, info: ParetoInfo) -> None:
    """Room for every point and the whole band; the gap axis is turned round."""
    gaps = pd.concat([info.points["dev_gap"], info.points["test_gap"], pd.Series(info.floor or [], dtype=float)])
    scores = pd.concat([info.points["dev_w_f1"], info.points["test_w_f1"]])
    margin_x, margin_y = max(0.08 * (gaps.max() - gaps.min()), 0.5), max(0.1 * (scores.max() - scores.min()), 0.5)
    axes.set_xlim(gaps.max() + margin_x, max(gaps.min() - margin_x, -margin_x / 2))
    axes.set_ylim(scores.min() - margin_y, scores.max() + margin_y)


def _front_line(axes: Axes, chosen: pd.DataFrame) -> None:
    """The boundary of what the front beats: a point's W-F1 holds for every larger gap, until the next point's."""
    ordered = chosen.sort_values(["dev_gap", "dev_w_f1"])
    if ordered.empty:
        return
    worst_gap, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    first, last = ordered.iloc[0], ordered.iloc[-1]
    gaps = [first["dev_gap"], *ordered["dev_gap"], worst_gap]
    scores = [bottom, *ordered["dev_w_f1"], last["dev_w_f1"]]
    axes.plot(gaps, scores, drawstyle="steps-post", color=INK, lw=1.4, zorder=4)


def _markers(axes: Axes, points: pd.DataFrame, split: str, filled: bool, zorder: int) -> None:
    for schedule, rows in points.groupby("schedule", sort=False):
        marker, colour, _ = _look(str(schedule))
        for complete, some in rows.groupby("complete"):
            sns.scatterplot(
                x=some[f"{split}_gap"], y=some[f"{split}_w_f1"], ax=axes, marker=marker, s=75 if filled else 50,
                color=colour if filled else "white", edgecolor="white" if filled else colour,
                linewidth=0.8 if filled else 1.2, alpha=1.0 if complete else 0.35, zorder=zorder, legend=False,
            )  # fmt: skip


def _schedule_legend(figure: Figure, schedules: Iterable[str]) -> Legend:
    """One entry a schedule that occurs, in the order of ``SCHEDULES``, under the axes."""
    occurring = set(schedules)
    order = [s for s in SCHEDULES if s in occurring] + sorted(occurring - set(SCHEDULES))
    handles = []
    for schedule in order:
        marker, colour, words = _look(schedule)
        handles.append(Line2D([], [], marker=marker, color=colour, ls="", ms=7, mec="white", label=words))
    return figure.legend(handles=handles, loc="lower left", ncols=len(handles), frameon=False, fontsize="small")


def _words(figure: Figure, title: str, subtitle: str, caption: str, left: float = 0.75) -> None:
    """Title and subtitle above, legend and caption below, the axes in what is left (lengths in inches)."""
    width, height = figure.get_size_inches()
    line = 0.165
    lines = textwrap.wrap(caption, int((width - left) * 15.4)) if caption else []
    bottom = 0.12 + line * len(lines)
    for legend in figure.legends:
        legend.set_bbox_to_anchor((left / width - 0.02, bottom / height, 1, 1))
    figure.subplots_adjust(
        left=left / width, right=1 - 0.2 / width, bottom=(bottom + 0.85) / height, top=1 - 0.95 / height, wspace=0.25
    )
    figure.text(left / width, 1 - 0.15 / height, title, fontsize="large", fontweight="bold", va="top")
    figure.text(left / width, 1 - 0.42 / height, subtitle, fontsize="medium", color=GREY, va="top")
    figure.text(left / width, 0.1 / height, "\n".join(lines), fontsize=8, color=GREY, va="bottom", linespacing=1.3)


def _name_points(figure: Figure, axes: Axes, points: pd.DataFrame, tested: pd.DataFrame) -> None:
    """Write names beside dev points, each at the first of eight places where it hides no marker and no other name.

    Where there is no such place, ERM and the paper's setting are named all the same and others are not.
    """
    canvas = FigureCanvasAgg(figure)
    taken = [_around(axes, gap, score) for gap, score in points[["dev_gap", "dev_w_f1"]].itertuples(index=False)]
    taken += [_around(axes, gap, score) for gap, score in tested[["test_gap", "test_w_f1"]].itertuples(index=False)]
    frame = axes.get_window_extent()
    is_reference = points["label"].isin([ERM, PAPER])
    named = (
        points[points["named"]].assign(reference=is_reference).sort_values("reference", ascending=False, kind="stable")
    )
    for row in named.to_dict("records"):
        for dx, dy, ha, va in _PLACES:
            name = axes.annotate(
                row["name"], (row["dev_gap"], row["dev_w_f1"]), xytext=(dx, dy), textcoords="offset points",
                ha=ha, va=va, fontsize="small", fontweight="bold" if row["reference"] else "normal", zorder=6,
                path_effects=[withStroke(linewidth=2.5, foreground="white", alpha=0.8)],
            )  # fmt: skip
            box = name.get_window_extent(canvas.get_renderer())
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            if row["reference"] and (dx, dy, ha, va) == _PLACES[-1]:
                taken.append(box)
            else:
                name.remove()


_PLACES = (
    (7, 5, "left", "bottom"), (-7, 5, "right", "bottom"), (7, -5, "left", "top"), (-7, -5, "right", "top"),
    (0, 8, "center", "bottom"), (0, -8, "center", "top"), (14, 14, "left", "bottom"), (-14, -14, "right", "top"),
)  # fmt: skip


def _around(axes: Axes, gap: float, score: float) -> matplotlib.transforms.Bbox:
    """The pixels that a marker takes."""
    x, y = axes.transData.transform((gap, score))
    return matplotlib.transforms.Bbox.from_bounds(x - 6, y - 6, 12, 12)
