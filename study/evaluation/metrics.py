"""Emotion recognition metrics and gender gaps from predictions (numpy and pandas only; no torch).

All metrics are fractions in [0, 1]; a gap is female minus male. Definitions: the benchmark of arXiv 2603.21050
(weighted F1, accuracy, and |F - M| on TPR, FPR, W-F1 and accuracy, AVG their mean). How that paper averages TPR and
FPR over classes is not known to us: here the gap of each class is taken, then the mean of the absolute gaps (ours).

Everything is computed from confusion counts, arrays of shape (..., K, P), true by predicted, so that one evaluation
takes milliseconds and a thousand resamples are one array. K = 7 emotions; P = K + 1, the last column counts answers
that name no emotion ("invalid", from free generation), which are always wrong. A column without counts changes nothing,
so P = K is enough if every answer is valid. The tests compare with scikit-learn and fairlearn.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.common.groups import EMOTIONS, GENDERS, LANGUAGES, MODALITIES, SCORE_COLUMNS, Cell, Gender, cells

ClassAverage = Literal["mean_of_gaps", "gap_of_means"]
Counts = NDArray[np.float64]

GAP_KINDS = ("tpr", "fpr", "w_f1", "accuracy")
INVALID = "invalid"
ANSWERS = (*EMOTIONS, INVALID)
PREDICTED_COLUMNS = ("utterance_id", "language", "modality", "gender", "emotion", "predicted")
_GENDER_ORDER = (*GENDERS, Gender.UNKNOWN.value)


def labels_from_scores(frame: pd.DataFrame) -> NDArray[np.str_]:
    """Return the emotion with the highest score in each row; ties go to the earlier emotion.

    Args:
        frame: has the seven ``SCORE_COLUMNS`` of :mod:`study.storage.records` (summed log-probabilities).

    Returns:
        (n,) emotion names, in the order of the rows.

    Raises:
        ValueError: a score column is missing, or a score is NaN.
    """
    missing = [column for column in SCORE_COLUMNS if column not in frame]
    if missing:
        raise ValueError(f"predictions lack the score columns {', '.join(missing)}")
    scores = frame[list(SCORE_COLUMNS)].to_numpy(dtype=np.float64)
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).any(axis=1).sum())} rows of the predictions have a score that is NaN")
    return np.array(EMOTIONS)[scores.argmax(axis=1)] if len(scores) else np.array([], dtype=np.str_)


def weighted_f1(counts: Counts) -> Counts:
    """Return the F1 of the classes, averaged with their true counts as weights (scikit-learn's ``average="weighted"``).

    Args:
        counts: (..., K, P) confusion counts, true by predicted. The result is 0 if there are no utterances.

    Returns:
        (...,) fractions.
    """
    true, predicted = counts.sum(-1), counts.sum(-2)[..., : counts.shape[-2]]
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    f1 = _divide(2 * hits, true + predicted)
    return _divide((true * f1).sum(-1), true.sum(-1))


def accuracy(counts: Counts) -> Counts:
    """Return the share of utterances whose predicted class is the true one; (..., K, P) to (...,)."""
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1).sum(-1), counts.sum((-2, -1)))


def unweighted_average_recall(counts: Counts) -> Counts:
    """Return mean recall over the classes that occur (scikit-learn's ``balanced_accuracy_score``): (...,)."""
    true = counts.sum(-1)
    recall = _divide(np.diagonal(counts, axis1=-2, axis2=-1), true)
    return _divide(recall.sum(-1), (true > 0).sum(-1))


def invalid_rate(counts: Counts) -> Counts:
    """Return the share of utterances whose answer names no emotion; (..., K, P) to (...,)."""
    return _divide(counts[..., counts.shape[-2] :].sum((-2, -1)), counts.sum((-2, -1)))


def standardised(female: Counts, male: Counts) -> tuple[Counts, Counts]:
    """Return the counts that the two genders would have with common class priors.

    The class priors of the genders differ, so even a model that ignores gender shows gaps of accuracy and W-F1. Here
    each row becomes P(answer | true emotion, gender) times a prior common to both genders: the share of that emotion
    among the utterances of both together (direct standardisation, with the pooled group as the standard). Emotions that
    one gender lacks are left out. TPR does not change; FPR, W-F1 and accuracy do.

    Args:
        female, male: (..., K, P) confusion counts of one cell.

    Returns:
        Two (..., K, P) arrays that each sum to 1, or to 0 if the genders share no emotion. Every function of counts
        accepts them.
    """
    n_female, n_male = female.sum(-1), male.sum(-1)
    pooled = np.where((n_female > 0) & (n_male > 0), n_female + n_male, 0.0)
    prior = _divide(pooled, pooled.sum(-1, keepdims=True))
    return female * _divide(prior, n_female)[..., None], male * _divide(prior, n_male)[..., None]


def signed_and_absolute_gaps(
    female: Counts, male: Counts, class_average: ClassAverage = "mean_of_gaps"
) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """Return the four gaps between two genders, female minus male.

    TPR and FPR are computed for each class that both genders have among their true labels. The signed gap is the
    difference of the macro means. The absolute gap is the mean over classes of the absolute difference ("mean_of_gaps";
    it can be large even if the signed one is 0) or the absolute value of the signed gap ("gap_of_means"). For W-F1 and
    accuracy, the absolute gap is the absolute value of the signed gap.

    Args:
        female, male: (..., K, P) confusion counts of one cell, or the result of :func:`standardised`.
        class_average: how the TPR and FPR gaps of the classes are averaged.

    Returns:
        Two dicts over ``GAP_KINDS`` of (...,) arrays. A gap is NaN if it is undefined: the genders share no class, or
        one gender has no other class than the only shared one (which then has no FPR).
    """
    if class_average not in ("mean_of_gaps", "gap_of_means"):
        raise ValueError(f"class_average must be mean_of_gaps or gap_of_means, not {class_average!r}")
    shared = (female.sum(-1) > 0) & (male.sum(-1) > 0)
    either_empty = (female.sum((-2, -1)) == 0) | (male.sum((-2, -1)) == 0)
    signed: dict[str, Counts] = {}
    absolute: dict[str, Counts] = {}
    for kind, rates in (("tpr", _true_positive_rates), ("fpr", _false_positive_rates)):
        (f_rate, f_defined), (m_rate, m_defined) = rates(female), rates(male)
        used = shared & f_defined & m_defined
        gaps = np.where(used, f_rate - m_rate, 0.0)
        n_classes = used.sum(-1)
        signed[kind] = _divide(gaps.sum(-1), n_classes, empty=np.nan)
        mean_of_gaps = _divide(np.abs(gaps).sum(-1), n_classes, empty=np.nan)
        absolute[kind] = mean_of_gaps if class_average == "mean_of_gaps" else np.abs(signed[kind])
    for kind, metric in (("w_f1", weighted_f1), ("accuracy", accuracy)):
        signed[kind] = np.where(either_empty, np.nan, metric(female) - metric(male))
        absolute[kind] = np.abs(signed[kind])
    return signed, absolute


def average_gap(female: Counts, male: Counts, class_average: ClassAverage = "mean_of_gaps") -> Counts:
    """Return AVG of a cell, the mean of its four absolute gaps: (...,), NaN where a gap is undefined."""
    _, absolute = signed_and_absolute_gaps(female, male, class_average)
    return np.asarray(np.mean([absolute[kind] for kind in GAP_KINDS], axis=0))


def confusion_counts(predictions: pd.DataFrame) -> tuple[tuple[Cell, ...], Counts]:
    """Count predictions by cell, gender, true and predicted emotion.

    Args:
        predictions: one row per utterance and modality, with ``PREDICTED_COLUMNS``; ``emotion`` is the true emotion,
            ``predicted`` an emotion or "invalid".

    Returns:
        The cells that occur, in the order of :func:`study.common.groups.cells`, and (C, 3, K, P) counts; the second
        axis is female, male, unknown.

    Raises:
        ValueError: there are no rows, a column is missing, a value is unknown, or an utterance occurs twice.
    """
    missing = [column for column in PREDICTED_COLUMNS if column not in predictions]
    if missing:
        raise ValueError(f"predictions lack the columns {', '.join(missing)}")
    if predictions.empty:
        raise ValueError("predictions have no rows")
    duplicated = predictions.duplicated(["utterance_id", "modality"])
    if duplicated.any():
        name = predictions.loc[duplicated, "utterance_id"].iloc[0]
        raise ValueError(f"{int(duplicated.sum())} predictions occur twice, the first is utterance {name!r}")
    language = _codes(predictions, "language", LANGUAGES)
    modality = _codes(predictions, "modality", MODALITIES)
    gender = _codes(predictions, "gender", _GENDER_ORDER)
    true = _codes(predictions, "emotion", EMOTIONS)
    predicted = _codes(predictions, "predicted", ANSWERS)

    shape = (len(MODALITIES), len(LANGUAGES), len(_GENDER_ORDER), len(EMOTIONS), len(ANSWERS))
    flat = np.ravel_multi_index((modality, language, gender, true, predicted), shape)
    # the order of cells(): modality before language
    counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(-1, *shape[2:]).astype(np.float64)
    occurs = counts.sum((1, 2, 3)) > 0
    in_use = tuple(c for c, used in zip(cells(LANGUAGES, MODALITIES), occurs, strict=True) if used)
    return in_use, counts[occurs]


def class_rates(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return TPR and FPR of every emotion by cell and gender, with the numbers of utterances that they are based on.

    Args:
        predictions: as in :func:`confusion_counts`.

    Returns:
        One row per (language, modality, gender, emotion) of the cells that occur, for women and men: ``n`` utterances
        of that emotion and ``n_others`` of the other emotions; ``tpr`` and ``fpr``, fractions, NaN if these are 0.
    """
    in_use, counts = confusion_counts(predictions)
    counts = counts[:, : len(GENDERS)]
    (tpr, _), (fpr, _) = _true_positive_rates(counts), _false_positive_rates(counts)
    n = counts.sum(-1)
    n_others = n.sum(-1, keepdims=True) - n
    keys = [(*cell, gender, emotion) for cell in in_use for gender in GENDERS for emotion in EMOTIONS]
    frame = pd.DataFrame(keys, columns=["language", "modality", "gender", "emotion"])
    return frame.assign(
        n=n.ravel().astype(int),
        n_others=n_others.ravel().astype(int),
        tpr=np.where(n > 0, tpr, np.nan).ravel(),
        fpr=np.where(n_others > 0, fpr, np.nan).ravel(),
    )


def evaluate(predictions: pd.DataFrame, class_average: ClassAverage = "mean_of_gaps") -> dict[str, Any]:
    """Return all metrics of one split of one run, as plain JSON (fractions; ``None`` if a metric is undefined).

    W-F1, accuracy and UAR of the run are unweighted means over its cells: with one modality, over its languages.
    ``gap`` (AVG) of a cell is the mean of its four absolute gaps, and of the run the mean over the cells that have
    one; ``worst_gap`` is the largest of them. ``gap_standardised`` is AVG at common class priors
    (:func:`standardised`). The worst group is the (cell, gender) of the lowest W-F1. Utterances of unknown gender
    only count in W-F1, accuracy, UAR and ``invalid`` (the share of answers that name no emotion).

    Args:
        predictions: as in :func:`confusion_counts`, of one split.
        class_average: as in :func:`signed_and_absolute_gaps`.

    Returns:
        ``w_f1, accuracy, uar, invalid, gap, gap_tpr, gap_fpr, gap_w_f1, gap_accuracy, worst_gap, gap_standardised,
        worst_group`` (such as ``de/speech/male``), ``worst_group_w_f1`` and ``cells``: by name (``en/speech+text``)
        the cell's ``n_female, n_male, n_unknown, w_f1, accuracy, uar, invalid, gap, gap_standardised, signed,
        absolute, standardised`` (the signed gaps at common priors) and ``by_group``.

    Raises:
        ValueError: as in :func:`confusion_counts`; or an unknown ``class_average``.
    """
    in_use, counts = confusion_counts(predictions)
    everyone, female, male = counts.sum(1), counts[:, 0], counts[:, 1]
    overall = {
        "w_f1": weighted_f1(everyone),
        "accuracy": accuracy(everyone),
        "uar": unweighted_average_recall(everyone),
        "invalid": invalid_rate(everyone),
    }
    by_group = {
        kind: metric(counts[:, : len(GENDERS)])
        for kind, metric in (
            ("w_f1", weighted_f1),
            ("accuracy", accuracy),
            ("uar", unweighted_average_recall),
            ("invalid", invalid_rate),
        )
    }
    signed, absolute = signed_and_absolute_gaps(female, male, class_average)
    average = np.mean([absolute[kind] for kind in GAP_KINDS], axis=0)
    common = standardised(female, male)
    signed_common, _ = signed_and_absolute_gaps(*common, class_average)
    average_common = average_gap(*common, class_average)
    sizes = counts.sum((2, 3)).astype(int)

    metrics: dict[str, Any] = {name: float(values.mean()) for name, values in overall.items()}
    has_gap = ~np.isnan(average)
    metrics["gap"] = float(average[has_gap].mean()) if has_gap.any() else None
    for kind in GAP_KINDS:
        metrics[f"gap_{kind}"] = float(absolute[kind][has_gap].mean()) if has_gap.any() else None
    # if two genders share a single emotion, there is no FPR at common priors
    has_common = ~np.isnan(average_common)
    metrics["gap_standardised"] = float(average_common[has_common].mean()) if has_common.any() else None
    metrics["worst_gap"] = float(average[has_gap].max()) if has_gap.any() else None
    group_w_f1 = {
        f"{cell}/{gender}": float(by_group["w_f1"][i, g])
        for i, cell in enumerate(in_use)
        for g, gender in enumerate(GENDERS)
        if sizes[i, g]
    }
    metrics["worst_group"] = min(group_w_f1, key=lambda name: group_w_f1[name]) if group_w_f1 else None
    metrics["worst_group_w_f1"] = min(group_w_f1.values()) if group_w_f1 else None
    metrics["cells"] = {
        str(cell): {
            **{f"n_{gender}": int(n) for gender, n in zip(_GENDER_ORDER, sizes[i], strict=True)},
            **{name: float(values[i]) for name, values in overall.items()},
            "gap": _or_none(average[i]),
            "gap_standardised": _or_none(average_common[i]),
            "signed": {kind: _or_none(signed[kind][i]) for kind in GAP_KINDS},
            "absolute": {kind: _or_none(absolute[kind][i]) for kind in GAP_KINDS},
            "standardised": {kind: _or_none(signed_common[kind][i]) for kind in GAP_KINDS},
            "by_group": {
                gender: {kind: float(values[i, g]) if sizes[i, g] else None for kind, values in by_group.items()}
                for g, gender in enumerate(GENDERS)
            },
        }
        for i, cell in enumerate(in_use)
    }
    return metrics


def _codes(frame: pd.DataFrame, column: str, values: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the index of each row's value in ``values``."""
    codes = pd.Index(values).get_indexer(pd.Index(frame[column]))
    if (codes < 0).any():
        unknown = sorted({str(value) for value in frame[column][codes < 0]})
        raise ValueError(f"column {column!r} has {', '.join(unknown[:5])}; expected one of {', '.join(values)}")
    return codes.astype(np.int64)


def _true_positive_rates(counts: Counts) -> tuple[Counts, NDArray[np.bool_]]:
    positives = counts.sum(-1)
    return _divide(np.diagonal(counts, axis1=-2, axis2=-1), positives), positives > 0


def _false_positive_rates(counts: Counts) -> tuple[Counts, NDArray[np.bool_]]:
    negatives = counts.sum((-2, -1))[..., None] - counts.sum(-1)
    false_positives = counts.sum(-2)[..., : counts.shape[-2]] - np.diagonal(counts, axis1=-2, axis2=-1)
    return _divide(false_positives, negatives), negatives > 0


def _divide(numerator: NDArray[Any], denominator: NDArray[Any], empty: float = 0.0) -> Counts:
    """Return the elementwise quotient, ``empty`` where the denominator is 0."""
    out = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), empty, dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)
    return out


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
