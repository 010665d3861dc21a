"""Predictions of a configuration as confusion counts by cluster, the unit of resampling.

Errors on utterances of the same dialogue or speaker are correlated, so whole clusters are resampled. A resample is a
vector of weights over clusters, and the counts of many resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.loading.study import Study
from study.common.errors import RecordError
from study.common.groups import EMOTIONS, GENDERS, LANGUAGES, MODALITIES, Cell, Gender, cells
from study.evaluation.metrics import ANSWERS, ClassAverage, Counts

ClusterBy = Literal["dialogue", "speaker"]

FEW_CLUSTERS = 10
"""With fewer clusters of a gender than this, no result is generalised to a population of clusters."""

_GENDER_ORDER = (*GENDERS, Gender.UNKNOWN.value)


@dataclass(frozen=True)
class ClusterCounts:
    """Confusion counts of one configuration.

    Attributes:
        cells: the C cells that occur, in the order of :func:`study.common.groups.cells`.
        clusters: names of the U clusters.
        seeds: the S training seeds, in the order of ``counts``.
        counts: (S, U, C, 3, K, P) confusion counts, true by predicted as in :mod:`study.evaluation.metrics`; the axis
            of length 3 is female, male, unknown.
        class_average: how the TPR and FPR gaps of the classes are averaged.
    """

    cells: tuple[Cell, ...]
    clusters: tuple[str, ...]
    seeds: tuple[int, ...]
    counts: Counts
    class_average: ClassAverage = "mean_of_gaps"

    @property
    def labels(self) -> Counts:
        """(U, C, 3, K) utterances by true emotion, the same for every seed."""
        return np.asarray(self.counts[0].sum(-1))

    def of_seeds(self, seeds: Sequence[int]) -> ClusterCounts:
        """Return the counts of these seeds."""
        chosen = self.counts[[self.seeds.index(seed) for seed in seeds]]
        return replace(self, seeds=tuple(seeds), counts=chosen)

    def of_cells(self, chosen: Sequence[Cell]) -> ClusterCounts:
        """Return the counts of these cells; clusters without utterances in them remain, with zero counts."""
        return replace(self, cells=tuple(chosen), counts=self.counts[:, :, [self.cells.index(cell) for cell in chosen]])


def cluster_by(plan: Mapping[str, Any], override: ClusterBy | None = None) -> ClusterBy:
    """Return the unit of resampling of a study: the dialogue for MELD-ST, the speaker for any other corpus.

    In MELD-ST the same six leads speak in nearly every dialogue, so its speakers are not a sample of a population; a
    dialogue is one scene, with its translations. In other corpora utterances are correlated by speaker, and a dialogue
    may be a single clip.

    Args:
        plan: content of ``study.json``; ``spec`` of its corpus decides.
        override: returned if given.

    >>> cluster_by({"corpus": {"spec": "meld-st:/data"}}), cluster_by({"corpus": {"spec": "synthetic"}})
    ('dialogue', 'speaker')
    """
    if override is not None:
        return override
    return "dialogue" if str(plan["corpus"]["spec"]).startswith("meld-st") else "speaker"


def cluster_counts(
    runs: Mapping[int, pd.DataFrame], by: ClusterBy, class_average: ClassAverage = "mean_of_gaps"
) -> ClusterCounts:
    """Count the predictions of one configuration by cluster.

    A cluster is shared by all languages and modalities. An utterance without a dialogue or speaker is its own cluster.

    Args:
        runs: by seed, predictions with the columns ``utterance_id, language, modality, gender, emotion, predicted`` and
            ``by``.
        by: the unit of resampling.
        class_average: passed on to the result.

    Raises:
        ValueError: no runs, or seeds with different utterances.
    """
    if not runs:
        raise ValueError("no runs: nothing to count")
    columns_by = [frame[by].astype(object) for frame in runs.values()]
    names = [
        column.where(column.notna() & (column != ""), frame["utterance_id"])
        for column, frame in zip(columns_by, runs.values(), strict=True)
    ]
    clusters = pd.Index(sorted(set().union(*(set(column) for column in names))))
    axes = (MODALITIES, LANGUAGES, _GENDER_ORDER, EMOTIONS, ANSWERS)
    columns = ("modality", "language", "gender", "emotion", "predicted")
    shape = (len(clusters), *map(len, axes))
    counted, labels = [], []
    for frame, column in zip(runs.values(), names, strict=True):
        codes = [clusters.get_indexer(pd.Index(column))]
        codes += [pd.Index(axis).get_indexer(pd.Index(frame[name])) for name, axis in zip(columns, axes, strict=True)]
        flat = np.ravel_multi_index(tuple(codes), shape)
        counted.append(np.bincount(flat, minlength=int(np.prod(shape))).reshape(len(clusters), -1, *shape[3:]))
        labels.append(counted[-1].sum(-1))
    if any((other != labels[0]).any() for other in labels):
        raise ValueError(f"seeds {', '.join(map(str, runs))} of one configuration have predictions of other utterances")
    occurs = labels[0].sum((0, 2, 3)) > 0
    in_use = tuple(c for c, used in zip(cells(LANGUAGES, MODALITIES), occurs, strict=True) if used)
    counts = np.stack([of_run[:, occurs] for of_run in counted]).astype(np.float64)
    return ClusterCounts(in_use, tuple(map(str, clusters)), tuple(runs), counts, class_average)


def same_utterances(first: ClusterCounts, second: ClusterCounts) -> bool:
    """Check that two configurations can be paired: the same clusters with the same labels in the same cells."""
    same_axes = first.cells == second.cells and first.clusters == second.clusters
    return same_axes and bool(np.array_equal(first.labels, second.labels))


def counts_of(study: Study, config_id: str, split: str, by: ClusterBy) -> ClusterCounts:
    """Return the predictions of every finished seed of a configuration on one split, counted by cluster.

    The counts are computed once per study, configuration, split and ``by``.

    Raises:
        RecordError: predictions cannot be read, or two seeds have predictions of different utterances.
    """
    key = (config_id, split, by)
    if key not in study.cluster_counts:
        runs = {seed: study.predictions(config_id, seed, split) for seed in study.seeds_of(config_id)}
        try:
            counted = cluster_counts(runs, by)
        except ValueError as error:
            rows = ", ".join(f"{len(frame)} of seed {seed}" for seed, frame in runs.items())
            raise RecordError(
                f"{study.folder.path('runs', config_id)}/*/predictions.parquet: {error} ({split} rows: {rows}). Delete "
                "finished.json of the incomplete seed and start the study again: it repeats this run only."
            ) from error
        # an eighth of the memory of floats; a cluster has fewer than 65,536 utterances in a cell
        study.cluster_counts[key] = (counted.cells, counted.clusters, counted.seeds, counted.counts.astype(np.uint16))
    in_use, clusters, seeds, counts = study.cluster_counts[key]
    return ClusterCounts(in_use, clusters, seeds, counts.astype(np.float64), study.class_average)
