"""Write the report of a study: ``python -m analysis report STUDY_DIR``.

The report is written to ``STUDY_DIR/report/`` and replaces an earlier one:

    report.html                        one file that loads nothing from elsewhere
    pareto.png, pareto.svg             the Pareto front
    front.csv                          the front, one column per hyperparameter
    benchmark.csv, .tex                test figures in the layout of arXiv 2603.21050
    arms.csv, .tex                     W-F1 and AVG gap against ERM, if ERM has finished
    leave_one_out.csv, .tex            leave-one-out and add-one-in arms, if there are any
    comparison.csv                     every comparison with ERM by language and modality, as fractions
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.comparison.arms import arms, arms_table
from analysis.comparison.paired import Comparison
from analysis.constants import ERM
from analysis.formatting import formatted
from analysis.loading.study import Study, load_study
from analysis.pareto.front import front
from analysis.pareto.objectives_front import has_custom_objectives, objectives_front
from analysis.pareto.uncertainty import uncertainty_of
from analysis.plots.pareto import pareto_figure, pareto_info
from analysis.plots.style import render
from analysis.report.context import ReportContext, compare_with, select_configurations
from analysis.report.headline import caveats, headline
from analysis.report.html import Section, render_page
from analysis.report.leave_one_out_section import (
    leave_one_out_comparisons,
    leave_one_out_rows,
    leave_one_out_sections,
    leave_one_out_table,
)
from analysis.report.objectives_section import objectives_sections
from analysis.report.questions_section import confirmation_sections, question_sections
from analysis.report.search_sections import (
    importance_sections,
    published_sections,
    selection_sections,
    stability_sections,
)
from analysis.report.sections import (
    cells_sections,
    comparison_sections,
    configurations_sections,
    front_sections,
    groups_sections,
    study_facts,
    time_sections,
    training_sections,
)
from analysis.stats.chance import chance_w_f1
from analysis.tables.benchmark import benchmark, benchmark_csv, benchmark_latex
from analysis.tables.configurations import front_csv
from analysis.tables.latex import tabular
from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder

CONFIRMATION = "confirm"
"""The folder inside a study that contains its confirmation on fresh seeds."""

SECTIONS: tuple[Callable[[ReportContext], list[Section]], ...] = (
    objectives_sections,
    front_sections,
    comparison_sections,
    leave_one_out_sections,
    selection_sections,
    configurations_sections,
    cells_sections,
    groups_sections,
    stability_sections,
    question_sections,
    confirmation_sections,
    importance_sections,
    published_sections,
    training_sections,
    time_sections,
)
"""The sections in the order of the page. Each function returns no section if the study has nothing to show in it."""


@dataclass(frozen=True)
class ReportPaths:
    """The full paths of the report's main files."""

    html: str
    png: str
    svg: str
    csv: str


def write_report(
    study: Study,
    permutations: int = 200,
    resamples: int = 300,
    seed: int = 0,
    confirmation: Study | None = None,
) -> ReportPaths:
    """Write the report of a study into its folder.

    Args:
        permutations: number of permutations for each noise floor.
        resamples: number of bootstrap resamples, and of permutations in each test.
        seed: of all random draws.
        confirmation: the study that trained the front again on fresh seeds; by default it is loaded if there is one.

    Raises:
        RecordError: the study has no finished run, a file is damaged, or the report cannot be written.
    """
    require_finished_runs(study)
    context = make_context(study, permutations, resamples, seed, confirmation)
    page = render_page(
        title=str(study.plan["name"]),
        headline=headline(context),
        caveats=caveats(context),
        sections=[section for sections in SECTIONS for section in sections(context)],
        facts=study_facts(study),
        settings=json.dumps(study.plan["settings"], indent=1, ensure_ascii=False),
    )
    files = {
        "pareto.png": render(context.pareto, "png"),
        "pareto.svg": render(context.pareto, "svg"),
        "front.csv": front_csv(context.points).encode(),
        **{name: text.encode() for name, text in _paper_tables(context).items()},
        "report.html": page.encode(),  # written last, so that the other files exist if it does
    }
    for name, data in files.items():
        study.folder.write_bytes(f"report/{name}", data)
    for name in set(study.folder.names("report")) - set(files):  # files of an earlier report that this one lacks
        study.folder.remove(f"report/{name}")
    names = ("report.html", "pareto.png", "pareto.svg", "front.csv")
    return ReportPaths(*(study.folder.path("report", name) for name in names))


def make_context(
    study: Study, permutations: int, resamples: int, seed: int, confirmation: Study | None = None
) -> ReportContext:
    """Compute what the sections share; see :func:`write_report` for the arguments."""
    points = front(study.configurations)
    selected = select_configurations(points)
    dev = study.records.utterances.query("split == 'dev'")
    if confirmation is None and study.folder.exists(f"{CONFIRMATION}/study.json"):
        confirmation = load_study(StudyFolder(study.folder.path(CONFIRMATION)), study.class_average)
    uncertainty = uncertainty_of(study, permutations, resamples, seed)
    return ReportContext(
        study=study,
        confirmation=confirmation,
        points=points,
        objectives=objectives_front(study.plan, study.trials) if has_custom_objectives(study.plan) else None,
        selected=selected,
        uncertainty=uncertainty,
        pareto=pareto_figure(pareto_info(study, uncertainty.floor)),
        chance={str(language): chance_w_f1(rows["emotion"]) for language, rows in dev.groupby("language")},
        comparison=compare_with(study, ERM, selected, resamples, seed),
        leave_one_out=leave_one_out_comparisons(study, resamples, seed),
        benchmark=benchmark(study, selected),
        resamples=resamples,
        seed=seed,
    )


def require_finished_runs(study: Study) -> None:
    """Raise a RecordError with the reasons of failed trials if the study has no finished run."""
    if study.runs.empty:
        failed = "".join(f"\n  trial {row.number} failed: {row.reason}" for row in study.failed.itertuples())
        raise RecordError(f"{study.folder.uri} has no finished run yet. Wait until one has finished.{failed}")


def _paper_tables(context: ReportContext) -> dict[str, str]:
    """Return the CSV and LaTeX tables by file name."""
    latex = benchmark_latex(context.benchmark, "test", context.study.notes)
    files = {"benchmark.csv": benchmark_csv(context.benchmark), "benchmark.tex": latex}
    if context.comparison is not None:
        title = f"Comparison with {context.comparison.reference}"
        files |= {
            "arms.csv": arms(context.comparison).to_csv(index=False, lineterminator="\n"),
            "arms.tex": _arms_latex(arms_table(context.comparison), title, context.comparison),
            "comparison.csv": context.comparison.table.to_csv(index=False, lineterminator="\n"),
        }
    if context.leave_one_out:
        comparisons = context.leave_one_out
        files |= {
            "leave_one_out.csv": leave_one_out_rows(comparisons).to_csv(index=False, lineterminator="\n"),
            "leave_one_out.tex": _arms_latex(
                leave_one_out_table(comparisons), "Ablation of single components", comparisons[0]
            ),
        }
    return files


def _arms_latex(table: pd.DataFrame, title: str, comparison: Comparison) -> str:
    caption = (
        f"{title} on {comparison.split}, in points. 95 %: cluster bootstrap interval over {comparison.by}s and seeds. "
        "95 % null range: of the paired permutation null; the AVG gap has no interval. Holm: p adjusted over the arms "
        f"that share a reference. {' '.join(comparison.notes)}"
    )
    return tabular(formatted(table).set_index(("", "configuration")).rename_axis(None), caption)
