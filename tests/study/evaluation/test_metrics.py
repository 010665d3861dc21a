"""Metrics compared with values computed by hand, and with scikit-learn and fairlearn."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from study.common.groups import EMOTIONS, LANGUAGES, SCORE_COLUMNS
from study.evaluation import metrics
from study.evaluation.metrics import (
    GAP_KINDS,
    average_gap,
    class_rates,
    confusion_counts,
    evaluate,
    labels_from_scores,
    signed_and_absolute_gaps,
    standardised,
)


def frame(rows: list[tuple[str, str, str]], language: str = "en", modality: str = "speech") -> pd.DataFrame:
    """Return predictions of one cell from rows of (gender, true, predicted)."""
    table = pd.DataFrame(rows, columns=["gender", "emotion", "predicted"])
    ids = [f"{language}-{i}" for i in range(len(table))]
    return table.assign(utterance_id=ids, language=language, modality=modality)


def random_frame(n: int, seed: int, genders: tuple[str, ...] = ("female", "male", "unknown")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    true = rng.choice(EMOTIONS, n, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.06, 0.04])
    return pd.DataFrame(
        {
            "utterance_id": [f"u{i}" for i in range(n)],
            "language": rng.choice(LANGUAGES, n),
            "modality": "speech+text",
            "gender": rng.choice(genders, n),
            "emotion": true,
            "predicted": np.where(rng.random(n) < 0.5, true, rng.choice(EMOTIONS, n)),
        }
    )


BY_HAND = [
    # women: joy 3 of 4 right, anger 2 of 2 right; men: joy 1 of 2 right, anger 2 of 4 right
    *[("female", "joy", "joy")] * 3,
    ("female", "joy", "anger"),
    *[("female", "anger", "anger")] * 2,
    ("male", "joy", "joy"),
    ("male", "joy", "anger"),
    *[("male", "anger", "anger")] * 2,
    *[("male", "anger", "joy")] * 2,
]


def test_gaps_by_hand() -> None:
    cell = evaluate(frame(BY_HAND))["cells"]["en/speech"]

    # TPR: women joy 3/4, anger 1; men joy 1/2, anger 1/2. Gaps by class 1/4 and 1/2.
    assert cell["signed"]["tpr"] == pytest.approx((0.25 + 0.5) / 2)
    assert cell["absolute"]["tpr"] == pytest.approx((0.25 + 0.5) / 2)
    # FPR: women joy 0/2, anger 1/4; men joy 2/4, anger 1/2. Gaps -1/2 and -1/4.
    assert cell["signed"]["fpr"] == pytest.approx(-0.375)
    assert cell["absolute"]["fpr"] == pytest.approx(0.375)
    assert cell["signed"]["accuracy"] == pytest.approx(5 / 6 - 3 / 6)
    # F1: women joy 6/7, anger 4/5; men joy 2/5, anger 4/7; each weighted by its true counts
    assert cell["by_group"]["female"]["w_f1"] == pytest.approx((4 * 6 / 7 + 2 * 4 / 5) / 6)
    assert cell["by_group"]["male"]["w_f1"] == pytest.approx((2 * 2 / 5 + 4 * 4 / 7) / 6)
    assert cell["gap"] == pytest.approx(np.mean(list(cell["absolute"].values())))


def test_class_average_decides_whether_opposite_gaps_cancel() -> None:
    # women: joy 1, anger 0; men: joy 0, anger 1
    rows = [("female", "joy", "joy"), ("female", "anger", "joy"), ("male", "joy", "anger"), ("male", "anger", "anger")]

    by_class = evaluate(frame(rows))["cells"]["en/speech"]
    macro = evaluate(frame(rows), class_average="gap_of_means")["cells"]["en/speech"]

    assert by_class["absolute"]["tpr"] == 1.0
    assert macro["absolute"]["tpr"] == 0.0
    assert by_class["signed"]["tpr"] == macro["signed"]["tpr"] == 0.0


def test_tpr_and_fpr_skip_classes_that_one_gender_lacks() -> None:
    extra = [("male", "fear", "joy")] * 3
    without, with_extra = (evaluate(frame(rows))["cells"]["en/speech"] for rows in (BY_HAND, BY_HAND + extra))

    assert with_extra["absolute"]["tpr"] == without["absolute"]["tpr"]
    # men: joy 5 false of 7 others, anger 1 of 5; fear is not a class of women
    assert with_extra["absolute"]["fpr"] == pytest.approx((5 / 7 + abs(1 / 4 - 1 / 5)) / 2)
    assert with_extra["absolute"]["accuracy"] == pytest.approx(5 / 6 - 3 / 9)


def test_standardised_gaps_by_hand() -> None:
    # a model that ignores gender: joy 3 of 4 right, anger 1 of 2; women have joy:anger 4:2, men 4:8
    ignores_gender = [
        *[("female", "joy", "joy")] * 3, ("female", "joy", "anger"),
        ("female", "anger", "anger"), ("female", "anger", "joy"),
        *[("male", "joy", "joy")] * 3, ("male", "joy", "anger"),
        *[("male", "anger", "anger")] * 4, *[("male", "anger", "joy")] * 4,
    ]  # fmt: skip
    cell = evaluate(frame(ignores_gender))["cells"]["en/speech"]
    assert cell["signed"]["accuracy"] == pytest.approx(4 / 6 - 7 / 12)
    assert cell["signed"]["w_f1"] != 0.0
    assert cell["standardised"] == pytest.approx(dict.fromkeys(GAP_KINDS, 0.0), abs=1e-12)
    assert cell["gap_standardised"] == pytest.approx(0.0, abs=1e-12)

    # BY_HAND: six joy and six anger in all, so each counts a half: women (3/4 + 1)/2, men (1/2 + 1/2)/2
    by_hand = evaluate(frame(BY_HAND))["cells"]["en/speech"]
    assert by_hand["standardised"]["accuracy"] == pytest.approx(7 / 8 - 1 / 2)
    assert by_hand["standardised"]["tpr"] == by_hand["signed"]["tpr"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_model_that_ignores_gender_has_no_standardised_gap_for_any_priors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.dirichlet(np.ones(8), 7)
    female, male = (rng.integers(1, 50, 7)[:, None] * answers for _ in range(2))
    signed, absolute = signed_and_absolute_gaps(*standardised(female, male))
    raw, _ = signed_and_absolute_gaps(female, male)

    assert [float(signed[kind]) for kind in GAP_KINDS] == pytest.approx([0.0] * 4, abs=1e-12)
    assert [float(absolute[kind]) for kind in GAP_KINDS] == pytest.approx([0.0] * 4, abs=1e-12)
    assert abs(raw["accuracy"]) > 1e-9


def test_class_rates_by_hand() -> None:
    rates = class_rates(frame(BY_HAND)).set_index(["gender", "emotion"])

    assert len(rates) == 2 * 7
    assert rates.loc[("female", "joy"), ["n", "n_others", "tpr", "fpr"]].tolist() == [4, 2, 0.75, 0.0]
    assert rates.loc[("male", "anger"), ["n", "n_others", "tpr", "fpr"]].tolist() == [4, 2, 0.5, 0.5]
    fear = rates.loc[("male", "fear")]
    assert (fear["n"], fear["n_others"], fear["fpr"]) == (0, 6, 0.0) and np.isnan(fear["tpr"])


def test_invalid_answer_is_wrong_and_counted_by_gender() -> None:
    rows = [("female", "joy", "joy"), ("female", "joy", "invalid"), ("male", "joy", "joy"), ("male", "anger", "joy")]
    figures = evaluate(frame(rows))
    cell = figures["cells"]["en/speech"]

    assert figures["accuracy"] == 0.5 and figures["invalid"] == 0.25
    assert [cell["by_group"][gender]["invalid"] for gender in ("female", "male")] == [0.5, 0.0]
    # women: joy predicted for 1 of 2, never wrongly: F1 = 2/3
    assert cell["by_group"]["female"]["w_f1"] == pytest.approx(2 / 3)
    # scikit-learn on all four: joy F1 = 2 * 2 / (3 + 3), anger 0
    assert figures["w_f1"] == pytest.approx(3 / 4 * 2 / 3)


def test_worst_group_has_the_lowest_w_f1() -> None:
    fair = frame([(g, e, e) for g in ("female", "male") for e in ("joy", "anger")], language="ja")
    figures = evaluate(pd.concat([frame(BY_HAND), fair]))

    assert figures["worst_group"] == "en/speech/male"
    assert figures["worst_group_w_f1"] == pytest.approx((2 * 2 / 5 + 4 * 4 / 7) / 6)


def test_fairlearn_agrees_on_invalid_answers_and_the_worst_group() -> None:
    predictions = random_frame(600, 7, ("female", "male"))
    predictions.loc[::9, "predicted"] = "invalid"
    figures = evaluate(predictions)
    theirs = MetricFrame(
        metrics={
            "invalid": lambda t, p: float((p == "invalid").mean()),
            "w_f1": lambda t, p: f1_score(t, p, average="weighted", labels=list(EMOTIONS), zero_division=0.0),
            "uar": lambda t, p: recall_score(t, p, average="macro", labels=sorted(set(t))),
        },
        y_true=predictions["emotion"],
        y_pred=predictions["predicted"],
        sensitive_features=predictions["gender"],
        control_features=predictions["language"],
    )

    for (language, gender), row in theirs.by_group.iterrows():
        of_group = figures["cells"][f"{language}/speech+text"]["by_group"][gender]
        kinds = ["invalid", "w_f1", "uar"]
        assert [of_group[kind] for kind in kinds] == pytest.approx(row[kinds].tolist())
    assert figures["worst_group_w_f1"] == pytest.approx(theirs.group_min()["w_f1"].min())


def test_unknown_gender_counts_in_no_gap() -> None:
    without = evaluate(frame(BY_HAND))
    with_unknown = evaluate(frame([*BY_HAND, ("unknown", "joy", "fear")]))

    assert with_unknown["gap"] == without["gap"]
    assert with_unknown["accuracy"] == pytest.approx(8 / 13)
    assert with_unknown["cells"]["en/speech"]["n_unknown"] == 1


def test_cell_without_one_gender_has_no_gap_and_enters_no_mean_gap() -> None:
    women_only = frame([("female", "joy", "joy"), ("female", "anger", "joy")], language="de")
    both = evaluate(pd.concat([frame(BY_HAND), women_only]))
    alone = evaluate(women_only)

    assert both["gap"] == both["worst_gap"] == evaluate(frame(BY_HAND))["gap"]
    assert both["cells"]["de/speech"]["gap"] is None
    assert both["cells"]["de/speech"]["by_group"]["male"] == dict.fromkeys(("w_f1", "accuracy", "uar", "invalid"))
    assert both["accuracy"] == pytest.approx((8 / 12 + 1 / 2) / 2)  # languages have equal weights, whatever their size
    assert alone["gap"] is None and alone["worst_gap"] is None and alone["gap_tpr"] is None


def test_gap_is_the_mean_and_worst_gap_the_largest_over_cells() -> None:
    fair = frame([(g, e, e) for g in ("female", "male") for e in ("joy", "anger")], language="ja")
    figures = evaluate(pd.concat([frame(BY_HAND), fair]))

    assert figures["cells"]["ja/speech"]["gap"] == 0.0
    assert figures["gap"] == pytest.approx(figures["worst_gap"] / 2)


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_and_fairlearn_agree(seed: int) -> None:
    predictions = random_frame(900, seed)
    figures = evaluate(predictions)

    for language, rows in predictions.groupby("language"):
        cell = figures["cells"][f"{language}/speech+text"]
        assert cell["w_f1"] == pytest.approx(f1_score(rows["emotion"], rows["predicted"], average="weighted"))
        assert cell["accuracy"] == pytest.approx(accuracy_score(rows["emotion"], rows["predicted"]))
        assert cell["uar"] == pytest.approx(balanced_accuracy_score(rows["emotion"], rows["predicted"]))

        known = rows[rows["gender"] != "unknown"]
        shared = sorted(set.intersection(*(set(r["emotion"]) for _, r in known.groupby("gender"))))
        metrics = {
            "w_f1": lambda t, p: f1_score(t, p, average="weighted"),
            "accuracy": accuracy_score,
            **{f"tpr {c}": lambda t, p, c=c: recall_score(t == c, p == c) for c in shared},
            **{f"fpr {c}": lambda t, p, c=c: 1 - recall_score(t != c, p != c) for c in shared},
        }
        by_gender = MetricFrame(
            metrics=metrics,
            y_true=known["emotion"],
            y_pred=known["predicted"],
            sensitive_features=known["gender"],
        )
        signed = by_gender.by_group.loc["female"] - by_gender.by_group.loc["male"]
        for kind in ("w_f1", "accuracy"):
            assert cell["signed"][kind] == pytest.approx(signed[kind])
        for kind in ("tpr", "fpr"):
            of_classes = signed[[f"{kind} {c}" for c in shared]]
            assert cell["signed"][kind] == pytest.approx(of_classes.mean())
            assert cell["absolute"][kind] == pytest.approx(of_classes.abs().mean())
        ours = class_rates(rows).set_index(["gender", "emotion"])
        for kind, emotion in ((k, c) for k in ("tpr", "fpr") for c in shared):
            theirs = by_gender.by_group[f"{kind} {emotion}"]
            assert [ours.loc[(g, emotion), kind] for g in theirs.index] == pytest.approx(theirs.tolist())
        # at common priors, fairlearn weights every utterance by (share in the language) / (share in its gender)
        both = known[known["emotion"].isin(shared)]
        share = both["emotion"].map(both["emotion"].value_counts())
        of_gender = both.groupby("gender")["emotion"].transform(lambda e: e.map(e.value_counts()))
        weighted = MetricFrame(
            metrics={
                "w_f1": lambda t, p, weight, shared=shared: f1_score(
                    t, p, average="weighted", labels=shared, sample_weight=weight
                ),
                "accuracy": lambda t, p, weight: accuracy_score(t, p, sample_weight=weight),
            },
            y_true=both["emotion"],
            y_pred=both["predicted"],
            sensitive_features=both["gender"],
            sample_params={kind: {"weight": share / of_gender} for kind in ("w_f1", "accuracy")},
        )
        for kind in ("w_f1", "accuracy"):
            expected = weighted.by_group.loc["female", kind] - weighted.by_group.loc["male", kind]
            assert cell["standardised"][kind] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["female", "male", "unknown"]),
            st.sampled_from(EMOTIONS),
            st.sampled_from(EMOTIONS),
            st.sampled_from(LANGUAGES),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(["mean_of_gaps", "gap_of_means"]),
)
def test_any_predictions_give_finite_json_and_a_gender_swap_flips_signs(rows: list, class_average: str) -> None:
    table = pd.DataFrame(rows, columns=["gender", "emotion", "predicted", "language"])
    table = table.assign(utterance_id=np.arange(len(table)), modality="speech")
    swapped = table.assign(gender=table["gender"].replace({"female": "male", "male": "female"}))
    figures, mirror = evaluate(table, class_average), evaluate(swapped, class_average)

    json.dumps(figures, allow_nan=False)
    assert figures["gap"] == pytest.approx(mirror["gap"])
    for name, cell in figures["cells"].items():
        for kind in GAP_KINDS:
            signed, other = cell["signed"][kind], mirror["cells"][name]["signed"][kind]
            assert (signed is None and other is None) or signed == pytest.approx(-other)
            if signed is not None:
                assert abs(signed) <= cell["absolute"][kind] + 1e-12 <= 1 + 2e-12


def test_counts_can_have_leading_axes() -> None:
    _, counts = confusion_counts(random_frame(600, 1))
    stacked = average_gap(counts[:, 0], counts[:, 1])

    assert stacked.shape == (3,)
    assert stacked[1] == average_gap(counts[1, 0], counts[1, 1])


def test_label_is_that_of_the_highest_score() -> None:
    scores = pd.DataFrame(np.full((2, 7), -5.0), columns=list(SCORE_COLUMNS))
    scores.loc[0, "score_anger"] = -0.1
    assert labels_from_scores(scores).tolist() == ["anger", "neutral"]  # ties go to the earlier emotion
    assert labels_from_scores(scores.iloc[:0]).tolist() == []

    scores.loc[1, "score_fear"] = np.nan
    with pytest.raises(ValueError, match="1 rows .* NaN"):
        labels_from_scores(scores)
    with pytest.raises(ValueError, match="score_joy"):
        labels_from_scores(scores.drop(columns="score_joy"))


@pytest.mark.parametrize(
    ("predictions", "problem"),
    [
        (frame(BY_HAND).drop(columns="gender"), "lack the columns gender"),
        (frame(BY_HAND).iloc[:0], "no rows"),
        (frame([("female", "joy", "happy")]), "'predicted' has happy; expected one of neutral"),
        (frame([("woman", "joy", "joy")]), "'gender' has woman"),
        (frame(BY_HAND).assign(language="fr"), "'language' has fr"),
        (frame(BY_HAND).assign(utterance_id="x"), "11 predictions occur twice, the first is utterance 'x'"),
    ],
)
def test_invalid_predictions_are_refused(predictions: pd.DataFrame, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        evaluate(predictions)


def test_unknown_class_average_is_refused() -> None:
    with pytest.raises(ValueError, match="class_average"):
        evaluate(frame(BY_HAND), class_average="median")  # type: ignore[arg-type]


def test_evaluation_counts_the_predictions_once(monkeypatch) -> None:
    """Every metric comes from one table of counts, which keeps an evaluation in the order of milliseconds."""
    calls = []
    monkeypatch.setattr(metrics, "confusion_counts", lambda table: calls.append(len(table)) or confusion_counts(table))
    evaluate(random_frame(2100, 0))
    assert calls == [2100]
