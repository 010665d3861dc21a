"""The sections of a report about a search as a whole: choices, how sure its front is, its knobs, the published rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.published import LABEL, published
from analysis.loading.study import Study
from analysis.pareto.attainment import attainment, hypervolume_history, probability_nondominated
from analysis.pareto.importance import EVALUATORS, MIN_TRIALS, importance
from analysis.pareto.importance import shown as shares
from analysis.pareto.selection import choose, shown
from analysis.plots.search import attainment_figure, hypervolume_figure, published_figure
from analysis.plots.style import render
from analysis.report.html import Picture, Section, Table
from analysis.tables.benchmark import MEAN

LIKELY = 24
"""So many configurations, from the outermost layers, are asked how often they are on the front."""
FANOVA_UP_TO = 100
"""With more configurations the report leaves fANOVA out: at 200 its forest took longer than all the rest."""
_HEADINGS = {"w_f1": "W-F1", "accuracy": "ACC", "gap": "AVG"}


def choices_section(study: Study) -> Section:
    """What each rule chooses on dev, with its one look at test."""
    return Section(
        "Choices",
        "Each rule sees dev alone; test is what its choice then showed, once. Dev − test above 0 for W-F1, or below 0 "
        "for the gap, is what dev promised too much; but an absolute gap is the larger the fewer utterances its cells "
        "have, so splits of different sizes differ in it anyway. Each row is one look: the best of several is not one.",
        (Table(shown(choose(study))),),
    )


def certainty_section(study: Study, resamples: int, seed: int) -> Section | None:
    """How often each configuration is on the front, the attainment surfaces, the growth; ``None`` without a front."""
    likely = probability_nondominated(study, resamples, seed, most=LIKELY)
    if likely.empty:
        return None
    likely = likely.sort_values("probability", ascending=False)
    table = pd.DataFrame(
        {
            "configuration": likely["name"],
            "front": np.where(likely["on_front"], "yes", ""),
            "on the front in % of draws": POINTS * likely["probability"],
            "shift of W-F1": POINTS * likely["w_f1_bias"],
            "shift of the gap": POINTS * likely["gap_bias"],
        }
    )
    blocks: list[Picture | Table] = [Table(table)]
    left_out = resamples - int(likely["resamples"].iloc[0])
    surfaces = attainment(study)
    if not surfaces.empty:
        alt = "W-F1 against the gap: the surfaces that a quarter, half and three quarters of the seeds attain."
        blocks.append(Picture(render(attainment_figure(surfaces, len(study.seeds)), "svg"), alt))
    alt = "The hypervolume of the front over trials and over hours."
    blocks.append(Picture(render(hypervolume_figure(hypervolume_history(study)), "svg"), alt))
    return Section(
        "How sure the front is",
        f"In each of {resamples} draws the same other clusters and training seeds are taken for all configurations, on "
        "dev; with one seed, clusters alone. An absolute gap is larger in a resample than in the data, so the draws of "
        "each configuration are moved back to its own figures, by the shift shown in points. Where gaps lie within the "
        "noise floor these shares say little."
        + (f" {left_out} draws left a cell without a gender, so without a gap, and do not count." if left_out else ""),
        tuple(blocks),
    )


def importance_section(study: Study, seed: int) -> Section:
    """Which knobs mattered for each objective, or why it cannot be said."""
    few = len(study.configurations) <= FANOVA_UP_TO
    command = f"python -m analysis importance {study.folder.uri}"
    found = importance(study, seed, EVALUATORS if few else ("PED-ANOVA",))
    words = (
        "Shares of the variance over trials that a knob makes by itself (fANOVA), and of the difference between the "
        "best tenth and all (PED-ANOVA). They say which knob mattered most, not that any did; n trials have the knob. "
        "A dash: too few trials have it, or the knobs that they share do not predict the objective (fANOVA)."
        f"{'' if few else f' fANOVA is left out of the report of so many trials; {command} computes it.'}"
    )
    if found["importance"].isna().all():
        return Section("Which knobs mattered", f"It cannot be said: {_why(found)}.")
    return Section("Which knobs mattered", words, (Table(shares(found)),))


def _why(found: pd.DataFrame) -> str:
    """Why no knob has a share; where trials are too few, as for most, in one sentence instead of one a knob."""
    if found["n"].max() < MIN_TRIALS and found["hyperparameter"].notna().any():
        return f"no knob is in more than {found['n'].max()} trials, at least {MIN_TRIALS} are needed"
    return "; ".join(dict.fromkeys(found["reason"]))


def published_section(study: Study, benchmark: dict[str, pd.DataFrame]) -> Section:
    """The rows of arXiv 2603.21050 beside our own, folded away where the corpus is another one."""
    theirs = published()
    theirs = theirs[(theirs["language"] == MEAN) & theirs["modality"].isin(list(benchmark))]
    rows = [theirs.assign(name=theirs["system"], ours=False, **{f: POINTS * theirs[f] for f in _HEADINGS})]
    for modality, table in benchmark.items():
        ours = {figure: table[MEAN, heading] for figure, heading in _HEADINGS.items()}
        rows.append(pd.DataFrame(ours).assign(name=table.index, modality=modality, ours=True))
    whole = pd.concat(rows, ignore_index=True)[["name", "modality", "w_f1", "accuracy", "gap", "ours"]]
    shown_rows = whole.rename(columns={"name": "system", "w_f1": "W-F1", "accuracy": "ACC", "gap": "AVG gap"})
    shown_rows["measured"] = np.where(shown_rows.pop("ours"), "this study, test", LABEL)
    same_corpus = str(study.plan["corpus"]["spec"]).startswith("meld-st")
    fold = "" if same_corpus else "Show them"
    return Section(
        "The published rows",
        f"Of arXiv 2603.21050: {LABEL}{'' if same_corpus else ' and here a different corpus'}, without intervals. They "
        "are shown for orientation and compared with nothing.",
        (
            Picture(render(published_figure(whole), "svg"), "W-F1 against the AVG gap, published and ours.", fold),
            Table(shown_rows, fold and "Their figures"),
        ),
    )
