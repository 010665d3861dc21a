"""The style of every figure: colours, markers, fonts, titles and captions, and files.

Colours are the colour-blind safe palette of Okabe and Ito. Marker shapes and dashes repeat the distinction, so every
figure can be read in greyscale. Nothing here uses pyplot, so no global state survives a call.
"""

from __future__ import annotations

import io
import os
import textwrap
import uuid
from collections.abc import Iterable

import matplotlib
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from analysis.loading.study import COMPARISON, ERM, PAPER

DPI = 160
INK, GREY, PALE, BAND = "#222222", "#6b6b6b", "#c9c9c9", "#ececec"
STYLE = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("notebook", font_scale=0.85),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a name may contain dollar signs
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.hashsalt": "analysis",  # the same study gives the same file
}
FAMILIES: dict[str, tuple[str, str, str]] = {
    # family: marker, colour, words of the legend
    ERM: ("X", "#000000", "ERM"),
    PAPER: ("*", "#D55E00", "paper's setting"),
    COMPARISON: ("P", "#7a7a7a", "comparison method"),
    "constant": ("o", "#0072B2", "constant weight"),
    "linear": ("^", "#E69F00", "linear ramp"),
    "cosine": ("s", "#009E73", "cosine ramp"),
    "adaptive": ("D", "#CC79A7", "adaptive weight"),
    "default": ("h", "#56B4E9", "default schedule"),
}
SIZES = {"*": 2.4, "P": 1.4, "X": 1.2}
"""Factors for the areas of markers, so that all shapes look equally large."""
_OTHER = ("v", "#8c6d31")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "^", "s", "v", "P", "X")
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))


def family_style(family: str) -> tuple[str, str, str]:
    """Return marker, colour and legend text of a family (:func:`analysis.loading.study.family_of`)."""
    return FAMILIES.get(family, (*_OTHER, family))


LEGEND_COLUMNS = 5
"""Most entries in one row of a legend."""


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which can be drawn without a screen."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def family_legend(figure: Figure, families: Iterable[str]) -> Legend:
    """Add a legend below the axes with one entry per family, in the order of ``FAMILIES``."""
    present = set(families)
    order = [family for family in FAMILIES if family in present] + sorted(present - set(FAMILIES))
    handles = []
    for family in order:
        marker, colour, label = family_style(family)
        handles.append(
            Line2D(
                [], [], marker=marker, color=colour, ls="", ms=7 * SIZES.get(marker, 1) ** 0.5, mec="white", label=label
            )
        )
    columns = min(LEGEND_COLUMNS, len(handles))
    return figure.legend(handles=handles, loc="lower left", ncols=columns, frameon=False, fontsize="small")


def short(name: str, most: int = 36) -> str:
    """Return a name shortened to the room that an axis has.

    >>> short("ERM"), short("a" * 40, 5)
    ('ERM', 'aaaa…')
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"


def annotate_figure(figure: Figure, title: str, subtitle: str, caption: str, left: float = 0.75) -> None:
    """Add title and subtitle above the axes, and place legend and caption below them.

    A long subtitle or caption makes the figure taller, so that at least one inch is left for the axes.

    Args:
        left: left margin in inches.
    """
    width, height = figure.get_size_inches()
    left = min(left, 0.45 * width)
    line = 0.165
    lines = textwrap.wrap(caption, int((width - left) * 15.4)) if caption else []
    bottom = 0.12 + line * len(lines)
    rows = max((-(-len(legend.get_texts()) // LEGEND_COLUMNS) for legend in figure.legends), default=1)
    under = bottom + 0.85 + 0.2 * (rows - 1)
    under_title = textwrap.wrap(subtitle, int((width - left) * 12.5))
    over = 0.95 + 0.19 * max(0, len(under_title) - 1)
    height = max(height, under + 1 + over)
    figure.set_figheight(height)
    for legend in figure.legends:
        legend.set_bbox_to_anchor((left / width - 0.02, bottom / height, 1, 1))
    figure.subplots_adjust(
        left=left / width, right=1 - 0.2 / width, bottom=under / height, top=1 - over / height, wspace=0.25
    )
    figure.text(left / width, 1 - 0.15 / height, title, fontsize="large", fontweight="bold", va="top")
    text = "\n".join(under_title)
    figure.text(left / width, 1 - 0.42 / height, text, fontsize="medium", color=GREY, va="top", linespacing=1.3)
    figure.text(left / width, 0.1 / height, "\n".join(lines), fontsize=8, color=GREY, va="bottom", linespacing=1.3)


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a "png" (160 dpi) or "svg" file; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def save(figure: Figure, stem: str) -> tuple[str, str]:
    """Write ``stem.png`` and ``stem.svg`` (to a temporary file, then renamed) and return their paths."""
    paths = []
    for kind in ("png", "svg"):
        path = f"{stem}.{kind}"
        temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
        with open(temporary, "wb") as stream:
            stream.write(render(figure, kind))
        os.replace(temporary, path)
        paths.append(path)
    return paths[0], paths[1]
