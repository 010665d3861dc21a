"""The section of a report about a study's own objectives and requirements, where they are not W-F1 and gap alone."""

from __future__ import annotations

import pandas as pd

from analysis.loading.study import Study
from analysis.pareto.attainment import objectives_history
from analysis.pareto.objectives_front import in_words, objectives_front, objectives_table, own_objectives, scale_of
from analysis.plots.search import history_figure, objectives_figure
from analysis.plots.style import render
from analysis.report.html import Picture, Section, Table


def objectives_sections(study: Study) -> list[Section]:
    """The front over the study's own objectives; nothing for a study of W-F1 and gap without requirements."""
    if not own_objectives(study.plan):
        return []
    points = objectives_front(study.plan, study.trials)
    if points.empty:
        return []
    missed = points[points["missed"].astype(bool)]
    alt = f"The front on dev over {in_words(study.plan)}: {'; '.join(points.loc[points['on_front'], 'name'])}."
    blocks: list[Picture | Table] = [
        Picture(render(objectives_figure(points, study.plan), "svg"), alt),
        Table(objectives_table(points, study.plan)),
    ]
    if len(missed):
        blocks.append(Table(_missed_table(missed), "What misses a requirement"))
    if points["on_front"].any():
        history = objectives_history(points, study.plan)
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


def objectives_answer(study: Study) -> str:
    """The front over the study's own objectives in a sentence; empty for a study of W-F1 and gap alone."""
    if not own_objectives(study.plan):
        return ""
    points = objectives_front(study.plan, study.trials)
    chosen = points[points["on_front"]]
    return f"{len(chosen)} of {len(points)} configurations are on the front over {in_words(study.plan)}, on dev. Also: "


def _missed_table(missed: pd.DataFrame) -> pd.DataFrame:
    lacks = [
        "; ".join(f"{words_}, by {scale_of(words_) * by:.1f}" for words_, by in each.items())
        for each in missed["missed"]
    ]
    return pd.DataFrame({"configuration": missed["name"], "misses": lacks})
