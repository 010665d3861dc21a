"""Figures of confusion counts: W-F1, signed and absolute gaps, of the data and of resamples.

Axes: C cells (language, modality); 3 genders (female, male, unknown); K true emotions; P answers (the emotions and
"invalid"); U clusters; B resamples. All figures are fractions. A gap is female minus male.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from study.common.groups import LANGUAGES, MODALITIES, Cell
from study.evaluation.metrics import (
    GAP_KINDS,
    ClassAverage,
    Counts,
    signed_and_absolute_gaps,
    standardised,
    weighted_f1,
)

LEVELS = ("w_f1", "w_f1_female", "w_f1_male")
SIGNED = (*(f"signed_{kind}" for kind in GAP_KINDS), *(f"standardised_{kind}" for kind in ("fpr", "w_f1", "accuracy")))
ABSOLUTE = (*(f"absolute_{kind}" for kind in GAP_KINDS), "avg")
_CHUNK = 200  # resamples per matrix product: their counts then fit into the processor cache


def figures(
    counts: Counts,
    which: Sequence[str] = (*LEVELS, *SIGNED, *ABSOLUTE),
    class_average: ClassAverage = "mean_of_gaps",
) -> dict[str, Counts]:
    """Compute figures from confusion counts.

    Args:
        counts: (..., 3, K, P) confusion counts.
        which: names among ``LEVELS`` (W-F1 of all utterances, of women, of men), ``SIGNED`` gaps (``standardised_``
            ones at common class priors, where the TPR gap is unchanged) and ``ABSOLUTE`` gaps (``avg`` is the mean of
            the four).
        class_average: see :func:`study.evaluation.metrics.signed_and_absolute_gaps`; it affects absolute gaps only.

    Returns:
        By name, (...,) fractions, NaN where a figure is undefined.
    """
    computed: dict[str, Counts] = {}
    female, male = counts[..., 0, :, :], counts[..., 1, :, :]
    groups = {"w_f1_female": female, "w_f1_male": male}
    if "w_f1" in which:
        groups["w_f1"] = counts.sum(-3)
    for name, group in groups.items():
        if name in which:
            computed[name] = np.where(group.sum((-2, -1)) > 0, weighted_f1(group), np.nan)
    if any(name in ABSOLUTE or name.startswith("signed_") for name in which):
        signed, absolute = signed_and_absolute_gaps(female, male, class_average)
        computed |= {f"signed_{kind}": gap for kind, gap in signed.items()}
        computed |= {f"absolute_{kind}": gap for kind, gap in absolute.items()}
        computed["avg"] = np.asarray(np.mean([absolute[kind] for kind in GAP_KINDS], axis=0))
    if any(name.startswith("standardised_") for name in which):
        signed, _ = signed_and_absolute_gaps(*standardised(female, male))
        computed |= {f"standardised_{kind}": gap for kind, gap in signed.items()}
    return {name: computed[name] for name in which}


def resampled_counts(weights: NDArray[np.float64], counts: Counts) -> Iterator[tuple[slice, Counts]]:
    """Yield the counts of resamples in chunks, as weighted sums over clusters.

    Args:
        weights: (B, U) how often each resample contains each cluster.
        counts: (U, ...) counts by cluster.

    Yields:
        The slice of resamples, and their (b, ...) counts.
    """
    flat = counts.reshape(len(counts), -1)
    occurs = flat.any(0)  # most confusions never occur
    dense = flat[:, occurs]
    for start in range(0, len(weights), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(weights)))
        summed = np.zeros((rows.stop - start, flat.shape[1]))
        summed[:, occurs] = weights[rows] @ dense
        yield rows, summed.reshape(-1, *counts.shape[1:])


def resampled_figures(
    weights: NDArray[np.float64], counts: Counts, which: Sequence[str], class_average: ClassAverage = "mean_of_gaps"
) -> Counts:
    """Compute figures of every resample of one run.

    Args:
        weights: (B, U) how often each resample contains each cluster.
        counts: (U, C, 3, K, P) confusion counts by cluster.
        which, class_average: see :func:`figures`.

    Returns:
        (B, C, len(which)) fractions.
    """
    out = np.empty((len(weights), counts.shape[1], len(which)))
    for rows, resampled in resampled_counts(weights, counts):
        computed = figures(resampled, which, class_average)
        out[rows] = np.stack([computed[name] for name in which], axis=-1)
    return out


def scopes(in_use: Sequence[Cell]) -> dict[str, tuple[int, ...]]:
    """Return the scopes of a study by name, as indices of cells: each cell, then unweighted means over cells.

    With several modalities a language is a scope; with several languages ``multilingual/MODALITY`` is one; with several
    of both, ``all`` is the mean over every cell. The widest scope comes last.

    >>> scopes([Cell("en", "speech"), Cell("de", "speech")])
    {'en/speech': (0,), 'de/speech': (1,), 'multilingual/speech': (0, 1)}
    """
    members: dict[str, tuple[int, ...]] = {str(cell): (i,) for i, cell in enumerate(in_use)}
    languages, modalities = ({cell[axis] for cell in in_use} for axis in (0, 1))
    if len(modalities) > 1:
        for language in (name for name in LANGUAGES if name in languages):
            members[language] = tuple(i for i, cell in enumerate(in_use) if cell.language == language)
    if len(languages) > 1:
        for modality in (name for name in MODALITIES if name in modalities):
            members[f"multilingual/{modality}"] = tuple(i for i, cell in enumerate(in_use) if cell.modality == modality)
        if len(modalities) > 1:
            members["all"] = tuple(range(len(in_use)))
    return members
