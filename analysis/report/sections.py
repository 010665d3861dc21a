"""The sections of a report about its configurations: front, comparison with ERM, cells, groups, training, time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparison.arms import arms_table
from analysis.comparison.verdict import SIGN_UNCERTAIN_NOTE
from analysis.formatting import POINTS
from analysis.loading.study import Study, load_epochs
from analysis.loading.timing import startup_phases, summarise_time, time_spent
from analysis.pareto.uncertainty import INTERVALS_OF_ALL
from analysis.plots.forest import forest_figure, forest_info
from analysis.plots.pareto import cells_figure, cells_info
from analysis.plots.steps import steps_figure, steps_info
from analysis.plots.style import render
from analysis.plots.training import training_figure, training_lines
from analysis.report.context import ReportContext
from analysis.report.html import Picture, Section, Table
from analysis.tables.comparison import comparison_table
from analysis.tables.configurations import cells_table, configurations_table, front_table, rates_table
from study.evaluation.metrics import class_rates

MAX_RATE_TABLES = 3
"""Rates by emotion are shown for the first configurations only; the first with a label is ERM."""


def front_sections(context: ReportContext) -> list[Section]:
    """Return the Pareto figure of W-F1 and gap, and the front as a table."""
    of = "" if context.objectives is None else " of W-F1 and gender gap"
    return [
        Section(f"Pareto front{of}", blocks=(Picture(render(context.pareto, "svg"), _describe_front(context.points)),)),
        Section(
            f"Configurations on the front{of}",
            "The front is computed on dev. Test figures are shown beside it and did not influence it. All figures are "
            "in points. The gap is AVG: the absolute difference between women and men, averaged over TPR, FPR, W-F1 "
            "and accuracy, then over languages and modalities.",
            (Table(front_table(context.points)),),
        ),
    ]


def comparison_sections(context: ReportContext) -> list[Section]:
    """Return both objectives against ERM as a table and a forest plot, with the cells folded away."""
    comparison = context.comparison
    if comparison is None:
        return []
    reference, by = comparison.reference, comparison.by
    objectives = forest_info(comparison, ("w_f1", "avg"), scopes=(comparison.overall,))
    blocks: list[Picture | Table] = [
        Table(arms_table(comparison)),
        Picture(
            render(forest_figure(objectives), "svg"),
            f"Forest plot of the table: gain in W-F1 and reduction of the AVG gap against {reference}.",
        ),
    ]
    if comparison.table["is_cell"].any():
        blocks += [
            Picture(
                render(forest_figure(forest_info(comparison)), "svg"),
                f"Forest plot by cell: gain in W-F1 and reduction of the signed gap against {reference}.",
                "By language and modality: signed gaps (figure)",
            ),
            Table(comparison_table(comparison), "By language and modality: all quantities (table)"),
        ]
    text = [
        f"Every configuration is compared with {reference} on the same test utterances and the same training seeds. "
        f"The 95 % interval of a difference in W-F1 comes from {comparison.resamples} cluster bootstrap resamples, "
        f"which draw whole {by}s. A bootstrap of the AVG gap would be biased, because it "
        "is a mean of absolute values. It has a paired permutation test instead, which exchanges the predictions of "
        f"the two systems for whole {by}s. "
        "A difference outside the 95 % range of the permutation null is significant before adjustment. AVG cannot fall "
        "below the noise floor, so it understates a true reduction.",
        "p is adjusted by Holm's method over the configurations, or for a single cell over the cells of its "
        "configuration, and the verdict follows the adjusted p. A mean over cells without an adjusted p is judged by "
        "its raw p. In a mean of signed gaps over cells, gaps of opposite sign cancel. Where the gap of "
        f"{reference} is close to 0, its sign is arbitrary. {SIGN_UNCERTAIN_NOTE}",
        " ".join(note for note in comparison.notes if note not in context.study.notes),
    ]
    title = f"Comparison with {reference} on test"
    return [Section(title, "\n".join(paragraph for paragraph in text if paragraph), tuple(blocks))]


def configurations_sections(context: ReportContext) -> list[Section]:
    """Return a table of all configurations with the intervals of their dev W-F1."""
    some = "" if len(context.points) <= INTERVALS_OF_ALL else " Only labelled configurations and the front have one."
    table = configurations_table(context.points, len(context.study.seeds), context.uncertainty.intervals)
    return [
        Section(
            "All configurations",
            f"The 95 % interval of dev W-F1 is a cluster bootstrap over {context.uncertainty.by}s and, with several "
            f"seeds, over seeds.{some} The gap has no interval, because resampling biases an absolute gap upwards; "
            "compare it with the noise floor instead.",
            (Table(table),),
        )
    ]


def cells_sections(context: ReportContext) -> list[Section]:
    """Return the figures by language and modality: one panel per cell, the benchmark's layout, signed gaps."""
    blocks: list[Picture | Table] = []
    info = cells_info(context.study, context.uncertainty.floors)
    if not info.points.empty:
        alt = "Dev W-F1 against the AVG gap, one panel per language and modality, each with its noise floor."
        blocks.append(Picture(render(cells_figure(info), "svg"), alt))
    blocks.append(Table(cells_table(context.study, context.selected, "test")))
    blocks.append(Table(cells_table(context.study, context.selected, "dev"), "The same table on dev"))
    for modality, table in context.benchmark.items():
        blocks.append(Table(table.reset_index(col_level=1), f"In the benchmark's layout: {modality}, test"))
    return [
        Section(
            "Results by language and modality",
            "The table shows the test figures of the labelled configurations and of the front. Women, men and unknown "
            "are numbers of utterances; utterances of unknown gender are not part of a gap. F − M is a signed gap: "
            "it is positive if the metric is higher for women. For gaps at common priors, the utterances of both "
            "genders are weighted to the same emotion distribution. Without this weighting, a model that treats both "
            "genders alike has a gap in W-F1 and accuracy wherever women and men express different emotions.\n"
            "In the benchmark's layout, gaps are absolute, and the multilingual columns are unweighted means over "
            "languages.",
            tuple(blocks),
        )
    ]


def groups_sections(context: ReportContext) -> list[Section]:
    """Return worst groups, recall, invalid answers and gaps at common priors, with the rates by emotion folded away."""
    study = context.study
    rows = study.configurations.set_index("config_id").loc[context.selected]
    headings = {
        "uar": "UAR",
        "worst_group_w_f1": "W-F1 of the worst group",
        "gap": "gap",
        "gap_standardised": "gap, common priors",
        "worst_gap": "gap of the worst cell",
        "invalid": "invalid answers, %",
    }
    table = pd.DataFrame({"configuration": rows["name"]})
    for figure, heading in headings.items():
        table[heading] = POINTS * rows[f"test_{figure}"]
    blocks = [Table(table.reset_index(drop=True))]
    for config_id, name in zip(context.selected[:MAX_RATE_TABLES], rows["name"], strict=False):
        rates = [class_rates(study.predictions(config_id, seed, "test")) for seed in study.seeds_of(config_id)]
        blocks.append(Table(rates_table(rates), f"TPR and FPR by emotion: {name}"))
    return [
        Section(
            "Worst groups, invalid answers, rates by emotion",
            "Test figures, averaged over seeds. A group is a gender in a language and modality; the worst group has "
            "the lowest W-F1 and may differ between seeds. Only free generation can give invalid answers: scoring by "
            "label likelihood always gives an emotion. A rate over few utterances (n) is unreliable.",
            tuple(blocks),
        )
    ]


def training_sections(context: ReportContext) -> list[Section]:
    """Return the training curves, and the loss state step by step, if models were trained."""
    sections = []
    epochs = load_epochs(context.study)
    if not epochs.empty:
        alt = "Dev W-F1, dev gap and fairness weight by epoch, one line per configuration."
        figure = training_figure(training_lines(epochs))
        sections.append(Section("Training curves", blocks=(Picture(render(figure, "svg"), alt),)))
    steps = steps_info(context.study)
    if steps is not None:
        alt = "Fairness weight, gap of each cell, active cell and share of negative loss weights by training step."
        sections.append(
            Section(
                "Fairness penalty during training",
                "The figure shows the paper's setting and the most accurate other configurations that have a fairness "
                "weight. From top to bottom: the fairness weight; the gap of training losses in each cell, smoothed "
                "over a tenth of the steps; the active cell, which contributes most to the penalty; and the share of "
                "utterances with a negative loss weight, whose loss the optimiser increases.",
                (Picture(render(steps_figure(steps), "svg"), alt),),
            )
        )
    return sections


def time_sections(context: ReportContext) -> list[Section]:
    """Return how long training, evaluation and start-up took, if the records have times."""
    spent = time_spent(context.study)
    if spent[["training", "start"]].dropna().empty:
        return []
    table = spent.assign(workers=np.where(spent["new"], "new", "reused")).drop(columns="new")
    seconds = ["trial", "training", "evaluation", "start", "rest"]
    table = table.rename(columns={"name": "configuration", **{column: f"{column}, s" for column in seconds}})
    phases = startup_phases(context.study)
    phases = phases.rename(columns={name: f"{name}, s" for name in phases.columns if name not in ("run", "runs")})
    text = f"{summarise_time(spent)}. That time starts with the trial, and includes the start of its workers."
    blocks = (Table(table, "Seconds per trial"), Table(phases, "Seconds before the first step, medians"))
    return [Section("Computing time", text, blocks)]


def study_facts(study: Study) -> dict[str, str]:
    """Return what is needed to reproduce a study, by name."""
    plan = study.plan
    corpus = plan["corpus"]
    return {
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


def _describe_front(points: pd.DataFrame) -> str:
    """Describe the Pareto figure for readers who cannot see it."""
    front = points[points["on_front"]].sort_values("dev_gap")
    figures = zip(front["name"], POINTS * front["dev_gap"], POINTS * front["dev_w_f1"], strict=True)
    listed = (f"{name}: gap {gap:.1f}, W-F1 {w_f1:.1f}" for name, gap, w_f1 in figures)
    return "Pareto front on dev, in points. " + "; ".join(listed)
