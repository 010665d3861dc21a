"""The noise floor and the intervals, on predictions whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.uncertainty import noise_floor, w_f1_interval
from study.groups import EMOTIONS
from study.metrics import evaluate, labels_from_scores
from tests.analysis import studies


def predictions(per_cell: int, speakers: int, male_advantage: float, seed: int) -> pd.DataFrame:
    known = studies.utterances(per_cell, speakers, seed)
    known = known[known["split"] == "dev"].reset_index(drop=True)
    made = studies.predict(known, 0.6, male_advantage, seed)
    return known.assign(modality="speech", predicted=labels_from_scores(made))


def test_a_planted_gap_is_above_the_floor_and_no_gap_is_inside() -> None:
    planted, blind = predictions(200, 20, 0.3, seed=1), predictions(200, 20, 0.0, seed=1)

    floor_planted, floor_blind = noise_floor([planted]), noise_floor([blind])
    assert floor_planted is not None and floor_blind is not None
    assert evaluate(planted)["gap"] > 1.5 * floor_planted.high
    assert floor_blind.low < evaluate(blind)["gap"] < floor_blind.high


def test_the_floor_is_the_mean_gap_of_models_blind_to_gender() -> None:
    fresh = [evaluate(predictions(100, 20, 0.0, seed))["gap"] for seed in range(40)]
    floors = [noise_floor([predictions(100, 20, 0.0, seed)], permutations=50) for seed in range(5)]
    assert np.mean([f.mean for f in floors if f]) == pytest.approx(np.mean(fresh), rel=0.1)


def test_more_utterances_lower_the_floor_and_so_do_more_seeds() -> None:
    few, many = (noise_floor([predictions(n, 20, 0.0, 0)]) for n in (60, 960))
    assert few is not None and many is not None
    assert few.mean / many.mean == pytest.approx(4, rel=0.3)  # noise falls with the square root of the size
    seeds = [predictions(60, 20, 0.0, seed=0).assign(predicted=list(np.random.default_rng(s).choice(EMOTIONS, 360)))
             for s in range(4)]  # fmt: skip
    several = noise_floor(seeds)
    assert several is not None and several.high - several.low < few.high - few.low


def test_whole_speakers_are_dealt() -> None:
    """Two women and two men, each right or wrong throughout: only six deals, three gaps."""
    rows = [
        {"utterance_id": f"{s}{i}", "language": "en", "modality": "speech", "gender": g, "speaker": s,
         "emotion": e, "predicted": e if right else EMOTIONS[EMOTIONS.index(e) - 1]}
        for s, g, right in [("a", "female", True), ("b", "female", True), ("c", "male", False), ("d", "male", False)]
        for i, e in enumerate(EMOTIONS)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    floor = noise_floor([frame], permutations=600)

    assert floor is not None and floor.fewest_speakers == 2
    # 4 of the 6 deals mix right and wrong speakers evenly (gap 0), 2 are the real one or its mirror
    assert floor.low == 0.0
    assert floor.high == pytest.approx(evaluate(frame)["gap"])
    assert floor.mean == pytest.approx(evaluate(frame)["gap"] / 3, rel=0.15)


def test_genders_missing_or_unknown() -> None:
    frame = predictions(20, 5, 0.0, 0)
    assert noise_floor([frame[frame["gender"] == "female"]]) is None
    assert noise_floor([frame.assign(gender="unknown")]) is None
    german_women = frame[(frame["language"] != "de") | (frame["gender"] == "female")]
    assert noise_floor([german_women]) == noise_floor([frame[frame["language"] != "de"]])


def test_the_same_seed_gives_the_same_floor_and_another_seed_another() -> None:
    frame = predictions(40, 10, 0.1, 0)
    assert noise_floor([frame], seed=3) == noise_floor([frame], seed=3)
    assert noise_floor([frame], seed=3) != noise_floor([frame], seed=4)
    assert w_f1_interval([frame], seed=3) == w_f1_interval([frame], seed=3)


def test_the_interval_holds_the_figure_and_narrows_with_speakers() -> None:
    few, many = predictions(20, 10, 0.0, 0), predictions(320, 160, 0.0, 0)
    widths = []
    for frame in (few, many):
        low, high = w_f1_interval([frame])
        assert low < evaluate(frame)["w_f1"] < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = np.mean([evaluate(predictions(400, 20, 0.0, 500 + s))["w_f1"] for s in range(10)])
    intervals = [w_f1_interval([predictions(60, 20, 0.0, s)], resamples=150) for s in range(40)]
    assert 0.85 <= np.mean([low <= truth <= high for low, high in intervals]) <= 1.0


def test_an_utterance_without_a_speaker_is_its_own_cluster() -> None:
    frame = predictions(20, 5, 0.0, 0).assign(speaker=None)
    low, high = w_f1_interval([frame])
    assert low < high
    assert noise_floor([frame]) is not None
