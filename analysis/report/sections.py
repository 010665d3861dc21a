"""The sections of a report, each made of records and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.comparison.arms import adjusted, arms_table
from analysis.comparison.paired import Comparison, compare
from analysis.comparison.verdict import SIGN_UNCERTAIN_NOTE
from analysis.formatting import POINTS
from analysis.loading.study import Study, load_epochs
from analysis.loading.timing import startup_phases, summarise_time, time_spent
from analysis.pareto.uncertainty import INTERVALS_OF_ALL, Uncertainty
from analysis.plots.forest import forest_figure, forest_info
from analysis.plots.pareto import cells_figure, cells_info
from analysis.plots.steps import steps_figure, steps_info
from analysis.plots.style import render
from analysis.plots.training import training_figure, training_lines
from analysis.report.html import Picture, Section, Table
from analysis.tables.benchmark import MEAN
from analysis.tables.comparison import comparison_table
from analysis.tables.configurations import cells_table, configurations_table, front_table, rates_table
from study.evaluation.metrics import class_rates

COMPARED = 32
"""At most so many configurations are compared with ERM: those with a label first, then the front by dev W-F1."""

RESAMPLES_AN_ARM = 40
"""No p value of B swaps is below 1/(B + 1); with so many an arm, one that no swap reaches passes Holm at 0.025."""

RATES_OF = 3
"""Rates by class are shown of so many configurations: ERM among them, since it is the first with a label."""


def detailed(points: pd.DataFrame) -> list[str]:
    """What is shown in detail: configurations with a label in their order, then the front, best dev W-F1 first.

    Args:
        points: output of :func:`analysis.pareto.front.front`.

    Returns:
        config_ids.
    """
    chosen = points[points["on_front"]].sort_values("dev_w_f1", ascending=False)
    return list(dict.fromkeys([*points.loc[points["label"].notna(), "config_id"], *chosen["config_id"]]))


def compared_with(
    study: Study, reference: str, config_ids: Sequence[str], resamples: int, seed: int
) -> Comparison | None:
    """Some configurations against the one with a label on test, adjusted over them; ``None`` where there is no pair."""
    base = study.configuration(reference)
    if base is None:
        return None
    seeds = set(study.runs.loc[study.runs["config_id"] == base["config_id"], "seed"])
    paired = set(study.runs.loc[study.runs["seed"].isin(seeds), "config_id"]) - {base["config_id"]}
    only = [config_id for config_id in config_ids if config_id in paired][:COMPARED]
    enough = max(resamples, RESAMPLES_AN_ARM * len(only))
    return adjusted(compare(study, reference, "test", resamples=enough, seed=seed, only=only)) if only else None


def front_sections(points: pd.DataFrame, pareto_svg: bytes, also: bool = False) -> list[Section]:
    """The Pareto figure of W-F1 and gap, and that front as a table; ``also`` where the study searched for others."""
    said = "Also: W-F1 against the gap" if also else "Pareto front"
    return [
        Section(said, blocks=(Picture(pareto_svg, _pareto_in_words(points)),)),
        Section(
            "The front of W-F1 and gap" if also else "The front",
            "Chosen on dev; test is shown beside it and chose nothing. Figures in points; the gap is AVG: the mean of "
            "the absolute differences between women and men in TPR, FPR, W-F1 and accuracy, averaged over languages "
            "and modalities.",
            (Table(front_table(points)),),
        ),
    ]


def comparison_section(study: Study, comparison: Comparison) -> Section:
    """Both objectives against ERM: one table and one forest plot; by language and modality folded away.

    Args:
        comparison: from :func:`compared_with`.
    """
    notes = [note for note in comparison.notes if note not in study.notes]
    both = forest_info(comparison, ("w_f1", "avg"), scopes=(comparison.overall,))
    blocks: list[Picture | Table] = [
        Table(arms_table(comparison)),
        Picture(render(forest_figure(both), "svg"), "W-F1 gained and AVG gap closed against ERM, as in the table."),
    ]
    if comparison.table["is_cell"].any():
        by_cell = render(forest_figure(forest_info(comparison)), "svg")
        blocks.append(Picture(by_cell, "The same by language and modality, with signed gaps.", "Signed gaps by cell"))
        blocks.append(Table(comparison_table(comparison), "Every comparison, by language and modality"))
    return Section(
        f"Against {comparison.reference}, on test",
        f"Paired: the same utterances and the same training seeds, {comparison.resamples} resamples of whole "
        f"{comparison.by}s. The range of W-F1 is a 95 % interval. AVG, an absolute gap, has none: compare its "
        "difference with the 95 % range of the paired permutation null, in which the two systems are exchanged "
        "cluster by cluster (AVG understates a true reduction, since it cannot fall below the noise floor). Holm: p "
        "adjusted over the rows, on which the verdict rests; of a cell, over the cells of its arm. A mean "
        "without Holm goes by p alone. Signed gaps of several cells are averaged with their signs, so opposite ones "
        "cancel; where ERM's own gap is near 0 its sign is chance. " + " ".join([SIGN_UNCERTAIN_NOTE, *notes]),
        tuple(blocks),
    )


def configurations_section(study: Study, points: pd.DataFrame, uncertainty: Uncertainty) -> Section:
    """Every configuration with its interval."""
    few = "" if len(points) <= INTERVALS_OF_ALL else " Only configurations with a label and the front have one here."
    return Section(
        "All configurations",
        f"The interval is of dev W-F1, at 95 %, over other {uncertainty.by}s and, with several seeds, seeds.{few} "
        "The gap has none, since resamples of an absolute value never reach 0: compare it with the noise floor.",
        (Table(configurations_table(points, len(study.seeds), uncertainty.intervals)),),
    )


def cells_section(
    study: Study, config_ids: Sequence[str], uncertainty: Uncertainty, benchmark: dict[str, pd.DataFrame]
) -> Section:
    """By language and modality: small multiples, the benchmark's layout, signed gaps with the sizes of the cells."""
    blocks: list[Picture | Table] = []
    info = cells_info(study, uncertainty.floors)
    if not info.points.empty:
        alt = "Dev W-F1 against the AVG gap, one panel a language and modality, with the noise floor of each."
        blocks.append(Picture(render(cells_figure(info), "svg"), alt))
    for modality, table in benchmark.items():
        blocks.append(Table(table.reset_index(col_level=1), f"In the benchmark's layout: {modality}, test"))
    blocks.append(Table(cells_table(study, config_ids, "test")))
    blocks.append(Table(cells_table(study, config_ids, "dev"), "The same on dev"))
    return Section(
        "By language and modality",
        "The table: on test, configurations with a label and the front. Women, men and unknown count utterances; "
        "unknown is in no gap. F − M is signed: above 0 the figure is higher for women. Common: W-F1 and ACC at common "
        "class priors, since a model blind to gender shows a raw gap where women and men differ in what they feel. (A "
        "signed TPR or FPR is the difference of macro means and needs no such correction.) In the benchmark's layout "
        f"gaps are absolute and {MEAN} is the unweighted mean over languages.",
        tuple(blocks),
    )


def groups_section(study: Study, config_ids: Sequence[str]) -> Section:
    """The worst group, recall, invalid answers and gaps at common priors, and folded away the rates by class."""
    chosen = study.configurations.set_index("config_id").loc[list(config_ids)]
    headings = {
        "uar": "UAR",
        "worst_group_w_f1": "W-F1 of the worst group",
        "gap": "gap",
        "gap_standardised": "gap, common priors",
        "worst_gap": "gap of the worst cell",
        "invalid": "invalid answers in %",
    }
    names = chosen["name"].astype(str).to_dict()
    table = pd.DataFrame({"configuration": chosen["name"]})
    for figure, heading in headings.items():
        table[heading] = POINTS * chosen[f"test_{figure}"]
    blocks = [Table(table.reset_index(drop=True))]
    for config_id in list(config_ids)[:RATES_OF]:
        runs = [class_rates(study.predictions(config_id, seed, "test")) for seed in study.seeds_of(config_id)]
        blocks.append(Table(rates_table(runs), f"TPR and FPR by emotion: {names[config_id]}"))
    return Section(
        "Worst group, classes, invalid answers",
        "On test, means over seeds. The worst group is the gender of a language and modality with the lowest W-F1 "
        "(over seeds it may be another). Scored by the likelihood of the label words, no answer is invalid. A rate of "
        "few utterances (n) says little.",
        tuple(blocks),
    )


def training_sections(study: Study) -> list[Section]:
    """The epochs, and what the objective saw step by step, where there was training."""
    made = []
    epochs = load_epochs(study)
    if not epochs.empty:
        alt = "Dev W-F1, dev gap and fairness weight over epochs, one line a configuration."
        made.append(Section("Training", blocks=(Picture(render(training_figure(training_lines(epochs)), "svg"), alt),)))
    steps = steps_info(study)
    if steps is not None:
        alt = "Fairness weight, gaps, active cell and negative weights over the training steps."
        made.append(
            Section(
                "What the objective saw",
                "For the paper's setting and the most accurate others with a fairness weight: the weight, each cell's "
                "gap of training losses (averaged over a tenth of the steps), the cell that counts most, and the share "
                "of utterances whose weight is negative, so that they are unlearned.",
                (Picture(render(steps_figure(steps), "svg"), alt),),
            )
        )
    return made


def time_section(study: Study) -> list[Section]:
    """Where the seconds of each trial went, where the records say it."""
    spent = time_spent(study)
    if spent[["training", "start"]].dropna().empty:
        return []
    table = spent.assign(workers=np.where(spent["new"], "new", "of an earlier trial")).drop(columns="new")
    seconds = ["trial", "training", "evaluation", "start", "rest"]
    table = table.rename(columns={"name": "configuration", **{column: f"{column}, s" for column in seconds}})
    words = f"{summarise_time(spent)}. Start: from the beginning of a trial to the end of its first step."
    parts = startup_phases(study)
    start = parts.rename(columns={name: f"{name}, s" for name in parts.columns if name not in ("run", "runs")})
    blocks = (Table(table, "Seconds of each trial"), Table(start, "Seconds to the first step, medians"))
    return [Section("Where the time went", words, blocks)]


def facts_of(study: Study) -> dict[str, str]:
    """How a study was made, by name."""
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


def _pareto_in_words(points: pd.DataFrame) -> str:
    """The front for who cannot see the figure."""
    chosen = points[points["on_front"]].sort_values("dev_gap")
    figures = zip(chosen["name"], POINTS * chosen["dev_gap"], POINTS * chosen["dev_w_f1"], strict=True)
    listed = (f"{name}: gap {gap:.1f}, W-F1 {w_f1:.1f}" for name, gap, w_f1 in figures)
    return "Pareto front on dev, in points. " + "; ".join(listed)
