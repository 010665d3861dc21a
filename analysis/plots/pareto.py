"""The Pareto figure of a study, over all cells and by cell. Better is up and to the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.loading.study import COMPARISON, ERM, PAPER, Study
from analysis.pareto.front import front
from analysis.pareto.objectives_front import has_custom_objectives
from analysis.plots.style import (
    BAND,
    GREY,
    INK,
    PALE,
    SIZES,
    STYLE,
    annotate_figure,
    canvas,
    family_legend,
    family_style,
)
from analysis.stats.permutation import NoiseFloor
from study.common.groups import LANGUAGES, MODALITIES, cells

_CELL_ORDER = [str(cell) for cell in cells(LANGUAGES, MODALITIES)]


def pareto_figure(info: ParetoInfo) -> Figure:
    """Draw W-F1 against the gender gap, in points. The gap axis is inverted.

    Filled markers are dev figures. The step line is the front; everything below and left of it is dominated. Thin lines
    lead to the same configurations on test (hollow markers). ERM and the paper's setting are always named; the front
    and the comparison methods are named as far as there is room.
    """
    with matplotlib.rc_context(STYLE):
        figure = canvas(8.6, 6.6)
        axes = figure.subplots()
        points = info.points
        if points.empty:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no configuration has a gender gap to show", ha="center", color=GREY)
            annotate_figure(figure, info.title, info.subtitle, info.caption)
            return figure
        _limits(
            axes,
            [points["dev_gap"], points["test_gap"], pd.Series(info.floor or [], dtype=float)],
            [points["dev_w_f1"], points["test_w_f1"]],
        )
        if info.floor is not None:
            low, mean, high = info.floor
            axes.axvspan(low, high, color=BAND, lw=0, zorder=0)
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
        # a thousand full-size markers would hide the named ones
        zorder, scale = (2, 0.35) if info.test_of_named_only else (5, 1.0)
        _markers(axes, points[~points["named"]], "dev", filled=True, zorder=zorder, scale=scale)
        _markers(axes, points[points["named"]], "dev", filled=True, zorder=5)
        axes.set_xlabel("gender gap (AVG, points), smaller to the right")
        axes.set_ylabel("W-F1 (points)")
        family_legend(figure, points["family"])
        annotate_figure(figure, info.title, info.subtitle, info.caption)
        _name_points(figure, axes, points, tested)
    return figure


def cells_figure(info: CellsInfo) -> Figure:
    """Draw dev W-F1 against the gap of each cell: languages in columns, modalities in rows, shared axes."""
    cells = sorted(info.sizes, key=_CELL_ORDER.index)
    languages, modalities = (list(dict.fromkeys(cell.split("/")[axis] for cell in cells)) for axis in (0, 1))
    with matplotlib.rc_context(STYLE):
        figure = canvas(max(5.0, 3.3 * len(languages) + 0.9), 3.1 * len(modalities) + 2.1)
        panels = figure.subplots(len(modalities), len(languages), sharex=True, sharey=True, squeeze=False)
        bands = [pd.Series(floor) for floor in info.floors.values()]
        _limits(panels[0, 0], [info.points["dev_gap"], *bands], [info.points["dev_w_f1"]])
        for row, modality in enumerate(modalities):
            for column, language in enumerate(languages):
                axes, cell = panels[row, column], f"{language}/{modality}"
                if cell not in info.sizes:
                    axes.set_axis_off()
                    continue
                women, men = info.sizes[cell]
                axes.set_title(f"{cell}  (F {women}, M {men})", loc="left", fontsize="medium")
                if cell in info.floors:
                    low, mean, high = info.floors[cell]
                    axes.axvspan(low, high, color=BAND, lw=0, zorder=0)
                    axes.axvline(mean, color=GREY, lw=1, ls=(0, (4, 3)), zorder=1)
                points = info.points[info.points["cell"] == cell]
                _front_line(axes, points[points["on_cell_front"]])
                _markers(axes, points[~points["named"]], "dev", filled=True, zorder=3)
                _markers(axes, points[points["named"]], "dev", filled=True, zorder=4)
                _rims(axes, points[points["on_front"]])
                if row == len(modalities) - 1:
                    axes.set_xlabel("gap (AVG, points), smaller to the right")
            panels[row, 0].set_ylabel("W-F1 (points)")
        family_legend(figure, info.points["family"])
        annotate_figure(figure, info.title, info.subtitle, info.caption)
        figure.subplots_adjust(wspace=0.08, hspace=0.22)
    return figure


def _limits(axes: Axes, of_gaps: Sequence[pd.Series], of_scores: Sequence[pd.Series]) -> None:
    """Set axis limits that show every point and the whole noise floor; the gap axis is inverted."""
    gaps, scores = pd.concat(of_gaps), pd.concat(of_scores)
    if gaps.empty or scores.empty:
        return
    margin_x, margin_y = max(0.08 * (gaps.max() - gaps.min()), 0.5), max(0.1 * (scores.max() - scores.min()), 0.5)
    axes.set_xlim(gaps.max() + margin_x, max(gaps.min() - margin_x, -margin_x / 2))
    axes.set_ylim(scores.min() - margin_y, scores.max() + margin_y)


def _front_line(axes: Axes, chosen: pd.DataFrame) -> None:
    """Draw the boundary of the region that the front dominates."""
    ordered = chosen.sort_values(["dev_gap", "dev_w_f1"])
    if ordered.empty:
        return
    worst_gap, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    first, last = ordered.iloc[0], ordered.iloc[-1]
    gaps = [first["dev_gap"], *ordered["dev_gap"], worst_gap]
    scores = [bottom, *ordered["dev_w_f1"], last["dev_w_f1"]]
    axes.plot(gaps, scores, drawstyle="steps-post", color=INK, lw=1.4, zorder=4)


def _rims(axes: Axes, points: pd.DataFrame) -> None:
    for family, rows in points.groupby("family", sort=False):
        marker, _, _ = family_style(str(family))
        axes.scatter(
            rows["dev_gap"],
            rows["dev_w_f1"],
            marker=marker,
            s=75 * SIZES.get(marker, 1),
            facecolor="none",
            edgecolor=INK,
            lw=1.3,
            zorder=5,
        )


def _markers(axes: Axes, points: pd.DataFrame, split: str, filled: bool, zorder: int, scale: float = 1.0) -> None:
    for family, rows in points.groupby("family", sort=False):
        marker, colour, _ = family_style(str(family))
        size = scale * (75 if filled else 50) * SIZES.get(marker, 1)
        for complete, some in rows.groupby("complete"):
            axes.scatter(
                some[f"{split}_gap"], some[f"{split}_w_f1"], marker=marker, s=size,
                color=colour if filled else "white", edgecolor="white" if filled else colour,
                linewidth=0.8 if filled else 1.2, alpha=1.0 if complete else 0.35, zorder=zorder,
            )  # fmt: skip


def _name_points(figure: Figure, axes: Axes, points: pd.DataFrame, tested: pd.DataFrame) -> None:
    """Write names beside dev points, each at the first of eight positions where it covers no marker and no other name.

    ERM and the paper's setting come first, then the front. Without a free position only these two are named.
    """
    canvas = FigureCanvasAgg(figure)
    taken = [_around(axes, gap, score) for gap, score in points[["dev_gap", "dev_w_f1"]].itertuples(index=False)]
    taken += [_around(axes, gap, score) for gap, score in tested[["test_gap", "test_w_f1"]].itertuples(index=False)]
    frame = axes.get_window_extent()
    is_reference = points["label"].isin([ERM, PAPER])
    named = points[points["named"]].assign(reference=is_reference)
    named = named.sort_values(["reference", "on_front"], ascending=False, kind="stable")
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
    """Return the bounding box of a marker in pixels."""
    x, y = axes.transData.transform((gap, score))
    return matplotlib.transforms.Bbox.from_bounds(x - 6, y - 6, 12, 12)


MANY = 16
"""Above this number of configurations, figures show less of each."""


@dataclass(frozen=True)
class ParetoInfo:
    """The data and texts of the Pareto figure, in points.

    Attributes:
        points: one row per configuration: ``name, label, family, complete, on_front, named, dev_w_f1, dev_gap,
            test_w_f1, test_gap``. Configurations without a dev gap are left out; ``named`` are the front, ERM, the
            paper's setting and comparison methods that have a label.
        test_of_named_only: whether test points are drawn for named configurations only, because there are many.
        floor: 5 %, mean and 95 % of the noise floor of the gap, if it could be computed.
        title, subtitle, caption: sentences.
    """

    points: pd.DataFrame
    test_of_named_only: bool
    floor: tuple[float, float, float] | None
    title: str
    subtitle: str
    caption: str


def pareto_info(study: Study, floor: NoiseFloor | None = None) -> ParetoInfo:
    """Return the data and texts of the Pareto figure.

    Args:
        floor: the noise floor of the reference configuration on dev.
    """
    figures = ["dev_w_f1", "dev_gap", "test_w_f1", "test_gap"]
    points = front(study.configurations)
    points = points[["name", "label", "family", "complete", "on_front", *figures]].dropna(subset=["dev_gap"])
    points = points.assign(
        named=_named(points),
        **{figure: 100 * points[figure] for figure in figures},
    ).reset_index(drop=True)
    many = len(points) > MANY
    plan = study.plan
    n, n_seeds = len(study.configurations), len(study.seeds)
    seeds = "one seed each: differences of this size may be noise" if n_seeds == 1 else f"means of {n_seeds} seeds"
    sentences = [
        "Filled markers: development figures, on which the front (line) is chosen.",
        f"Hollow markers: {'front, ERM, paper and comparison methods' if many else 'the same configurations'} on test.",
    ]
    if many:
        sentences.append("Small markers: all other configurations.")
    if not points["complete"].all():
        sentences.append("Faded markers: not every seed has finished, or not every modality was evaluated.")
    if floor is not None:
        sentences.append(
            f"Shaded: noise floor, the development gap that a model blind to gender would show by chance "
            f"(mean {100 * floor.mean:.1f}, {100 * floor.low:.1f} to {100 * floor.high:.1f} in 90 % of "
            f"{floor.permutations} permutations of genders between clusters that keep the label priors)."
        )
    also = "Also: e" if has_custom_objectives(plan) else "E"
    return ParetoInfo(
        points=points,
        test_of_named_only=many,
        floor=None if floor is None else (100 * floor.low, 100 * floor.mean, 100 * floor.high),
        title=f"{also}motion recognition against gender gap ({plan['corpus']['name']} corpus)",
        subtitle=f"{n} configuration{'s' if n != 1 else ''}, backbone {plan['backbone']['spec']}, "
        f"{' and '.join(plan['modalities'])}; {seeds}",
        caption=" ".join([*sentences, *study.notes]),
    )


@dataclass(frozen=True)
class CellsInfo:
    """The data and texts of the figure by cell: dev W-F1 against the AVG gap, in points.

    Attributes:
        points: one row per (configuration, cell): ``cell, name, label, family, complete, on_front, named, dev_w_f1,
            dev_gap``. ``on_front`` refers to all cells, ``on_cell_front`` to this cell alone.
        sizes: by cell, the numbers of dev utterances of women and men.
        floors: by cell, 5 %, mean and 95 % of its noise floor, where it could be computed.
        title, subtitle, caption: sentences.
    """

    points: pd.DataFrame
    sizes: dict[str, tuple[int, int]]
    floors: dict[str, tuple[float, float, float]]
    title: str
    subtitle: str
    caption: str


def cells_info(study: Study, floors: Mapping[str, NoiseFloor]) -> CellsInfo:
    """Return the data and texts of the Pareto figure by language and modality.

    Args:
        floors: by cell, the noise floor of the reference configuration on dev.
    """
    dev = study.cells[study.cells["split"] == "dev"]
    dev = dev.assign(cell=dev["language"] + "/" + dev["modality"])
    figures = {"w_f1": "dev_w_f1", "gap": "dev_gap"}
    grouped = dev.astype(dict.fromkeys(figures, float)).groupby(["cell", "config_id"], sort=False)
    means = grouped[list(figures)].mean(skipna=False).rename(columns=figures).reset_index()
    chosen = front(study.configurations)[["config_id", "name", "label", "family", "complete", "on_front"]]
    points = means.merge(chosen, on="config_id").dropna(subset=["dev_gap"])
    best = [front(rows)["on_front"] for _, rows in points.groupby("cell", sort=False)]
    points = points.assign(
        on_cell_front=pd.concat(best) if best else False,
        named=_named(points),
        dev_w_f1=100 * points["dev_w_f1"],
        dev_gap=100 * points["dev_gap"],
    )
    sizes = dev.groupby("cell", sort=False)[["n_female", "n_male"]].first()
    return CellsInfo(
        points=points.drop(columns="config_id").reset_index(drop=True),
        sizes={str(cell): (int(row["n_female"]), int(row["n_male"])) for cell, row in sizes.iterrows()},
        floors={cell: (100 * floor.low, 100 * floor.mean, 100 * floor.high) for cell, floor in floors.items()},
        title="By language and modality",
        subtitle="development figures; black outlines: the study's front over all cells",
        caption="Line: the front of this cell alone. Shaded: the noise floor of this cell. "
        "F and M: numbers of utterances of women and men.",
    )


def _named(points: pd.DataFrame) -> pd.Series:
    return points["on_front"] | points["label"].notna() & points["family"].isin([ERM, PAPER, COMPARISON])
