"""One page about a study: ``python -m analysis report STUDY_DIR``.

Writes into ``STUDY_DIR/report/`` (writing it again replaces it):

    report.html                  one file, nothing loaded from elsewhere
    pareto.png, pareto.svg       the front
    front.csv                    the front, a column a knob
    benchmark.csv, .tex          test figures in the layout of arXiv 2603.21050
    arms.csv, arms.tex           both objectives against ERM, where there is an ERM to compare with
    leave_one_out.csv, leave_one_out.tex         leave-one-out and add-one-in, where there are such arms
    comparison.csv               every comparison with ERM by language and modality, as fractions
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.comparison.arms import arms, arms_table
from analysis.comparison.paired import Comparison
from analysis.formatting import formatted
from analysis.loading.study import ERM, Study, load_study
from analysis.pareto.front import front
from analysis.pareto.objectives_front import own_objectives
from analysis.pareto.uncertainty import uncertainty_of
from analysis.plots.pareto import pareto_figure, pareto_info
from analysis.plots.style import render
from analysis.report.headline import answer, warnings_of
from analysis.report.html import render_page
from analysis.report.leave_one_out_section import (
    leave_one_out_comparisons,
    leave_one_out_rows,
    leave_one_out_section,
    leave_one_out_table,
)
from analysis.report.objectives_section import objectives_answer, objectives_sections
from analysis.report.questions_section import question_sections
from analysis.report.search_sections import certainty_section, choices_section, importance_section, published_section
from analysis.report.sections import (
    cells_section,
    compared_with,
    comparison_section,
    configurations_section,
    detailed,
    facts_of,
    front_sections,
    groups_section,
    time_section,
    training_sections,
)
from analysis.tables.benchmark import benchmark, benchmark_csv, benchmark_latex
from analysis.tables.configurations import front_csv
from analysis.tables.latex import tabular
from study.common.errors import RecordError
from study.evaluation.metrics import ClassAverage
from study.storage.study_folder import StudyFolder


@dataclass(frozen=True)
class ReportPaths:
    """Where a report is, as a user would type it."""

    html: str
    png: str
    svg: str
    csv: str


def write_report(
    folder: StudyFolder | str,
    permutations: int = 200,
    resamples: int = 300,
    seed: int = 0,
    class_average: ClassAverage = "mean_of_gaps",
) -> ReportPaths:
    """Write the report of a study into its folder.

    Args:
        folder: a study folder, or its path or URL.
        permutations: draws of each noise floor.
        resamples: draws of each interval and comparison.
        seed: of all draws.
        class_average: of TPR and FPR gaps, see :func:`analysis.loading.study.load_study`; the report says so if it is
        another
            than by default.

    Raises:
        RecordError: there is no study, no finished run in it, or no room to write.
    """
    study = load_study(folder, class_average)
    require_finished_runs(study)
    uncertainty = uncertainty_of(study, permutations, resamples, seed)
    points = front(study.configurations)
    shown = detailed(points)
    figure = pareto_figure(pareto_info(study, uncertainty.floor))
    svg = render(figure, "svg")
    comparison = compared_with(study, ERM, shown, resamples, seed)
    leave_one_out = leave_one_out_comparisons(study, resamples, seed)
    in_layout = benchmark(study, shown)
    certainty = certainty_section(study, resamples, seed)
    page = render_page(
        title=str(study.plan["name"]),
        answer=objectives_answer(study) + answer(points),
        warnings=warnings_of(study, points, uncertainty),
        sections=[
            *objectives_sections(study),
            *front_sections(points, svg, also=own_objectives(study.plan)),
            *([] if comparison is None else [comparison_section(study, comparison)]),
            *([leave_one_out_section(leave_one_out)] if leave_one_out else []),
            choices_section(study),
            configurations_section(study, points, uncertainty),
            cells_section(study, shown, uncertainty, in_layout),
            groups_section(study, shown),
            *([] if certainty is None else [certainty]),
            *question_sections(study, resamples, seed),
            *([importance_section(study, seed)] if study.plan.get("hyperparameters") else []),
            published_section(study, in_layout),
            *training_sections(study),
            *time_section(study),
        ],
        facts=facts_of(study),
        settings=json.dumps(study.plan["settings"], indent=1, ensure_ascii=False),
    )
    files = {
        "pareto.png": render(figure, "png"),
        "pareto.svg": svg,
        "front.csv": front_csv(points).encode(),
        **_paper_tables(study, in_layout, comparison, leave_one_out),
        "report.html": page.encode(),  # last: where it stands, the others do
    }
    for name, data in files.items():
        study.folder.write_bytes(f"report/{name}", data)
    for name in set(study.folder.names("report")) - set(files):  # of a report with other parts
        study.folder.remove(f"report/{name}")
    names = ("report.html", "pareto.png", "pareto.svg", "front.csv")
    return ReportPaths(*(study.folder.path("report", name) for name in names))


def require_finished_runs(study: Study) -> None:
    """Raise a RecordError that says why there is nothing to show, if there is nothing."""
    if study.runs.empty:
        failed = "".join(f"\n  trial {row.number} failed: {row.reason}" for row in study.failed.itertuples())
        raise RecordError(f"{study.folder.uri} has no finished run yet: let the study go on, then ask again.{failed}")


def _paper_tables(
    study: Study, in_layout: dict[str, pd.DataFrame], comparison: Comparison | None, leave_one_out: Sequence[Comparison]
) -> dict[str, bytes]:
    """By file name, what a paper would hold."""
    latex = benchmark_latex(in_layout, "test", study.notes)
    made = {"benchmark.csv": benchmark_csv(in_layout), "benchmark.tex": latex}
    if comparison is not None:
        made |= {
            "arms.csv": arms(comparison).to_csv(index=False, lineterminator="\n"),
            "arms.tex": _latex(arms_table(comparison), f"Against {comparison.reference}", comparison),
            "comparison.csv": comparison.table.to_csv(index=False, lineterminator="\n"),
        }
    if leave_one_out:
        made |= {
            "leave_one_out.csv": leave_one_out_rows(leave_one_out).to_csv(index=False, lineterminator="\n"),
            "leave_one_out.tex": _latex(leave_one_out_table(leave_one_out), "One part at a time", leave_one_out[0]),
        }
    return {name: text.encode() for name, text in made.items()}


def _latex(table: pd.DataFrame, title: str, comparison: Comparison) -> str:
    caption = (
        f"{title} on {comparison.split}, in points. 95 %: interval over {comparison.by}s and seeds; 95 % null range: "
        "that of the paired permutation null, since AVG has no interval; Holm: p adjusted over the arms with the same "
        f"reference. {' '.join(comparison.notes)}"
    )
    return tabular(formatted(table).set_index(("", "configuration")).rename_axis(None), caption)
