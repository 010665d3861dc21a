"""Every configuration against a reference, paired.

Differences are paired: the same utterances, and the training seeds that both configurations have finished. What a
row estimates depends on its ``kind``, over the population of clusters and of training seeds:

level
    W-F1 of all, of women or of men: configuration minus reference.
signed gap
    The change of the *size* of a gap: sign(reference gap) * (gap - reference gap), female minus male; below 0 the gap
    shrinks. The sign is that of the reference's gap in the same predictions, or of the other's where that is exactly
    0. So the interval can contain 0, and it contains 0 exactly when that of the plain difference of gaps does: the
    two-sided test is the one of equal gaps, however the sign falls. Where the reference's true gap is near 0 its sign
    is chance, and the estimate leans below 0. A gap may also pass 0 and grow on the other side: it is called smaller
    only where the 95 % interval of the sum of the two gaps, in the reference's direction, is above 0 as well. A mean
    over cells is of signed gaps, so opposite gaps cancel in it.
absolute gap
    An absolute gap or AVG: configuration minus reference. No interval; the p value is of paired swaps
    (:func:`analysis.stats.permutation.permuted_differences`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison.verdict import (
    NOT_SIGNIFICANT,
    TOO_FEW_CLUSTERS,
    absolute_gap_verdict,
    level_verdict,
    signed_gap_verdict,
)
from analysis.loading.study import ERM, SPLITS, Study
from analysis.stats.bootstrap import ALPHA, Draws, Interval, bootstrap, holm, interval
from analysis.stats.cluster_counts import (
    ABSOLUTE,
    FEW_CLUSTERS,
    LEVELS,
    SIGNED,
    ClusterBy,
    ClusterCounts,
    cluster_by,
    counts_of,
    same_utterances,
    scopes,
)
from analysis.stats.permutation import permutation_test, permuted_differences
from study.common.errors import RecordError
from study.common.groups import GENDERS

QUANTITIES = {
    "w_f1": "W-F1",
    "w_f1_female": "W-F1 of women",
    "w_f1_male": "W-F1 of men",
    "signed_tpr": "TPR gap",
    "signed_fpr": "FPR gap",
    "signed_w_f1": "W-F1 gap",
    "signed_accuracy": "ACC gap",
    "standardised_fpr": "FPR gap, common priors",
    "standardised_w_f1": "W-F1 gap, common priors",
    "standardised_accuracy": "ACC gap, common priors",
    "absolute_tpr": "|TPR gap|",
    "absolute_fpr": "|FPR gap|",
    "absolute_w_f1": "|W-F1 gap|",
    "absolute_accuracy": "|ACC gap|",
    "avg": "AVG gap",
}
KINDS = {
    **dict.fromkeys(LEVELS, "level"), **dict.fromkeys(SIGNED, "signed gap"), **dict.fromkeys(ABSOLUTE, "absolute gap")
}  # fmt: skip
COLUMNS = (
    "config_id", "name", "n_seeds", "scope", "is_cell", "quantity", "kind", "n_female", "n_male", "clusters",
    "reference", "reference_low", "reference_high", "value", "value_low", "value_high",
    "difference", "low", "high", "null_range", "p", "p_holm", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Configurations against a reference on one split.

    Attributes:
        reference: its name.
        split: "dev" or "test".
        by: "dialogue" or "speaker", what was resampled.
        resamples: how many.
        table: one row a (configuration, scope, quantity), with ``COLUMNS``. Figures are fractions: ``reference`` and
            ``value`` are means over the seeds in common (``n_seeds``), ``difference`` is as the module says, ``low``
            and ``high`` its 95 % interval, cut to what the figure can be, for an absolute gap NaN and instead
            ``null_range``, the size that 95 % of paired swaps stay within, at most 1; ``reference_low`` and so on are
            intervals of the figures themselves; ``p_holm`` the p value adjusted over the cells of the same
            configuration and quantity (NaN for a mean over cells). ``n_female, n_male`` are utterances and ``clusters``
            those that hold the rarer gender (for W-F1, any utterance or that gender), of the cell that has fewest among
            those whose figure is defined. ``verdict`` is a word or two: by ``p_holm``, of a mean over cells by ``p``,
            and "too few clusters" under ten clusters.
        notes: what a reader must know, one sentence each.
        over_arms: whether the widest scope has a ``p_holm`` as well (:func:`analysis.comparison.arms.adjusted`).
    """

    reference: str
    split: str
    by: ClusterBy
    resamples: int
    table: pd.DataFrame
    notes: tuple[str, ...]
    over_arms: bool = False

    @property
    def overall(self) -> str:
        """The widest scope: the mean over all cells, or the only cell."""
        return str(self.table["scope"].unique()[-1])


def compare(
    study: Study,
    reference: str = ERM,
    split: str = "dev",
    by: ClusterBy | None = None,
    resamples: int = 2000,
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> Comparison:
    """Compare configurations of a study with one of them.

    Args:
        reference: the label, name or config_id of the reference.
        split: "dev" or "test".
        by: what is resampled as a whole; by default what suits the corpus
        (:func:`analysis.stats.cluster_counts.cluster_by`). resamples, seed: of the bootstrap and of the swaps.
        only: config_ids of what is compared; by default every other configuration.

    Raises:
        RecordError: no such reference, its predictions cannot be read, or nothing to compare it with. A configuration
            that cannot be compared (its predictions cannot be read, are of other utterances or of no seed in common)
            is left out, and a note says so.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {' or '.join(SPLITS)}, not {split!r}")
    known = find(study, reference)
    by = cluster_by(study.plan, by)
    base = counts_of(study, str(known["config_id"]), split, by)
    base_draws = bootstrap(base, (*LEVELS, *SIGNED, *ABSOLUTE), resamples, seed)
    rows: list[dict[str, Any]] = []
    notes = []
    for other in study.configurations.to_dict("records"):
        if other["config_id"] == known["config_id"] or (only is not None and other["config_id"] not in only):
            continue
        try:
            counts = counts_of(study, str(other["config_id"]), split, by)
        except RecordError as error:
            notes.append(f"{other['name']} is left out: {error}")
            continue
        seeds = sorted(set(counts.seeds) & set(base.seeds))
        if not seeds:
            notes.append(f"{other['name']} has no finished seed in common with {known['name']} and is left out.")
            continue
        against, against_draws = base, base_draws
        if counts.cells != base.cells:
            heard = " and ".join(sorted({cell.modality for cell in counts.cells}))
            if not set(counts.cells) < set(base.cells):
                notes.append(
                    f"{other['name']} heard {heard}, unlike {known['name']}: take a reference that heard the same."
                )
                continue
            notes.append(f"{other['name']} heard {heard} only: compared with {known['name']} there, cell by cell.")
            against = base.of_cells(counts.cells)
            against_draws = bootstrap(against, base_draws.names, resamples, seed)
        if not same_utterances(counts, against):
            notes.append(
                f"{other['name']} is left out: {other['name']} and {known['name']} have {split} predictions of other "
                f"utterances; see predictions.parquet in {study.folder.path('runs', str(other['config_id']))}."
            )
            continue
        row = {key: other[key] for key in ("config_id", "name")} | {"n_seeds": len(seeds)}
        paired = paired_differences(counts.of_seeds(seeds), against.of_seeds(seeds), against_draws, resamples, seed)
        rows += [row | made for made in paired]
    if not rows:
        raise RecordError(f"{study.folder.uri} has no configuration to compare with {known['name']}. {' '.join(notes)}")
    table = over_cells(pd.DataFrame(rows), ["config_id", "quantity"])
    return Comparison(
        reference=str(known["name"]),
        split=split,
        by=by,
        resamples=resamples,
        table=table[list(COLUMNS)],
        notes=tuple([*notes, *_notes(table, by), *study.notes]),
    )


def paired_differences(
    counts: ClusterCounts, base: ClusterCounts, base_draws: Draws, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """What two sets of predictions of the same utterances differ by, one row a (scope, quantity).

    Args:
        counts, base: paired (:func:`analysis.stats.cluster_counts.same_utterances`), with the same seeds.
        base_draws: ``bootstrap(base, quantities, resamples, seed)``, of these seeds or more; its quantities are those
            compared.

    Yields:
        ``COLUMNS``, without the name of a configuration and without ``p_holm``; ``verdict`` goes by ``p``.
    """
    draws = bootstrap(counts, base_draws.names, resamples, seed)
    asked = {quantity: kind for quantity, kind in KINDS.items() if quantity in base_draws.names}
    absolute = [quantity for quantity, kind in asked.items() if kind == "absolute gap"]
    swaps = permuted_differences(counts, base, resamples, seed, absolute)
    rng = np.random.default_rng([seed, 1])
    sizes = counts.labels[:, :, :2].sum((0, -1)).astype(int)  # (C, 2)
    for scope, members in scopes(counts.cells).items():
        row = {"scope": scope, "is_cell": len(members) == 1}
        for quantity, kind in asked.items():
            points, resampled = draws.of(quantity, members)
            base_points, base_resampled = base_draws.of(quantity, members, counts.seeds)
            value, reference = float(points.mean()), float(base_points.mean())
            if np.isnan(value) or np.isnan(reference):
                continue
            # the size of a gap changes along its own direction; one of exactly 0 can only grow, along the other's
            sign = (np.sign(reference) or np.sign(value) or 1.0) if kind == "signed gap" else 1.0
            least = -1.0 if kind == "signed gap" else 0.0
            clusters, used = draws.clusters(quantity, members), draws.used(quantity, members)
            made = interval(sign * (points - base_points), sign * (resampled - base_resampled), clusters)
            made = made.within(least - 1.0, 1.0 - least)
            found = {"difference": made.estimate, "low": made.low, "high": made.high, "null_range": np.nan, "p": made.p}
            own, of_base = (
                interval(*each, clusters).within(least, 1.0)
                for each in ((points, resampled), (base_points, base_resampled))
            )
            found |= {"value_low": own.low, "value_high": own.high}
            found |= {"reference_low": of_base.low, "reference_high": of_base.high}
            if kind == "absolute gap":
                permutation = swaps[:, used, absolute.index(quantity)].mean(-1)
                p, null_range = permutation_test(made.estimate, permutation, made.seeds, rng)
                found |= {name: np.nan for name in found if name.endswith(("low", "high"))} | {
                    "p": p,
                    "null_range": min(null_range, 1.0),
                }
            remaining = interval(sign * points, sign * resampled, clusters)
            total = interval(sign * (points + base_points), sign * (resampled + base_resampled), clusters)
            found |= {"reference": reference, "value": value}
            verdict = _verdict(kind, sign, found, remaining, total) if clusters >= FEW_CLUSTERS else TOO_FEW_CLUSTERS
            yield {
                **row, **{f"n_{gender}": int(n) for gender, n in zip(GENDERS, sizes[used].min(0), strict=True)},
                "quantity": quantity, "kind": kind, "clusters": clusters,
                **found, "verdict": verdict,
            }  # fmt: skip


def over_cells(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The table with ``p_holm``, by which ``verdict`` goes: ``p`` adjusted over the cells that share ``keys``.

    A mean over cells has none (NaN) and keeps its word.
    """
    return by_holm(table.assign(p_holm=np.nan), table[table["is_cell"]].groupby(list(keys), sort=False))


def by_holm(table: pd.DataFrame, families: Iterable[tuple[Any, pd.DataFrame]]) -> pd.DataFrame:
    """The table with ``p`` adjusted over the rows of each family; of these, ``verdict`` goes by ``p_holm``.

    Args:
        families: groups of rows of the table, as ``groupby`` gives them.
    """
    table = table.copy()
    for _, rows in families:
        adjusted = holm(rows["p"])
        table.loc[rows.index, "p_holm"] = adjusted
        table.loc[rows.index[(adjusted >= ALPHA) & (rows["verdict"] != TOO_FEW_CLUSTERS)], "verdict"] = NOT_SIGNIFICANT
    return table


def find(study: Study, reference: str) -> pd.Series:
    """The configuration of this label, name or config_id.

    Raises:
        RecordError: there is none; the message lists the names.
    """
    rows = study.configurations
    for column in ("label", "name", "config_id"):
        found = rows[rows[column] == reference]
        if not found.empty:
            return found.iloc[0]
    raise RecordError(
        f"{study.folder.uri} has no finished configuration {reference!r}; it has {'; '.join(rows['name']) or 'none'}."
    )


def _verdict(kind: str, sign: float, row: Mapping[str, float], remaining: Interval, total: Interval) -> str:
    if kind == "level":
        return level_verdict(row["difference"], row["p"])
    if kind == "absolute gap":
        return absolute_gap_verdict(row["difference"], row["p"])
    return signed_gap_verdict(sign * row["reference"], row["difference"], row["p"], remaining, total)


def _notes(table: pd.DataFrame, by: ClusterBy) -> list[str]:
    notes = []
    fewest = int(table["clusters"].min())
    if fewest < FEW_CLUSTERS:
        notes.append(
            f"A gender of one cell has only {fewest} {by}s: too few for a claim about a population of {by}s there."
        )
    if int(table["n_seeds"].min()) == 1:
        notes.append("With one seed an interval is of these trained models, not of the methods.")
    return notes
