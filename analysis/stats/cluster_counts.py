"""Predictions as confusion counts by cluster: what every resample is made of.

Utterances of one dialogue, or of one speaker, resemble each other, so whole clusters are resampled, never utterances.
A resample is then a vector of weights over clusters, and a thousand resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.loading.study import Study
from study.common.errors import RecordError
from study.common.groups import EMOTIONS, GENDERS, LANGUAGES, MODALITIES, Cell, Gender, cells
from study.evaluation.metrics import (
    ANSWERS,
    GAP_KINDS,
    ClassAverage,
    Counts,
    signed_and_absolute_gaps,
    standardised,
    weighted_f1,
)

ClusterBy = Literal["dialogue", "speaker"]

FEW_CLUSTERS = 10
"""Below this many clusters with a gender in it, nothing is claimed about a population of them."""

LEVELS = ("w_f1", "w_f1_female", "w_f1_male")
SIGNED = (*(f"signed_{kind}" for kind in GAP_KINDS), *(f"standardised_{kind}" for kind in ("fpr", "w_f1", "accuracy")))
ABSOLUTE = (*(f"absolute_{kind}" for kind in GAP_KINDS), "avg")
_GENDER_ORDER = (*GENDERS, Gender.UNKNOWN.value)
_CHUNK = 200  # resamples at a time: what a figure needs then stays in the cache


@dataclass(frozen=True)
class ClusterCounts:
    """The predictions of one configuration.

    Attributes:
        cells: the C cells that occur, in the order of :func:`study.common.groups.cells`.
        clusters: the U names.
        seeds: the S seeds, in the order of ``counts``.
        counts: (S, U, C, 3, K, P), true by predicted as in :mod:`study.evaluation.metrics`; the fourth axis is female,
        male,
            unknown.
        class_average: how the classes' TPR and FPR gaps become one number in its figures.
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
        """The same predictions of these seeds only."""
        chosen = self.counts[[self.seeds.index(seed) for seed in seeds]]
        return replace(self, seeds=tuple(seeds), counts=chosen)

    def of_cells(self, chosen: Sequence[Cell]) -> ClusterCounts:
        """The same predictions of these cells only; clusters that do not occur in them stay, empty."""
        return replace(self, cells=tuple(chosen), counts=self.counts[:, :, [self.cells.index(cell) for cell in chosen]])


def cluster_by(plan: Mapping[str, Any], override: ClusterBy | None = None) -> ClusterBy:
    """What is resampled as a whole in a study: dialogues of MELD-ST, speakers of any other corpus.

    MELD-ST has the same few leads in nearly every dialogue, so its speakers are no sample of anything, and a dialogue
    is one scene, in every language at once. Elsewhere utterances of one voice are what resembles each other, and a
    dialogue may be a single clip.

    Args:
        plan: ``study.json``; its corpus's ``spec`` decides.
        override: what to take instead.

    >>> cluster_by({"corpus": {"spec": "meld-st:/data"}}), cluster_by({"corpus": {"spec": "embedded"}})
    ('dialogue', 'speaker')
    """
    if override is not None:
        return override
    return "dialogue" if str(plan["corpus"]["spec"]).startswith("meld-st") else "speaker"


def cluster_counts(
    runs: Mapping[int, pd.DataFrame], by: ClusterBy, class_average: ClassAverage = "mean_of_gaps"
) -> ClusterCounts:
    """Count the predictions of one configuration by cluster.

    A cluster is the same one in every language and modality. An utterance without a cluster is one of its own.

    Args:
        runs: by seed, predictions with ``utterance_id, language, modality, gender, emotion, predicted`` and the
            column ``by``.
        class_average: of the figures to come.

    Raises:
        ValueError: no runs, or seeds with different utterances.
    """
    if not runs:
        raise ValueError("no runs: nothing to count")
    names, coded, shapes = [], [], []
    for frame in runs.values():
        names.append(frame[by].astype(object).where(frame[by].notna() & (frame[by] != ""), frame["utterance_id"]))
    clusters = pd.Index(sorted(set().union(*(set(column) for column in names))))
    axes = (MODALITIES, LANGUAGES, _GENDER_ORDER, EMOTIONS, ANSWERS)
    columns = ("modality", "language", "gender", "emotion", "predicted")
    shape = (len(clusters), *map(len, axes))
    for frame, column in zip(runs.values(), names, strict=True):
        codes = [clusters.get_indexer(pd.Index(column))]
        codes += [pd.Index(words).get_indexer(pd.Index(frame[name])) for name, words in zip(columns, axes, strict=True)]
        flat = np.ravel_multi_index(tuple(codes), shape)
        coded.append(np.bincount(flat, minlength=int(np.prod(shape))).reshape(len(clusters), -1, *shape[3:]))
        shapes.append(coded[-1].sum(-1))
    if any((other != shapes[0]).any() for other in shapes):
        raise ValueError(f"seeds {', '.join(map(str, runs))} of one configuration have predictions of other utterances")
    occurs = shapes[0].sum((0, 2, 3)) > 0
    in_use = tuple(c for c, used in zip(cells(LANGUAGES, MODALITIES), occurs, strict=True) if used)
    counts = np.stack([of_run[:, occurs] for of_run in coded]).astype(np.float64)
    return ClusterCounts(in_use, tuple(map(str, clusters)), tuple(runs), counts, class_average)


def same_utterances(first: ClusterCounts, second: ClusterCounts) -> bool:
    """Whether two configurations can be paired: the same clusters with the same labels in the same cells."""
    alike = first.cells == second.cells and first.clusters == second.clusters
    return alike and bool(np.array_equal(first.labels, second.labels))


def scopes(in_use: Sequence[Cell]) -> dict[str, tuple[int, ...]]:
    """What figures are asked of: each cell, and unweighted means over cells, by name as indices of cells.

    With several modalities, a language is the mean over them; with several languages, ``multilingual/<modality>`` is
    the mean over them; ``all`` is the mean over every cell, where there are several.

    >>> scopes([Cell("en", "speech"), Cell("de", "speech")])
    {'en/speech': (0,), 'de/speech': (1,), 'multilingual/speech': (0, 1)}
    """
    found: dict[str, tuple[int, ...]] = {str(cell): (i,) for i, cell in enumerate(in_use)}
    languages, modalities = ({cell[axis] for cell in in_use} for axis in (0, 1))
    if len(modalities) > 1:
        for language in (word for word in LANGUAGES if word in languages):
            found[language] = tuple(i for i, cell in enumerate(in_use) if cell.language == language)
    if len(languages) > 1:
        for modality in (word for word in MODALITIES if word in modalities):
            found[f"multilingual/{modality}"] = tuple(i for i, cell in enumerate(in_use) if cell.modality == modality)
        if len(modalities) > 1:
            found["all"] = tuple(range(len(in_use)))
    return found


def figures(
    counts: Counts,
    which: Sequence[str] = (*LEVELS, *SIGNED, *ABSOLUTE),
    class_average: ClassAverage = "mean_of_gaps",
) -> dict[str, Counts]:
    """Every figure that is compared, of confusion counts by cell and gender.

    Args:
        counts: (..., 3, K, P); the third axis from the end is female, male, unknown.
        which: names of ``LEVELS`` (``w_f1`` is of all utterances, the others of women and of men), ``SIGNED`` gaps
            (female minus male; ``standardised_`` at common class priors, where TPR is as it was) and ``ABSOLUTE``
            ones (``avg`` is the mean of the four).
        class_average: see :func:`study.evaluation.metrics.signed_and_absolute_gaps`; the signed gaps are the same
        either way.

    Returns:
        By name, (...,) fractions, NaN where a figure is undefined.
    """
    out: dict[str, Counts] = {}
    female, male = counts[..., 0, :, :], counts[..., 1, :, :]
    parts = {"w_f1_female": female, "w_f1_male": male}
    if "w_f1" in which:
        parts["w_f1"] = counts.sum(-3)
    for name, part in parts.items():
        if name in which:
            out[name] = np.where(part.sum((-2, -1)) > 0, weighted_f1(part), np.nan)
    if any(name in ABSOLUTE or name.startswith("signed_") for name in which):
        signed, absolute = signed_and_absolute_gaps(female, male, class_average)
        out |= {f"signed_{kind}": gap for kind, gap in signed.items()}
        out |= {f"absolute_{kind}": gap for kind, gap in absolute.items()}
        out["avg"] = np.asarray(np.mean([absolute[kind] for kind in GAP_KINDS], axis=0))
    if any(name.startswith("standardised_") for name in which):
        signed, _ = signed_and_absolute_gaps(*standardised(female, male))
        out |= {f"standardised_{kind}": gap for kind, gap in signed.items()}
    return {name: out[name] for name in which}


def weighted(weights: NDArray[np.float64], counts: Counts) -> Iterator[tuple[slice, Counts]]:
    """Counts of many resamples, a few at a time.

    Args:
        weights: (B, U), how often each cluster is drawn.
        counts: (U, ...).

    Yields:
        Which of the B resamples, and their (b, ...) counts.
    """
    flat = counts.reshape(len(counts), -1)
    occurs = flat.any(0)  # most confusions never do
    dense = flat[:, occurs]
    for start in range(0, len(weights), _CHUNK):
        chosen = slice(start, min(start + _CHUNK, len(weights)))
        made = np.zeros((chosen.stop - start, flat.shape[1]))
        made[:, occurs] = weights[chosen] @ dense
        yield chosen, made.reshape(-1, *counts.shape[1:])


def drawn_figures(
    weights: NDArray[np.float64], counts: Counts, which: Sequence[str], class_average: ClassAverage = "mean_of_gaps"
) -> Counts:
    """The figures of every resample of one run; (B, U) weights and (U, C, 3, K, P) counts to (B, C, len(which))."""
    out = np.empty((len(weights), counts.shape[1], len(which)))
    for chosen, resampled in weighted(weights, counts):
        made = figures(resampled, which, class_average)
        out[chosen] = np.stack([made[name] for name in which], axis=-1)
    return out


def fewest_clusters(labels: Counts, members: Sequence[int]) -> int:
    """Clusters that hold the rarer gender, in the cell that has fewest; (U, C, 3, K) labels and indices of cells."""
    return int((labels[:, list(members), :2].sum(-1) > 0).sum(0).min())


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
            made = cluster_counts(runs, by)
        except ValueError as error:
            rows = ", ".join(f"{len(frame)} of seed {seed}" for seed, frame in runs.items())
            raise RecordError(
                f"{study.folder.path('runs', config_id)}/*/predictions.parquet: {error} ({split} rows: {rows}). Delete "
                "finished.json of the seed that is not whole and start the study again: it redoes this run alone."
            ) from error
        # an eighth of the memory of floats; a cluster has fewer than 65,536 utterances in a cell
        study.cluster_counts[key] = (made.cells, made.clusters, made.seeds, made.counts.astype(np.uint16))
    in_use, clusters, seeds, counts = study.cluster_counts[key]
    return ClusterCounts(in_use, clusters, seeds, counts.astype(np.float64), study.class_average)
