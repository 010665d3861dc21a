"""The noise floor and the paired permutation test, on predictions with known gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats.bootstrap import SeedSpread
from analysis.stats.cluster_counts import cluster_counts
from analysis.stats.permutation import NoiseFloor, noise_floor, permutation_test, permuted_differences
from study.common.groups import EMOTIONS
from study.evaluation.metrics import evaluate, labels_from_scores
from tests.analysis import studies

ONE_SEED = SeedSpread(0.0, 0.0, 1)


def predictions(per_cell: int, speakers: int, male_advantage: float, seed: int) -> pd.DataFrame:
    known = studies.utterances(per_cell, speakers, seed)
    known = known[known["split"] == "dev"].reset_index(drop=True)
    made = studies.predict(known, 0.6, male_advantage, seed)
    return known.assign(modality="speech", predicted=labels_from_scores(made))


def floor_of(*frames: pd.DataFrame, permutations: int = 200, seed: int = 0) -> NoiseFloor | None:
    return noise_floor(cluster_counts(dict(enumerate(frames)), "speaker"), permutations, seed)


def test_a_planted_gap_is_above_the_floor_and_no_gap_is_inside() -> None:
    planted, blind = predictions(200, 20, 0.3, seed=1), predictions(200, 20, 0.0, seed=1)

    floor_planted, floor_blind = floor_of(planted), floor_of(blind)
    assert floor_planted is not None and floor_blind is not None
    assert evaluate(planted)["gap"] > 1.5 * floor_planted.high
    assert floor_blind.low < evaluate(blind)["gap"] < floor_blind.high
    assert floor_planted.p == pytest.approx(1 / 201) and floor_blind.p > 0.05


def test_the_floor_is_the_mean_gap_of_models_blind_to_gender() -> None:
    fresh = [evaluate(predictions(100, 20, 0.0, seed))["gap"] for seed in range(40)]
    floors = [floor_of(predictions(100, 20, 0.0, seed), permutations=50) for seed in range(5)]
    assert np.mean([f.mean for f in floors if f]) == pytest.approx(np.mean(fresh), rel=0.1)


def test_the_floor_keeps_the_gap_that_label_priors_make() -> None:
    """Joy is always found and anger never; women are 3:1 joyful, men 1:3: blind to gender, and a gap of ACC of 1/2."""
    rows = [
        {"utterance_id": f"{g}{s}-{i}", "language": "en", "modality": "speech", "gender": g, "speaker": f"{g}{s}",
         "emotion": e, "predicted": "joy"}
        for g, emotions in (("female", ["joy"] * 3 + ["anger"]), ("male", ["joy"] + ["anger"] * 3))
        for s in range(12)
        for i, e in enumerate(emotions)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    observed, floor = evaluate(frame), floor_of(frame)

    assert floor is not None
    assert observed["gap"] > 0.2 and observed["gap_standardised"] == pytest.approx(0.0)
    assert (floor.low, floor.mean, floor.high) == pytest.approx((observed["gap"],) * 3)


def test_more_utterances_lower_the_floor_and_so_do_more_seeds() -> None:
    few, many = (floor_of(predictions(n, 20, 0.0, 0)) for n in (60, 960))
    assert few is not None and many is not None
    assert few.mean / many.mean == pytest.approx(4, rel=0.3)  # noise falls with the square root of the size
    seeds = [predictions(60, 20, 0.0, seed=0).assign(predicted=list(np.random.default_rng(s).choice(EMOTIONS, 360)))
             for s in range(4)]  # fmt: skip
    several = floor_of(*seeds)
    assert several is not None and several.high - several.low < few.high - few.low


def four_voices(dialogues: bool) -> pd.DataFrame:
    """Two women right throughout, two men wrong throughout; as two dialogues of a woman and a man if asked."""
    voices = [("a", "female", "d0"), ("b", "female", "d1"), ("c", "male", "d0"), ("d", "male", "d1")]
    rows = [
        {"utterance_id": f"{s}{i}", "language": "en", "modality": "speech", "gender": g, "speaker": s, "dialogue": d,
         "emotion": e, "predicted": e if g == "female" else EMOTIONS[EMOTIONS.index(e) - 1]}
        for s, g, d in voices
        for i, e in enumerate(EMOTIONS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_speakers_are_permuted_as_a_whole() -> None:
    """Each voice is right or wrong throughout: six deals, three gaps."""
    frame = four_voices(dialogues=False)
    floor = floor_of(frame, permutations=600)

    assert floor is not None
    # 4 of the 6 deals mix right and wrong speakers evenly (gap 0), 2 are the real one or its mirror
    assert floor.low == 0.0
    assert floor.high == pytest.approx(evaluate(frame)["gap"])
    assert floor.mean == pytest.approx(evaluate(frame)["gap"] / 3, rel=0.15)


def test_dialogues_are_permuted_as_a_whole() -> None:
    """Two dialogues give four permutations: two are the real gap or its mirror image, two average to 0."""
    frame = four_voices(dialogues=True)
    floor = noise_floor(cluster_counts({0: frame}, "dialogue"), 600)

    assert floor is not None and floor.low == 0.0
    assert floor.mean == pytest.approx(evaluate(frame)["gap"] / 2, rel=0.15)
    assert floor.p == pytest.approx(0.5, abs=0.07)


def test_missing_or_unknown_genders() -> None:
    frame = predictions(20, 5, 0.0, 0)
    assert floor_of(frame[frame["gender"] == "female"]) is None
    assert floor_of(frame.assign(gender="unknown")) is None
    german_women = frame[(frame["language"] != "de") | (frame["gender"] == "female")]
    with_them, without = floor_of(german_women, permutations=2000), floor_of(frame[frame["language"] != "de"])
    assert with_them is not None and without is not None
    assert with_them.mean == pytest.approx(without.mean, rel=0.05)  # a language of one gender is in no gap


def predictions_of_speakers(languages_of: dict[str, tuple[str, ...]], per_gender: int = 8) -> pd.DataFrame:
    """Return predictions of speakers of each gender in these languages, correct or wrong at random."""
    rng = np.random.default_rng(0)
    rows = [
        {"utterance_id": f"{gender}{voice}-{language}-{i}", "language": language, "modality": "speech",
         "gender": gender, "speaker": f"{gender}{voice}", "emotion": EMOTIONS[i % 7],
         "predicted": EMOTIONS[i % 7] if rng.random() < 0.6 else str(rng.choice(EMOTIONS))}
        for gender, languages in languages_of.items()
        for voice in range(per_gender)
        for language in languages
        for i in range(14)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_cell_without_a_gender_does_not_block_other_permutations() -> None:
    """German women are unknown: no stratum of speakers of the same three languages has both genders."""
    frame = predictions_of_speakers({"female": ("en", "ja", "de"), "male": ("en", "ja", "de")})
    german_women = (frame["language"] == "de") & (frame["gender"] == "female")
    for lacking in (frame[~german_women], frame.assign(gender=frame["gender"].mask(german_women, "unknown"))):
        floor, without = floor_of(lacking), floor_of(frame[frame["language"] != "de"])
        assert without is not None and floor == without
        assert floor.low < floor.mean < floor.high


def test_no_floor_if_genders_share_no_language() -> None:
    """Women speak both languages, men one each: every stratum has one gender, and permuting it changes nothing."""
    women = predictions_of_speakers({"female": ("en", "ja")})
    men = [predictions_of_speakers({"male": (language,)}).replace({"speaker": r"^"}, {"speaker": language}, regex=True)
           for language in ("en", "ja")]  # fmt: skip
    assert floor_of(pd.concat([women, *men])) is None


def test_one_dialogue_has_two_permutations() -> None:
    one = four_voices(dialogues=True).query("dialogue == 'd0'")
    assert noise_floor(cluster_counts({0: one}, "dialogue")) is None


def test_the_same_seed_gives_the_same_floor_and_another_seed_another() -> None:
    frame = predictions(40, 10, 0.1, 0)
    assert floor_of(frame, seed=3) == floor_of(frame, seed=3)
    assert floor_of(frame, seed=3) != floor_of(frame, seed=4)


def test_paired_permutations_are_symmetric_and_exchange_whole_clusters() -> None:
    """One system is always right and the other always wrong, in two clusters: differences 1, 0, 0 and -1."""
    frame = four_voices(dialogues=True)
    right, wrong = (
        cluster_counts({0: frame.assign(predicted=frame["emotion"] if good else "invalid")}, "dialogue")
        for good in (True, False)
    )
    differences = permuted_differences(right, wrong, 400, which=("w_f1",))[:, 0, 0]

    values, counted = np.unique(differences.round(9), return_counts=True)
    assert values.tolist() == [-1.0, 0.0, 1.0]
    assert counted / 400 == pytest.approx([0.25, 0.5, 0.25], abs=0.07)
    assert permutation_test(1.0, differences, ONE_SEED, np.random.default_rng(0)).p == pytest.approx(0.5, abs=0.1)


def test_seed_variance_widens_the_null_range() -> None:
    draws = np.random.default_rng(0).normal(0, 0.01, 4000)
    rng = np.random.default_rng(1)
    five = SeedSpread(observed=5 * 0.01**2, explained=0.0, n_seeds=5)
    assert permutation_test(0.03, draws, ONE_SEED, rng).p < 0.01
    # sd 0.01 of clusters and 0.01 of seeds: 0.03 is 2.1 of them together, at Satterthwaite's 16 degrees of freedom
    assert permutation_test(0.03, draws, five, rng).p == pytest.approx(0.05, abs=0.02)
    assert np.isnan(permutation_test(np.nan, draws, five, rng).p)


@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=140),
    st.integers(0, 41),
    st.booleans(),
)
def test_difference_is_inside_the_null_range_if_and_only_if_p_is_at_least_5_percent(
    draws, difference, several_seeds
) -> None:
    seeds = SeedSpread(observed=0.01, explained=0.0, n_seeds=3) if several_seeds else ONE_SEED
    made = permutation_test(difference / 100, np.array(draws) / 100, seeds, np.random.default_rng(0))
    assert (difference / 100 - made.null_range <= 0) == (made.p >= 0.05)


def test_null_range_at_the_boundary() -> None:
    """With 39 permutations 0.01 to 0.39, p is 0.05 at 0.39. With 19, no p is below 0.05."""
    draws, rng = np.arange(1, 40) / 100, np.random.default_rng(0)
    assert permutation_test(0.39, draws, ONE_SEED, rng) == pytest.approx((0.05, 0.39))
    assert permutation_test(0.391, draws, ONE_SEED, rng) == pytest.approx((0.025, 0.39))
    assert permutation_test(0.9, draws[:19], ONE_SEED, rng) == pytest.approx((0.05, np.inf))
