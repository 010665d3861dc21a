"""Confusion counts by cluster, and which configurations can be paired."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.bootstrap import bootstrap
from analysis.stats.cluster_counts import cluster_by, cluster_counts, same_utterances
from study.common.groups import cells
from study.evaluation.metrics import labels_from_scores
from tests.analysis import studies


def predictions(seed: int = 0, modality: str = "speech") -> pd.DataFrame:
    known = studies.utterances(30, 6)
    known = known[known["split"] == "dev"].reset_index(drop=True)
    scores = studies.predict(known, 0.6, 0.2, seed)
    return known.assign(modality=modality, predicted=labels_from_scores(scores))


def test_cluster_spans_languages_and_unknown_speakers_are_single_clusters() -> None:
    frame = predictions().assign(speaker="ann")
    assert cluster_counts({0: frame}, "speaker").clusters == ("ann",)

    frame.loc[:1, "speaker"] = None
    frame.loc[2, "speaker"] = ""
    counts = cluster_counts({0: frame}, "speaker")
    assert len(counts.clusters) == 4 and counts.counts.sum() == len(frame)


def test_clusters_of_a_gap_are_those_with_the_rarer_gender() -> None:
    frame = predictions()
    german_men = (frame["language"] == "de") & (frame["gender"] == "male")
    counts = cluster_counts({0: frame[~german_men | frame["speaker"].str.endswith(("0", "1"))]}, "speaker")
    german, english = (counts.cells.index(c) for c in cells(["de", "en"], ["speech"])[::-1])
    draws = bootstrap(counts, ("avg",), 0)
    assert draws.clusters("avg", [english]) == 6
    assert draws.clusters("avg", [english, german]) == 2


def test_of_seeds_selects_by_seed() -> None:
    frames = {seed: predictions(seed) for seed in (3, 7, 9)}
    counts = cluster_counts(frames, "speaker")
    np.testing.assert_array_equal(counts.of_seeds([9, 3]).counts, counts.counts[[2, 0]])


def test_of_cells_keeps_the_class_average() -> None:
    counts = cluster_counts({3: predictions(), 7: predictions(7)}, "speaker", "gap_of_means")
    german = counts.of_cells(counts.cells[1:2])
    assert (german.class_average, german.seeds, german.cells) == ("gap_of_means", (3, 7), counts.cells[1:2])
    np.testing.assert_array_equal(german.counts[:, :, 0], counts.counts[:, :, 1])


def test_different_utterances_are_not_paired() -> None:
    frame = predictions()
    relabelled = frame.assign(emotion=frame["emotion"].where(frame.index != 0, "fear"))
    assert frame["emotion"][0] != "fear"
    whole = cluster_counts({0: frame}, "speaker")
    assert same_utterances(whole, cluster_counts({1: predictions(5)}, "speaker"))
    for other in (frame.iloc[1:], relabelled, frame.assign(speaker="ann")):
        assert not same_utterances(whole, cluster_counts({0: other}, "speaker"))
    with pytest.raises(ValueError, match="seeds 0, 1 .* other utterances"):
        cluster_counts({0: frame, 1: frame.iloc[1:]}, "speaker")
    with pytest.raises(ValueError, match="no runs"):
        cluster_counts({}, "speaker")


def test_unit_of_resampling_follows_the_corpus_unless_overridden() -> None:
    plan = {"corpus": {"spec": "manifest:/data/clips.csv"}}
    assert cluster_by(plan) == "speaker" and cluster_by(plan, "dialogue") == "dialogue"
