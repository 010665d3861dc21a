"""One page about a study: ``python -m analysis.report STUDY_DIR``.

Writes into ``STUDY_DIR/report/``: ``report.html`` (one file, nothing loaded from elsewhere, no script), the Pareto
figure as ``pareto.png`` and ``pareto.svg``, and ``front.csv``. Writing it again replaces it.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from analysis.clusters import FEW_CLUSTERS, ClusterBy, cluster_by, cluster_counts
from analysis.figures import pareto_figure, render, training_figure
from analysis.load import ERM, PAPER, Study, load_epochs, load_predictions, load_study, load_utterances
from analysis.nulls import NoiseFloor, noise_floor
from analysis.pareto import front, pareto_info
from analysis.steps import steps_figure, steps_info
from analysis.tables import (
    POINTS,
    cells_table,
    configurations_table,
    formatted,
    front_csv,
    front_table,
)
from analysis.uncertainty import bootstrap, interval
from study.records import RecordError, StudyFolder


@dataclass(frozen=True)
class ReportPaths:
    """Where a report is, as a user would type it."""

    html: str
    png: str
    svg: str
    csv: str


@dataclass(frozen=True)
class Uncertainty:
    """What chance alone could do in a study, on dev.

    Attributes:
        reference: the name of the configuration whose predictions gave the floor.
        by: what was resampled as a whole.
        floor: its noise floor, ``None`` where no cell has both genders.
        intervals: by config_id, the interval of W-F1 as fractions.
    """

    reference: str
    by: ClusterBy
    floor: NoiseFloor | None
    intervals: dict[str, tuple[float, float]]


def uncertainty_of(study: Study, permutations: int = 200, resamples: int = 300, seed: int = 0) -> Uncertainty:
    """The noise floor of the reference configuration and the W-F1 interval of every one.

    The reference is ERM, whose gap nothing was done about; without it, the complete configuration of the best dev
    W-F1.
    """
    utterances = load_utterances(study)
    reference = study.configuration(ERM)
    if reference is None or not reference["complete"]:
        complete = study.configurations[study.configurations["complete"]]
        pool = study.configurations if complete.empty else complete
        reference = pool.nlargest(1, "dev_w_f1").iloc[0]
    by = cluster_by(study.plan)
    floor, intervals = None, {}
    for config_id, seeds in study.runs.groupby("config_id", sort=False)["seed"]:
        runs = {int(s): load_predictions(study, utterances, str(config_id), int(s), "dev") for s in seeds}
        counts = cluster_counts(runs, by)
        draws = bootstrap(counts, ("w_f1",), resamples, seed)
        everywhere = range(len(counts.cells))
        made = interval(*draws.of("w_f1", everywhere), draws.clusters("w_f1", everywhere))
        intervals[str(config_id)] = (made.low, made.high)
        if config_id == reference["config_id"]:
            floor = noise_floor(counts, permutations, seed)
    return Uncertainty(str(reference["name"]), by, floor, intervals)


def write_report(
    folder: StudyFolder | str, permutations: int = 200, resamples: int = 300, seed: int = 0
) -> ReportPaths:
    """Write the report of a study into its folder.

    Args:
        folder: a study folder, or its path or URL.
        permutations, resamples, seed: of :func:`uncertainty_of`.

    Raises:
        RecordError: there is no study, no finished run in it, or no room to write.
    """
    study = load_study(folder)
    require_finished_runs(study)
    chance = uncertainty_of(study, permutations, resamples, seed)
    points = front(study.configurations)
    figure = pareto_figure(pareto_info(study, chance.floor))
    svg = render(figure, "svg")
    page = _page(study, points, chance, svg)
    files = {
        "pareto.png": render(figure, "png"),
        "pareto.svg": svg,
        "front.csv": front_csv(points).encode(),
        "report.html": page.encode(),  # last: where it stands, the others do
    }
    for name, data in files.items():
        study.folder.write_bytes(f"report/{name}", data)
    names = ("report.html", "pareto.png", "pareto.svg", "front.csv")
    return ReportPaths(*(study.folder.path("report", name) for name in names))


def require_finished_runs(study: Study) -> None:
    """Raise a RecordError that says why there is nothing to show, if there is nothing."""
    if study.runs.empty:
        failed = "".join(f"\n  trial {row.number} failed: {row.reason}" for row in study.failed.itertuples())
        raise RecordError(f"{study.folder.uri} has no finished run yet: let the study go on, then ask again.{failed}")


def answer(points: pd.DataFrame) -> str:
    """The study in one sentence: the size of the front, and its two ends on dev."""
    chosen = points[points["on_front"]]
    if chosen.empty:
        return "No configuration is complete and has a gender gap, so there is no front."
    best, fairest = chosen.nlargest(1, "dev_w_f1").iloc[0], chosen.nsmallest(1, "dev_gap").iloc[0]
    n, of = len(chosen), len(points)
    if n == 1:
        return (
            f"One of {of} configurations beats all others on both: {best['name']}, with W-F1 "
            f"{POINTS * best['dev_w_f1']:.1f} and a gender gap of {POINTS * best['dev_gap']:.1f} points on dev."
        )
    return (
        f"{n} of {of} configurations are on the front: from W-F1 {POINTS * best['dev_w_f1']:.1f} at a gender gap of "
        f"{POINTS * best['dev_gap']:.1f} points ({best['name']}) to a gap of {POINTS * fairest['dev_gap']:.1f} at W-F1 "
        f"{POINTS * fairest['dev_w_f1']:.1f} ({fairest['name']}), on dev."
    )


def warnings_of(study: Study, points: pd.DataFrame, chance: Uncertainty) -> list[str]:
    """What a reader must know before believing the figures, one sentence or two each."""
    notes = list(study.plan["corpus"].get("notes", []))
    if len(study.seeds) == 1:
        notes.append("One seed each: differences between configurations may be those between seeds.")
    dev = study.cells[study.cells["split"] == "dev"]
    smallest = dev.iloc[int(dev[["n_female", "n_male"]].min(axis=1).argmin())]
    size = (
        f"The smallest cell ({smallest['language']}, {smallest['modality']}) has {smallest['n_female']} utterances of "
        f"women and {smallest['n_male']} of men on dev."
    )
    floor = chance.floor
    if floor is None:
        notes.append(f"{size} No cell has both genders, so there is no gap to report.")
    else:
        inside = points[points["dev_gap"] <= floor.high]["name"].tolist()
        which = f"the dev gaps of {', '.join(inside)} are not above it" if inside else "every dev gap is above it"
        notes.append(
            f"{size} At these sizes a model blind to gender would show a gap of {POINTS * floor.mean:.1f} points on "
            f"average and up to {POINTS * floor.high:.1f} in 95 % of draws (noise floor, from {chance.reference}, the "
            "genders' label priors kept; another configuration has another floor): "
            f"{which}. A difference between two gaps can be noise too, wherever they lie."
        )
        if floor.fewest_clusters < FEW_CLUSTERS:
            notes.append(
                f"A gender of one cell has only {floor.fewest_clusters} {chance.by}s on dev: no claim about a "
                f"population of {chance.by}s can be made, and neither floor nor intervals can be relied on."
            )
    skipped = study.plan["corpus"].get("skipped", 0)
    if skipped and not any("skipped" in note for note in notes):  # some readers say it themselves
        notes.append(f"{skipped} clips were missing or unreadable and were skipped; study.json names them.")
    incomplete = points[~points["complete"]]["name"].tolist()
    if incomplete:
        notes.append(f"Incomplete, so kept out of the front: {', '.join(incomplete)} (not every seed has finished).")
    without = points[points["dev_gap"].isna()]["name"].tolist()
    if without and floor is not None:
        notes.append(f"Without a gender gap, so kept out of the front: {', '.join(without)}.")
    planned = study.plan.get("trials")
    seen = len(points) + len(study.failed) + len(study.pruned)
    if planned and seen < planned:
        notes.append(f"{planned} trials were planned, {seen} are here: the study has not ended.")
    if len(study.pruned):
        notes.append(f"Stopped early, so kept out of the front: {len(study.pruned)} trials (trials/*.json say where).")
    notes += [f"Trial {row.number} failed and is left out: {row.reason}" for row in study.failed.itertuples()]
    return notes


def _page(study: Study, points: pd.DataFrame, chance: Uncertainty, svg: bytes) -> str:
    chosen = points[points["on_front"]].sort_values("dev_w_f1", ascending=False)
    references = points[points["label"].isin([ERM, PAPER])]
    detailed = list(dict.fromkeys([*references["config_id"], *chosen["config_id"]]))
    epochs = load_epochs(study)
    plan = study.plan
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    corpus = plan["corpus"]
    facts = {
        "study": plan["name"],
        "corpus": f"{corpus['name']} ({corpus['spec']}), hash {corpus['hash']}",
        "utterances": ", ".join(f"{split} {n:,}" for split, n in corpus["counts"].items()),
        "backbone": f"{plan['backbone']['spec']}, hash {plan['backbone']['hash']}",
        "languages": ", ".join(plan["languages"]),
        "modalities": ", ".join(plan["modalities"]),
        "search space": plan["space"],
        "seeds": ", ".join(map(str, plan["seeds"])),
        "command": plan["command"],
        "started": plan["created"],
        "versions": ", ".join(f"{name} {version}" for name, version in plan["versions"].items()),
    }
    steps = steps_info(study)
    return environment.get_template("report.html.j2").render(
        plan=plan,
        by=chance.by,
        answer=answer(points),
        warnings=warnings_of(study, points, chance),
        pareto=_data_uri(svg),
        pareto_words=_pareto_in_words(points),
        training=None if epochs.empty else _data_uri(render(training_figure(epochs), "svg")),
        steps=None if steps is None else _data_uri(render(steps_figure(steps), "svg")),
        front=_html_table(front_table(points)),
        configurations=_html_table(configurations_table(points, len(study.seeds), chance.intervals)),
        cells={split: _html_table(cells_table(study, detailed, split)) for split in ("test", "dev")},
        facts=facts,
        settings=json.dumps(plan["settings"], indent=1, ensure_ascii=False),
    )


def _pareto_in_words(points: pd.DataFrame) -> str:
    """The front for who cannot see the figure."""
    chosen = points[points["on_front"]].sort_values("dev_gap")
    figures = zip(chosen["name"], POINTS * chosen["dev_gap"], POINTS * chosen["dev_w_f1"], strict=True)
    listed = (f"{name}: gap {gap:.1f}, W-F1 {w_f1:.1f}" for name, gap, w_f1 in figures)
    return "Pareto front on dev, in points. " + "; ".join(listed)


def _html_table(table: pd.DataFrame) -> dict[str, Any]:
    """Headings and rows of strings for the template, and which columns hold figures."""
    return {
        "numeric": [pd.api.types.is_numeric_dtype(table[column]) for column in table],
        "headings": [str(column).replace("W-F1", "W\N{NON-BREAKING HYPHEN}F1") for column in table],
        "rows": formatted(table).to_numpy().tolist(),
    }


def _data_uri(svg: bytes) -> str:
    """An image inside the page: as a document of its own, so that the ids of two figures cannot clash."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write the report of a study.")
    parser.add_argument("study", metavar="STUDY_DIR", help="folder or URL of a study: what holds study.json")
    parser.add_argument("--permutations", type=int, default=200, help="draws of the noise floor (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=300, help="draws of the intervals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of both (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        paths = write_report(options.study, options.permutations, options.resamples, options.seed)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report  {paths.html}\nfigure  {paths.png}\n        {paths.svg}\nfront   {paths.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
