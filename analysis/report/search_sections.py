"""The sections of a report about the search: selection, stability of the front, importance, published results."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.formatting import POINTS
from analysis.loading.published import LABEL, published
from analysis.pareto.attainment import attainment, hypervolume_history, probability_nondominated
from analysis.pareto.importance import EVALUATORS, MIN_TRIALS, importance, importance_table
from analysis.pareto.selection import choose, selection_table
from analysis.plots.search import attainment_figure, hypervolume_figure, published_figure
from analysis.plots.style import render
from analysis.report.context import ReportContext
from analysis.report.html import Picture, Section, Table
from analysis.tables.benchmark import MEAN

MAX_STABILITY = 24
"""The stability of at most this many configurations is estimated: those of the front, then of the layers behind it."""
MAX_FANOVA = 100
"""With more configurations the report leaves fANOVA out: with 200, its forest takes longer than the rest."""
_HEADINGS = {"w_f1": "W-F1", "accuracy": "ACC", "gap": "AVG"}


def selection_sections(context: ReportContext) -> list[Section]:
    """Return the choice of each selection rule on dev, with its test figures."""
    return [
        Section(
            "Model selection",
            "Each rule chooses a configuration on dev; the test figures of its choice are looked up once. “dev − test” "
            "shows the optimism of the choice: W-F1 above 0 or a gap below 0 means that it did better on dev. An "
            "absolute gap is larger in smaller cells, so gaps also differ between splits of different sizes. Picking "
            "the best row by its test figures would be selection on test.",
            (Table(selection_table(choose(context.study))),),
        )
    ]


def stability_sections(context: ReportContext) -> list[Section]:
    """Return how often each configuration is on the front, the attainment surfaces and the hypervolume."""
    study, resamples = context.study, context.resamples
    shares = probability_nondominated(study, resamples, context.seed, most=MAX_STABILITY)
    if shares.empty:
        return []
    shares = shares.sort_values("probability", ascending=False)
    table = pd.DataFrame(
        {
            "configuration": shares["name"],
            "front": np.where(shares["on_front"], "yes", ""),
            "on the front, % of draws": POINTS * shares["probability"],
            "shift of W-F1": POINTS * shares["w_f1_bias"],
            "shift of the gap": POINTS * shares["gap_bias"],
        }
    )
    blocks: list[Picture | Table] = [Table(table)]
    surfaces = attainment(study)
    if not surfaces.empty:
        alt = "W-F1 against the gap: attainment surfaces of 25, 50 and 75 % of the training seeds."
        blocks.append(Picture(render(attainment_figure(surfaces, len(study.seeds)), "svg"), alt))
    alt = "Hypervolume of the front by number of trials and by hours."
    blocks.append(Picture(render(hypervolume_figure(hypervolume_history(study)), "svg"), alt))
    by, undefined = context.uncertainty.by, resamples - int(shares["resamples"].iloc[0])
    drawn = f"{by}s only" if len(study.seeds) == 1 else f"{by}s and training seeds"
    text = (
        f"The table shows how often each configuration is on the front in {resamples} bootstrap draws on dev. A draw "
        f"resamples {drawn}, the same for all configurations. An absolute gap is larger in a resample than in the "
        "data, so the draws of each configuration are shifted back to its observed figures; the table shows the "
        "shifts. The shares say little about configurations whose gaps lie within the noise floor."
    )
    if undefined:
        text += f" In {undefined} draws some cell had one gender only; these draws are not counted."
    return [Section("Stability of the front", text, tuple(blocks))]


def importance_sections(context: ReportContext) -> list[Section]:
    """Return the importance of each hyperparameter for each objective, or why it cannot be estimated."""
    study, title = context.study, "Hyperparameter importance"
    if not study.plan.get("hyperparameters"):
        return []
    few = len(study.configurations) <= MAX_FANOVA
    shares = importance(study, context.seed, EVALUATORS if few else ("PED-ANOVA",))
    if shares["importance"].isna().all():
        return [Section(title, f"Importance cannot be estimated: {_reason(shares)}.")]
    text = (
        "All shares are in %. fANOVA gives the share of the variance over trials that a hyperparameter explains by "
        "itself. PED-ANOVA measures how much its distribution among the best tenth of the trials differs from that "
        "among all trials. Shares rank the hyperparameters; they do not show that any of them matters. n is the number "
        "of trials that have the hyperparameter. A dash means that too few trials have it, or that fANOVA explains too "
        "little of the objective."
    )
    if not few:
        command = f"python -m analysis importance {study.folder.uri}"
        text += f" fANOVA is slow with this many trials and is left out; `{command}` computes it."
    return [Section(title, text, (Table(importance_table(shares)),))]


def published_sections(context: ReportContext) -> list[Section]:
    """Return the results of arXiv 2603.21050 beside ours, folded away if this study has another corpus."""
    theirs = published()
    theirs = theirs[(theirs["language"] == MEAN) & theirs["modality"].isin(list(context.benchmark))]
    rows = [theirs.assign(name=theirs["system"], ours=False, **{f: POINTS * theirs[f] for f in _HEADINGS})]
    for modality, table in context.benchmark.items():
        ours = {figure: table[MEAN, heading] for figure, heading in _HEADINGS.items()}
        rows.append(pd.DataFrame(ours).assign(name=table.index, modality=modality, ours=True))
    results = pd.concat(rows, ignore_index=True)[["name", "modality", "w_f1", "accuracy", "gap", "ours"]]
    table = results.rename(columns={"name": "system", "w_f1": "W-F1", "accuracy": "ACC", "gap": "AVG gap"})
    table["source"] = np.where(table.pop("ours"), "this study, test", LABEL)
    same_corpus = str(context.study.plan["corpus"]["spec"]).startswith("meld-st")
    corpus = "" if same_corpus else ", and this study uses another corpus"
    figure = Picture(
        render(published_figure(results), "svg"),
        "W-F1 against the AVG gap: published results and this study.",
        "" if same_corpus else "Published results (figure)",
    )
    return [
        Section(
            "Published results",
            f"The results of arXiv 2603.21050 were measured on another split of MELD-ST{corpus}. They have no "
            "intervals. They are shown for orientation only and cannot be compared with the figures of this study.",
            (figure, Table(table, "" if same_corpus else "Published results (table)")),
        )
    ]


def _reason(shares: pd.DataFrame) -> str:
    """Return why no hyperparameter has a share: one reason for all where too few trials have finished."""
    if shares["n"].max() < MIN_TRIALS and shares["hyperparameter"].notna().any():
        most = shares["n"].max()
        return f"it takes {MIN_TRIALS} trials with the same hyperparameter, and no hyperparameter has more than {most}"
    return "; ".join(dict.fromkeys(shares["reason"]))
