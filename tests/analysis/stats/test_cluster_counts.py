"""Counting by cluster: what a cluster is, and that nothing is lost or paired wrongly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.stats.cluster_counts import (
    ABSOLUTE,
    LEVELS,
    SIGNED,
    cluster_by,
    cluster_counts,
    fewest_clusters,
    figures,
    same_utterances,
    scopes,
)
from study.common.groups import cells
from study.evaluation.metrics import evaluate, labels_from_scores
from tests.analysis import studies


def predictions(seed: int = 0, modality: str = "speech") -> pd.DataFrame:
    known = studies.utterances(30, 6)
    known = known[known["split"] == "dev"].reset_index(drop=True)
    made = studies.predict(known, 0.6, 0.2, seed)
    return known.assign(modality=modality, predicted=labels_from_scores(made))


@pytest.mark.parametrize("by", ["dialogue", "speaker"])
def test_figures_of_all_clusters_are_those_of_evaluate(by) -> None:
    frame = pd.concat([predictions(), predictions(1, "speech+text")])
    counts = cluster_counts({0: frame}, by)
    made, expected = figures(counts.counts[0].sum(0)), evaluate(frame)

    assert set(made) == {*LEVELS, *SIGNED, *ABSOLUTE}
    for i, cell in enumerate(counts.cells):
        of_cell = expected["cells"][str(cell)]
        assert made["w_f1"][i] == pytest.approx(of_cell["w_f1"])
        assert made["w_f1_male"][i] == pytest.approx(of_cell["by_group"]["male"]["w_f1"])
        assert made["avg"][i] == pytest.approx(of_cell["gap"])
        for name in SIGNED:
            source, _, kind = name.partition("_")
            assert made[name][i] == pytest.approx(of_cell[source][kind])


def test_a_speaker_of_two_languages_is_one_cluster_and_nobody_is_one_of_their_own() -> None:
    frame = predictions().assign(speaker="ann")
    assert cluster_counts({0: frame}, "speaker").clusters == ("ann",)

    frame.loc[:1, "speaker"] = None
    frame.loc[2, "speaker"] = ""
    counts = cluster_counts({0: frame}, "speaker")
    assert len(counts.clusters) == 4 and counts.counts.sum() == len(frame)


def test_clusters_count_those_with_the_rarer_gender() -> None:
    frame = predictions()
    german_men = (frame["language"] == "de") & (frame["gender"] == "male")
    counts = cluster_counts({0: frame[~german_men | frame["speaker"].str.endswith(("0", "1"))]}, "speaker")
    german, english = (counts.cells.index(c) for c in cells(["de", "en"], ["speech"])[::-1])
    assert fewest_clusters(counts.labels, [english]) == 6
    assert fewest_clusters(counts.labels, [english, german]) == 2


def test_seeds_are_picked_by_name() -> None:
    frames = {seed: predictions(seed) for seed in (3, 7, 9)}
    counts = cluster_counts(frames, "speaker")
    np.testing.assert_array_equal(counts.of_seeds([9, 3]).counts, counts.counts[[2, 0]])


def test_a_cell_keeps_how_classes_are_averaged() -> None:
    counts = cluster_counts({3: predictions(), 7: predictions(7)}, "speaker", "gap_of_means")
    german = counts.of_cells(counts.cells[1:2])
    assert (german.class_average, german.seeds, german.cells) == ("gap_of_means", (3, 7), counts.cells[1:2])
    np.testing.assert_array_equal(german.counts[:, :, 0], counts.counts[:, :, 1])


def test_other_utterances_are_not_paired() -> None:
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


def test_scopes_of_two_modalities() -> None:
    found = scopes(cells(["en", "de"], ["speech", "speech+text"]))  # cells: en and de of speech, then of speech+text
    assert found["de"] == (1, 3) and found["multilingual/speech+text"] == (2, 3) and found["all"] == (0, 1, 2, 3)
    assert list(scopes(cells(["en"], ["speech"]))) == ["en/speech"]


def test_what_is_resampled_follows_the_corpus_unless_told() -> None:
    plan = {"corpus": {"spec": "manifest:/data/clips.csv"}}
    assert cluster_by(plan) == "speaker" and cluster_by(plan, "dialogue") == "dialogue"
