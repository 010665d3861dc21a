"""What every figure shares: colours and markers, type, the words around the axes, and files.

Colours are Okabe and Ito's, told apart by the colour-blind; marker shapes and dashes say the same again, so every
figure can be read in grey. Nothing here touches pyplot, so no state outlives a call.
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
    "text.parse_math": False,  # a name with dollars is a name
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
"""How much larger a marker's area is drawn, so that all look alike in size."""
_OTHER = ("v", "#8c6d31")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "^", "s", "v", "P", "X")
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))


def look(family: str) -> tuple[str, str, str]:
    """Marker, colour and words of a family of configurations (:func:`analysis.loading.study.family_of`)."""
    return FAMILIES.get(family, (*_OTHER, family))


IN_A_ROW = 5
"""Entries of a legend beside each other."""


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches, that can be drawn without a screen."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def family_legend(figure: Figure, families: Iterable[str]) -> Legend:
    """One entry a family that occurs, in the order of ``FAMILIES``, under the axes."""
    occurring = set(families)
    order = [s for s in FAMILIES if s in occurring] + sorted(occurring - set(FAMILIES))
    handles = []
    for family in order:
        marker, colour, said = look(family)
        handles.append(
            Line2D(
                [], [], marker=marker, color=colour, ls="", ms=7 * SIZES.get(marker, 1) ** 0.5, mec="white", label=said
            )
        )
    columns = min(IN_A_ROW, len(handles))
    return figure.legend(handles=handles, loc="lower left", ncols=columns, frameon=False, fontsize="small")


def short(name: str, most: int = 36) -> str:
    """A name that an axis has room for.

    >>> short("ERM"), short("a" * 40, 5)
    ('ERM', 'aaaa…')
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"


def words(figure: Figure, title: str, subtitle: str, caption: str, left: float = 0.75) -> None:
    """Title and subtitle above, legend and caption below, the axes in what is left (lengths in inches).

    A long subtitle or caption makes the figure higher, so that an inch is left for the axes.
    """
    width, height = figure.get_size_inches()
    left = min(left, 0.45 * width)
    line = 0.165
    lines = textwrap.wrap(caption, int((width - left) * 15.4)) if caption else []
    bottom = 0.12 + line * len(lines)
    rows = max((-(-len(legend.get_texts()) // IN_A_ROW) for legend in figure.legends), default=1)
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
    said = "\n".join(under_title)
    figure.text(left / width, 1 - 0.42 / height, said, fontsize="medium", color=GREY, va="top", linespacing=1.3)
    figure.text(left / width, 0.1 / height, "\n".join(lines), fontsize=8, color=GREY, va="bottom", linespacing=1.3)


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
