"""How large a figure can be by chance: the noise floor of the gap, and intervals of W-F1.

Utterances of one speaker resemble each other, so both resample whole speakers, never single utterances. The AVG gap
gets no percentile interval: it is a mean of absolute values, its resamples never reach 0, and an interval that cannot
contain 0 would make every gap look real. It is compared with the noise floor instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.groups import EMOTIONS, GENDERS
from study.metrics import Counts, average_gap, weighted_f1

FEW_SPEAKERS = 10
"""Below this many speakers of a gender, resampling speakers says little about a population of speakers."""


@dataclass(frozen=True)
class NoiseFloor:
    """AVG gaps of a run when genders are dealt at random to whole speakers (fractions).

    Attributes:
        mean, low, high: the mean and the 5 % and 95 % points over the permutations.
        permutations, seed: how they were drawn.
        fewest_speakers: speakers of the rarer gender in the language that has fewest.
    """

    mean: float
    low: float
    high: float
    permutations: int
    seed: int
    fewest_speakers: int


def noise_floor(runs: Sequence[pd.DataFrame], permutations: int = 200, seed: int = 0) -> NoiseFloor | None:
    """The AVG gap that predictions like these would show if gender had nothing to do with them.

    Within each language the genders of whole speakers are permuted, and the AVG gap is computed anew: the numbers of
    female and male speakers, the sizes of the cells and the errors of the model stay, the link between gender and
    error goes. Several seeds of one configuration are permuted alike and averaged, as the study averages them.

    This is ours and approximate. It is that of the configuration given, and a more accurate one has a lower floor.
    It also takes away a difference of label priors between the genders, which by itself shows as a gap of W-F1 and
    accuracy in a model blind to gender. With few speakers there are few different permutations.

    Args:
        runs: for each seed, predictions with ``language, modality, gender, speaker, emotion, predicted``.
        permutations: how many to draw.
        seed: of the draws.

    Returns:
        ``None`` where no cell has both genders.
    """
    rng = np.random.default_rng(seed)
    columns = ["utterance_id", "language", "modality", "gender", "speaker", "emotion", "predicted"]
    frames = [frame.loc[frame["gender"].isin(GENDERS), columns].assign(run=i) for i, frame in enumerate(runs)]
    pooled = pd.concat(frames, ignore_index=True)
    gaps, fewest = [], []
    for _, of_language in pooled.groupby("language", sort=True):
        # (permutations, speakers): which speakers are dealt "female"; the same deal for every run and modality
        unit, speakers = _units(of_language, ["speaker", "gender"])
        is_female = (speakers["gender"] == GENDERS[0]).to_numpy()
        if is_female.all() or not is_female.any():
            continue
        fewest.append(min(is_female.sum(), (~is_female).sum()))
        dealt = rng.permuted(np.tile(is_female, (permutations, 1)), axis=1).astype(float)
        by_cell = pd.Series(unit, index=of_language.index).groupby([of_language["modality"], of_language["run"]])
        for _, units_of_cell in by_cell:
            counts = _counts(of_language.loc[units_of_cell.index], units_of_cell.to_numpy(), len(speakers))
            female = np.tensordot(dealt, counts, axes=1)
            gaps.append(average_gap(female, counts.sum(0) - female))
    if not gaps:
        return None
    stacked = np.stack(gaps)
    draws = np.ma.masked_invalid(stacked).mean(axis=0).compressed()  # a deal may leave a cell without a shared class
    if not len(draws):
        return None
    low, high = np.quantile(draws, [0.05, 0.95])
    return NoiseFloor(float(draws.mean()), float(low), float(high), permutations, seed, int(min(fewest)))


def w_f1_interval(
    runs: Sequence[pd.DataFrame], resamples: int = 300, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the W-F1 of a configuration, from resampling its speakers with replacement.

    A speaker heard in several languages is one speaker, drawn in all of them. Seeds are averaged inside a resample:
    the interval says what other speakers would change, not what other seeds would. With fewer than about ten
    speakers it is too narrow.

    Args:
        runs: for each seed, predictions with ``language, modality, speaker, emotion, predicted``.
        level: share of the resamples inside.

    Returns:
        (low, high) as fractions.
    """
    rng = np.random.default_rng(seed)
    pooled = pd.concat([frame.assign(run=i) for i, frame in enumerate(runs)], ignore_index=True)
    unit, speakers = _units(pooled, ["speaker"])
    n = len(speakers)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    figures = []
    by_cell = pd.Series(unit).groupby([pooled["language"], pooled["modality"], pooled["run"]])
    for _, units_of_cell in by_cell:
        counts = np.tensordot(weights, _counts(pooled.loc[units_of_cell.index], units_of_cell.to_numpy(), n), axes=1)
        # a resample without any speaker of the cell has no figure there
        figures.append(np.where(counts.sum((-2, -1)) > 0, weighted_f1(counts), np.nan))
    draws = np.stack(figures).mean(axis=0)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _units(frame: pd.DataFrame, by: list[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """The cluster of each row as an integer, and the clusters; an utterance without a speaker is its own cluster."""
    keys = frame[by].copy()
    keys["speaker"] = keys["speaker"].fillna(frame["utterance_id"])
    groups = keys.groupby(by, sort=True)
    clusters = keys.drop_duplicates().sort_values(by, ignore_index=True)
    return groups.ngroup().to_numpy(), clusters


def _counts(frame: pd.DataFrame, unit: np.ndarray, n_units: int) -> Counts:
    """(n_units, K, K) confusion counts, true by predicted."""
    k, emotions = len(EMOTIONS), pd.Index(EMOTIONS)
    true = emotions.get_indexer(pd.Index(frame["emotion"]))
    predicted = emotions.get_indexer(pd.Index(frame["predicted"]))
    flat = np.ravel_multi_index((unit, true, predicted), (n_units, k, k))
    return np.bincount(flat, minlength=n_units * k * k).reshape(n_units, k, k).astype(np.float64)
