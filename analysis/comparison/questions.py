"""Two research questions of a study: do loss coefficients help, and does the transcript help?

Differences, intervals and verdicts are those of :mod:`analysis.comparison.paired`. A question that the studies cannot
answer has a row with the reason instead of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.paired import adjust_over_cells, paired_differences
from analysis.comparison.studies import settings_that_differ
from analysis.loading.study import ERM, PAPER, Study
from analysis.pareto.front import eligible, front
from analysis.pareto.selection import NoChoice, Rule, WithinAccuracy
from analysis.stats.bootstrap import bootstrap
from analysis.stats.cluster_counts import ClusterBy, ClusterCounts, cluster_by, counts_of, same_utterances
from study.common.groups import Modality

QUANTITIES = ("w_f1", "signed_tpr", "standardised_w_f1", "standardised_accuracy", "avg")
KINDS = ("languages", "modalities", "cells")
MIN_BUDGET = 5
"""Fewest trials of each kind; the best of fewer is not representative of the kind."""

_PAIRED = (
    "is_cell", "quantity", "kind", "n_seeds", "n_female", "n_male", "clusters", "reference", "value", "difference",
    "low", "high", "p", "p_holm", "verdict",
)  # fmt: skip
COEFFICIENT_COLUMNS = (
    "coefficients", "plain_id", "plain_name", "tuned_id", "tuned_name", "budget", "scope", *_PAIRED, "better_in_halves",
    "reason",
)  # fmt: skip
TRANSCRIPT_COLUMNS = ("config_id", "name", "language", *_PAIRED, "reason")
_TEXT_COLUMNS = ("verdict", "reason", "quantity", "kind", "scope", "language", "coefficients")
_SEARCHED = ("loss.coefficients", "loss.fairness_weight")


def coefficient_effect(
    plain: Study,
    tuned: Study | None = None,
    rule: Rule = WithinAccuracy(),  # noqa: B008  (frozen)
    split: str = "test",
    by: ClusterBy | None = None,
    resamples: int = 2000,
    seed: int = 0,
    halves: int = 100,
) -> pd.DataFrame:
    """Compare loss coefficients kappa per language, modality or cell with a fairness weight alone.

    Plain trials are those of ``plain`` with equal coefficients, tuned trials those of ``tuned`` with unequal ones;
    labelled configurations are neither. Both kinds have the same budget: the first n trials in the order of the search,
    where n is the smaller number of trials. (A sampler learns from earlier trials, so the first n trials are a search
    of n trials.) The rule selects on dev among each n trials and ERM, and the two choices are compared on ``split``.
    ``better_in_halves`` indicates how much the result depends on this one search.

    Args:
        plain: a search of the schedule alone; the rule uses its ERM.
        tuned: a search of schedule and coefficients with the same corpus, backbone, seeds and settings; by default the
            same study.
        rule: the selection rule.
        split: "dev" or "test".
        by: unit of resampling; by default that of the corpus.
        resamples, seed: of the intervals.
        halves: number of random halves of the trials in which the selection is repeated.

    Returns:
        ``COEFFICIENT_COLUMNS``, one row per (kind of coefficients, scope, quantity), fractions. ``reference`` is the
        plain choice and ``value`` the tuned one; other columns are those of
        :class:`analysis.comparison.paired.Comparison`, with Holm over the cells of a quantity. ``better_in_halves``,
        for W-F1 and AVG over all cells, is the share of halves in which the tuned choice is better; a tie counts one
        half. Halves overlap, so it is not a p value. ``reason`` states why there is no answer, else ``None``.
    """
    tuned = plain if tuned is None else tuned
    if mismatch := _mismatch(plain, tuned):
        return _frame([{"coefficients": "all", "reason": mismatch}], COEFFICIENT_COLUMNS)
    of_plain, of_tuned = _searched(plain), _searched(tuned)
    plain_trials = of_plain[of_plain["varied"] == ""]
    named = eligible(plain.configurations)
    erm = named[named["label"] == ERM]
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys([*KINDS[:2], *sorted(set(of_tuned["varied"]) - {""})]):
        if kind == "modalities" and len(plain.plan["modalities"]) == 1:
            rows.append({"coefficients": kind, "reason": "the study has one modality"})
            continue
        tuned_trials = of_tuned[of_tuned["varied"] == kind]
        budget = min(len(plain_trials), len(tuned_trials))
        row = {"coefficients": kind, "budget": budget}
        if budget < MIN_BUDGET:
            reason = (
                f"{len(plain_trials)} searched trials have equal coefficients and {len(tuned_trials)} differ in those "
                f"of {kind} alone; at least {MIN_BUDGET} of each are needed"
            )
            rows.append(row | {"reason": reason})
            continue
        first, second = plain_trials.head(budget), tuned_trials.head(budget)
        try:
            chosen = _choice(rule, erm, first), _choice(rule, erm, second)
        except NoChoice as error:
            rows.append(row | {"reason": f"{rule.description}: {error}"})
            continue
        for side, choice in zip(("plain", "tuned"), chosen, strict=True):
            row |= {f"{side}_id": choice["config_id"], f"{side}_name": choice["name"]}
        if chosen[0]["config_id"] == chosen[1]["config_id"]:
            rows.append(row | {"reason": f"both searches select {chosen[0]['name']}"})
            continue
        owners = (plain, plain if chosen[1]["label"] == ERM else tuned)
        base, counts = (
            counts_of(study, choice["config_id"], split, cluster_by(study.plan, by)).of_seeds(plain.seeds)
            for study, choice in zip(owners, chosen, strict=True)
        )
        if not same_utterances(counts, base):
            rows.append(row | {"reason": f"the studies have {split} predictions of different utterances"})
            continue
        better = _better_in_halves((plain, tuned), rule, erm, (first, second), split, halves, seed)
        differences = list(_paired(counts, base, resamples, seed))
        overall = differences[-1]["scope"]
        rows += [
            row | each | {"better_in_halves": better[each["quantity"]]}
            if each["scope"] == overall and each["quantity"] in better
            else row | each
            for each in differences
        ]
    return _frame(rows, COEFFICIENT_COLUMNS, ["coefficients", "quantity"])


def transcript_effect(
    study: Study,
    config_ids: Sequence[str] | None = None,
    split: str = "test",
    by: ClusterBy | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare speech with transcript to speech alone, by language.

    Both are predictions of the same trained models for the same utterances, so they are paired over utterances and
    seeds. A language is left out, with the reason, unless all its utterances were evaluated in both modalities.

    Args:
        study: with predictions from speech and from speech with transcript.
        config_ids: configurations to compare; by default ERM, the paper's setting and the front on dev.
        split: "dev" or "test".
        by: unit of resampling; by default that of the corpus.
        resamples, seed: of the intervals.

    Returns:
        ``TRANSCRIPT_COLUMNS``, one row per (configuration, language, quantity), fractions. ``reference`` is speech
        alone and ``value`` speech with transcript; other columns are those of
        :class:`analysis.comparison.paired.Comparison`, with Holm over the languages of a configuration and quantity.
        "multilingual" is the mean over the languages.
    """
    missing = [m.value for m in (Modality.SPEECH, Modality.SPEECH_TEXT) if m.value not in study.plan["modalities"]]
    if missing:
        return _frame([{"reason": f"the study has no predictions from {' and '.join(missing)}"}], TRANSCRIPT_COLUMNS)
    if config_ids is None:
        marked = front(study.configurations)
        config_ids = marked.loc[marked["on_front"] | marked["label"].isin([ERM, PAPER]), "config_id"].tolist()
    if not config_ids:
        return _frame([{"reason": "no configuration has finished every seed"}], TRANSCRIPT_COLUMNS)
    names = study.configurations.set_index("config_id")["name"]
    rows: list[dict[str, Any]] = []
    for config_id in config_ids:
        row = {"config_id": config_id, "name": names[config_id]}
        counts = counts_of(study, config_id, split, cluster_by(study.plan, by))
        speech, both, without = _by_modality(counts)
        rows += [
            row
            | {
                "language": language,
                "is_cell": True,
                "reason": "not all of its utterances were evaluated in both modalities",
            }
            for language in without
        ]
        for each in _paired(both, speech, resamples, seed) if both.cells else ():
            rows.append(row | {"language": str(each.pop("scope")).partition("/")[0]} | each)
    return _frame(rows, TRANSCRIPT_COLUMNS, ["config_id", "quantity"])


def varied_coefficients(study: Study, hyperparameters: dict[str, Any]) -> str:
    """Return the kinds of coefficients that are unequal, such as "languages and modalities"; empty if all are equal."""
    settings = ((study.plan["settings"].get("loss") or {}).get("coefficients")) or {}
    used = {"languages": study.plan["languages"], "modalities": study.plan["modalities"]}
    used["cells"] = [f"{language}/{modality}" for modality in used["modalities"] for language in used["languages"]]
    unequal = []
    for kind in KINDS:
        prefix = f"loss.coefficients.{kind}."
        known = dict(settings.get(kind) or {})
        known |= {key.removeprefix(prefix): value for key, value in hyperparameters.items() if key.startswith(prefix)}
        if len({known.get(name, 1.0) for name in used[kind]}) > 1:
            unequal.append(kind)
    return " and ".join(unequal)


def _mismatch(plain: Study, tuned: Study) -> str | None:
    """Return why two studies cannot be compared, or None."""
    for what in ("corpus", "backbone"):
        if plain.plan[what]["hash"] != tuned.plan[what]["hash"]:
            return f"the studies differ in their {what}"
    for what in ("seeds", "languages", "modalities"):
        if list(plain.plan[what]) != list(tuned.plan[what]):
            return f"the studies differ in their {what}"
    other = [key for key in settings_that_differ([plain, tuned]) if not key.startswith(_SEARCHED)]
    return f"the studies differ in {', '.join(other)}" if other else None


def _searched(study: Study) -> pd.DataFrame:
    """Return eligible unlabelled trials of the method with coefficients; ``varied`` names the unequal ones."""
    method = (study.plan["settings"].get("loss") or {}).get("method", "minmaxgap")
    hyperparameters = study.configurations.set_index("config_id")["hyperparameters"]
    rows = eligible(study.configurations)
    rows = rows[rows["label"].isna()]
    penalised = [hyperparameters[name].get("loss.method", method) == "minmaxgap" for name in rows["config_id"]]
    rows = rows[pd.Series(penalised, index=rows.index, dtype=bool)]
    return rows.assign(varied=[varied_coefficients(study, hyperparameters[name]) for name in rows["config_id"]])


def _choice(rule: Rule, erm: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """Return the choice of a rule among trials and ERM."""
    candidates = pd.concat([erm, trials], ignore_index=True)
    return candidates[candidates["config_id"] == rule.pick(candidates)].iloc[0]


def _better_in_halves(
    studies: tuple[Study, Study],
    rule: Rule,
    erm: pd.DataFrame,
    trials: tuple[pd.DataFrame, pd.DataFrame],
    split: str,
    halves: int,
    seed: int,
) -> dict[str, float]:
    """Return by quantity the share of random halves of the trials in which the tuned choice is better."""
    rng = np.random.default_rng([seed, 2])
    signs = {"w_f1": 1.0, "avg": -1.0}
    columns = [f"{split}_w_f1", f"{split}_gap"]
    figures = pd.concat([study.configurations.set_index("config_id")[columns] for study in studies])
    figures = figures[~figures.index.duplicated()]
    scores = []
    for _ in range(halves):
        drawn = [of_kind.iloc[np.sort(rng.permutation(len(of_kind))[: len(of_kind) // 2])] for of_kind in trials]
        try:
            both = [figures.loc[_choice(rule, erm, half)["config_id"]].to_numpy(dtype=float) for half in drawn]
        except NoChoice:
            continue
        scores.append((1 + np.sign((both[1] - both[0]) * list(signs.values()))) / 2)
    return dict(zip(signs, np.mean(scores, axis=0).tolist(), strict=True)) if scores else dict.fromkeys(signs, np.nan)


def _by_modality(counts: ClusterCounts) -> tuple[ClusterCounts, ClusterCounts, list[str]]:
    """Return the counts of speech and of speech with transcript, and the languages that cannot be paired."""
    cells = {cell: i for i, cell in enumerate(counts.cells)}
    pairs, without = [], []
    for language in dict.fromkeys(cell.language for cell in counts.cells):
        indices = [i for cell, i in cells.items() if cell.language == language]  # speech first, as the cells are
        if len(indices) == 2 and np.array_equal(counts.labels[:, indices[0]], counts.labels[:, indices[1]]):
            pairs.append(indices)
        else:
            without.append(language)
    speech, both = (
        replace(
            counts,
            cells=tuple(counts.cells[pair[side]] for pair in pairs),
            counts=counts.counts[:, :, [pair[side] for pair in pairs]],
        )
        for side in (0, 1)
    )
    return speech, both, without


def _paired(counts: ClusterCounts, base: ClusterCounts, resamples: int, seed: int) -> Iterator[dict[str, Any]]:
    draws = bootstrap(base, QUANTITIES, resamples, seed)
    for row in paired_differences(counts, base, draws, resamples, seed):
        yield row | {"n_seeds": len(counts.seeds)}


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str], keys: Sequence[str] = ()) -> pd.DataFrame:
    """Return rows as a table, adjusted over the cells that share ``keys``; text columns keep ``None``."""
    table = pd.DataFrame([dict.fromkeys(columns) | row for row in rows], dtype=object)
    numbers = [name for name in columns if name not in _TEXT_COLUMNS and not name.endswith(("_id", "name", "is_cell"))]
    table = table.assign(p_holm=np.nan).astype(dict.fromkeys(numbers, float))
    table["is_cell"] = table["is_cell"].eq(True)
    return (adjust_over_cells(table, keys) if keys else table)[list(columns)]
