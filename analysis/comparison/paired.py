"""Paired comparison of every configuration of a study with a reference configuration.

Differences are paired over utterances and over the training seeds that both configurations have finished. The
population is that of clusters (dialogues or speakers) and training seeds. The estimand depends on the ``kind`` of a
row:

level
    W-F1 of all utterances, of women or of men: configuration minus reference.
signed gap
    The change of the gap in the direction of the reference's gap: sign(reference gap) * (gap − reference gap), where a
    gap is female minus male. It is negative if the gap moves against that direction. The sign is that of the observed
    reference gap, or that of the configuration's gap if the former is exactly 0. The interval contains 0 if and only if
    the interval of the plain difference of gaps does, so the two-sided test is the test of equal gaps whatever the
    sign. If the true reference gap is near 0, its observed sign is random and the estimate is biased below 0. A gap may
    also reverse and grow in the opposite direction; :func:`analysis.comparison.verdict.signed_gap_verdict` tells the
    cases apart. A mean over cells is the mean of signed gaps, so opposite gaps cancel in it.
absolute gap
    An absolute gap or AVG: configuration minus reference. It has no interval; its p value is that of the paired
    permutation test (:func:`analysis.stats.permutation.permuted_differences`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.comparison.verdict import (
    NOT_SIGNIFICANT,
    TOO_FEW_CLUSTERS,
    absolute_gap_verdict,
    level_verdict,
    signed_gap_verdict,
)
from analysis.constants import ERM, SPLITS
from analysis.loading.study import Study
from analysis.stats.bootstrap import ALPHA, Draws, bootstrap, holm, interval
from analysis.stats.cluster_counts import (
    FEW_CLUSTERS,
    ClusterBy,
    ClusterCounts,
    cluster_by,
    counts_of,
    same_utterances,
)
from analysis.stats.figures import ABSOLUTE, LEVELS, SIGNED, scopes
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
    """Configurations compared with a reference on one split.

    Attributes:
        reference: its name.
        split: "dev" or "test".
        by: unit of resampling.
        resamples: number of resamples and of permutations.
        table: one row per (configuration, scope, quantity), with ``COLUMNS``. Figures are fractions. ``reference`` and
            ``value`` are means over the ``n_seeds`` common seeds. ``difference`` is defined in the module docstring,
            ``low`` and ``high`` are its 95 % interval, clipped to the range of the figure. For an absolute gap these
            are NaN and ``null_range`` is the half width of the 95 % range of the paired permutation null, at most 1.
            ``reference_low`` and so on are intervals of the figures themselves. ``p_holm`` is p adjusted over the cells
            of the same configuration and quantity (NaN for a mean over cells). ``n_female`` and ``n_male`` count
            utterances and ``clusters`` counts clusters with the rarer gender (for W-F1, with any utterance or with that
            gender), each the smallest over the cells in which the figure is defined. ``verdict`` rests on ``p_holm``
            for a cell and on ``p`` for a mean over cells; with fewer than ten clusters it is "too few clusters".
        notes: caveats, one sentence each.
        over_arms: whether rows of the widest scope are adjusted over arms (:func:`analysis.comparison.arms.adjusted`).
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
    """Compare configurations of a study with a reference configuration.

    A configuration that cannot be compared (unreadable predictions, other utterances, no common seed) is left out, with
    a note. One that was evaluated on some of the reference's modalities is compared on these.

    Args:
        study: with finished runs.
        reference: label, name or config_id of the reference.
        split: "dev" or "test".
        by: unit of resampling; by default that of the corpus (:func:`analysis.stats.cluster_counts.cluster_by`).
        resamples, seed: of the bootstrap and of the permutations.
        only: config_ids to compare; by default every other configuration.

    Raises:
        RecordError: the reference does not exist or its predictions cannot be read, or no configuration can be
            compared.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be {' or '.join(SPLITS)}, not {split!r}")
    base_row = find_configuration(study, reference)
    by = cluster_by(study.plan, by)
    base = counts_of(study, str(base_row["config_id"]), split, by)
    base_draws = bootstrap(base, (*LEVELS, *SIGNED, *ABSOLUTE), resamples, seed)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for other in study.configurations.to_dict("records"):
        if other["config_id"] == base_row["config_id"] or (only is not None and other["config_id"] not in only):
            continue
        try:
            counts = counts_of(study, str(other["config_id"]), split, by)
        except RecordError as error:
            notes.append(f"{other['name']} is left out: {error}")
            continue
        seeds = sorted(set(counts.seeds) & set(base.seeds))
        if not seeds:
            notes.append(f"{other['name']} is left out: it has no finished seed in common with {base_row['name']}.")
            continue
        against, against_draws = base, base_draws
        if counts.cells != base.cells:
            modalities = " and ".join(sorted({cell.modality for cell in counts.cells}))
            if not set(counts.cells) < set(base.cells):
                notes.append(
                    f"{other['name']} is left out: it was evaluated on {modalities}, unlike {base_row['name']}. "
                    "Compare it with a reference of the same modalities."
                )
                continue
            notes.append(
                f"{other['name']} was evaluated on {modalities} only and is compared with {base_row['name']} there."
            )
            against = base.of_cells(counts.cells)
            against_draws = bootstrap(against, base_draws.names, resamples, seed)
        if not same_utterances(counts, against):
            notes.append(
                f"{other['name']} is left out: {other['name']} and {base_row['name']} have {split} predictions of "
                f"different utterances; see predictions.parquet in "
                f"{study.folder.path('runs', str(other['config_id']))}."
            )
            continue
        row = {key: other[key] for key in ("config_id", "name")} | {"n_seeds": len(seeds)}
        paired = paired_differences(counts.of_seeds(seeds), against.of_seeds(seeds), against_draws, resamples, seed)
        rows += [row | difference for difference in paired]
    if not rows:
        raise RecordError(
            f"{study.folder.uri} has no configuration to compare with {base_row['name']}. {' '.join(notes)}"
        )
    table = adjust_over_cells(pd.DataFrame(rows), ["config_id", "quantity"])
    return Comparison(
        reference=str(base_row["name"]),
        split=split,
        by=by,
        resamples=resamples,
        table=table[list(COLUMNS)],
        notes=tuple([*notes, *_notes(table, by), *study.notes]),
    )


def paired_differences(
    counts: ClusterCounts, base: ClusterCounts, base_draws: Draws, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the differences between two sets of predictions of the same utterances, one row per (scope, quantity).

    Args:
        counts, base: paired (:func:`analysis.stats.cluster_counts.same_utterances`), with the same seeds.
        base_draws: ``bootstrap(base, quantities, resamples, seed)``, of these seeds or more; its quantities are
            compared.
        resamples, seed: of the bootstrap and of the permutations.

    Yields:
        ``COLUMNS`` without those of the configuration and without ``p_holm``; ``verdict`` rests on ``p``.
    """
    draws = bootstrap(counts, base_draws.names, resamples, seed)
    kinds = {quantity: kind for quantity, kind in KINDS.items() if quantity in base_draws.names}
    absolute = [quantity for quantity, kind in kinds.items() if kind == "absolute gap"]
    null = permuted_differences(counts, base, resamples, seed, absolute)
    rng = np.random.default_rng([seed, 1])
    sizes = counts.labels[:, :, :2].sum((0, -1)).astype(int)  # (C, 2)
    for scope, members in scopes(counts.cells).items():
        for quantity, kind in kinds.items():
            pair = _Pair(*draws.of(quantity, members), *base_draws.of(quantity, members, counts.seeds))
            if pair.is_undefined:
                continue
            used, clusters = draws.used(quantity, members), draws.clusters(quantity, members)
            row: dict[str, Any] = {"scope": scope, "is_cell": len(members) == 1, "quantity": quantity, "kind": kind}
            row |= {f"n_{gender}": int(n) for gender, n in zip(GENDERS, sizes[used].min(0), strict=True)}
            row |= {"clusters": clusters}
            if kind == "absolute gap":
                row |= pair.absolute_gap(null[:, used, absolute.index(quantity)].mean(-1), clusters, rng)
            elif kind == "signed gap":
                row |= pair.signed_gap(clusters)
            else:
                row |= pair.level(clusters)
            yield row if clusters >= FEW_CLUSTERS else row | {"verdict": TOO_FEW_CLUSTERS}


@dataclass(frozen=True)
class _Pair:
    """One quantity of two configurations: (S,) values of S seeds and (S, B) paired resamples of each."""

    points: NDArray[np.float64]
    draws: NDArray[np.float64]
    base_points: NDArray[np.float64]
    base_draws: NDArray[np.float64]

    @property
    def is_undefined(self) -> bool:
        return bool(np.isnan(self.points.mean()) or np.isnan(self.base_points.mean()))

    def level(self, clusters: int) -> dict[str, Any]:
        row = self._estimates(clusters, 1.0, 0.0)
        return row | {"verdict": level_verdict(row["difference"], row["p"])}

    def signed_gap(self, clusters: int) -> dict[str, Any]:
        # the direction of the reference's gap; if that is exactly 0, the direction in which the other one is larger
        sign = float(np.sign(self.base_points.mean()) or np.sign(self.points.mean()) or 1.0)
        row = self._estimates(clusters, sign, -1.0)
        remaining = interval(sign * self.points, sign * self.draws, clusters)
        both = self.points + self.base_points, self.draws + self.base_draws
        total = interval(sign * both[0], sign * both[1], clusters)
        verdict = signed_gap_verdict(sign * row["reference"], row["difference"], row["p"], remaining, total)
        return row | {"verdict": verdict}

    def absolute_gap(self, null: NDArray[np.float64], clusters: int, rng: np.random.Generator) -> dict[str, Any]:
        row = self._estimates(clusters, 1.0, 0.0)
        spread = interval(self.points - self.base_points, self.draws - self.base_draws, clusters).seeds
        p, null_range = permutation_test(row["difference"], null, spread, rng)
        row |= {name: np.nan for name in row if name.endswith(("low", "high"))}
        verdict = absolute_gap_verdict(row["difference"], p)
        return row | {"p": p, "null_range": min(null_range, 1.0), "verdict": verdict}

    def _estimates(self, clusters: int, sign: float, least: float) -> dict[str, Any]:
        """Return estimates with intervals; figures lie between ``least`` and 1."""
        difference = interval(sign * (self.points - self.base_points), sign * (self.draws - self.base_draws), clusters)
        difference = difference.within(least - 1.0, 1.0 - least)
        value = interval(self.points, self.draws, clusters).within(least, 1.0)
        reference = interval(self.base_points, self.base_draws, clusters).within(least, 1.0)
        return {
            "reference": reference.estimate, "reference_low": reference.low, "reference_high": reference.high,
            "value": value.estimate, "value_low": value.low, "value_high": value.high,
            "difference": difference.estimate, "low": difference.low, "high": difference.high,
            "null_range": np.nan, "p": difference.p,
        }  # fmt: skip


def adjust_over_cells(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the table with ``p_holm``: ``p`` adjusted over the cells that share ``keys``; their verdict rests on it.

    ``p_holm`` of a mean over cells is NaN, and its verdict stays.
    """
    return adjust_by_holm(table.assign(p_holm=np.nan), table[table["is_cell"]].groupby(list(keys), sort=False))


def adjust_by_holm(table: pd.DataFrame, families: Iterable[tuple[Any, pd.DataFrame]]) -> pd.DataFrame:
    """Return the table with ``p_holm`` of the rows of each family; their verdict rests on it.

    Args:
        table: with ``p``, ``p_holm`` and ``verdict``.
        families: groups of rows of the table, as ``groupby`` yields them.
    """
    table = table.copy()
    for _, rows in families:
        p_holm = holm(rows["p"])
        table.loc[rows.index, "p_holm"] = p_holm
        table.loc[rows.index[(p_holm >= ALPHA) & (rows["verdict"] != TOO_FEW_CLUSTERS)], "verdict"] = NOT_SIGNIFICANT
    return table


def find_configuration(study: Study, reference: str) -> pd.Series:
    """Return the configuration with this label, name or config_id.

    Raises:
        RecordError: there is none; the message lists the names.
    """
    rows = study.configurations
    for column in ("label", "name", "config_id"):
        matches = rows[rows[column] == reference]
        if not matches.empty:
            return matches.iloc[0]
    raise RecordError(
        f"{study.folder.uri} has no finished configuration {reference!r}; it has {'; '.join(rows['name']) or 'none'}."
    )


def _notes(table: pd.DataFrame, by: ClusterBy) -> list[str]:
    notes = []
    fewest = int(table["clusters"].min())
    if fewest < FEW_CLUSTERS:
        notes.append(f"A gender of one cell has only {fewest} {by}s: too few to generalise to other {by}s there.")
    if int(table["n_seeds"].min()) == 1:
        notes.append("With one seed an interval concerns these trained models, not the training methods.")
    return notes
