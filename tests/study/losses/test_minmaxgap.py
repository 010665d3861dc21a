"""ERM-MinMaxGAP on values computed by hand, and its properties on arbitrary values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.common.groups import Cell
from study.losses.base import GlobalBatch, sample_weights, signed_gaps
from study.losses.gap_estimators import BatchGaps, HeldOutGaps, MovingAverageGaps
from study.losses.minmaxgap import Coefficients, ErmMinMaxGap
from study.losses.schedules import AdaptiveWeight

F0, M0, F1, M1 = 0, 1, 2, 3  # groups of two cells
CELLS = (Cell("en", "speech"), Cell("de", "speech"), Cell("ja", "speech"))
TWO = CELLS[:2]


def batch_of(losses, groups, cells=TWO, dtype=torch.float64):
    return GlobalBatch(torch.tensor(losses, dtype=dtype), torch.tensor(groups), cells)


def value_of(losses, groups, weight=1.0, **hyperparameters):
    return ErmMinMaxGap(**hyperparameters)(batch_of(losses, groups), (weight,))


def weights_of(losses, groups, weight, cells=TWO, **hyperparameters):
    return sample_weights(ErmMinMaxGap(**hyperparameters), batch_of(losses, groups, cells), (weight,), {})


def test_components_by_hand():
    # cell 0: women (1 + 2) / 2 = 1.5, man 3.5: gap -2. cell 1: woman 1.0, man 0.5: gap 0.5.
    value = value_of([1.0, 2.0, 3.5, 1.0, 0.5], [F0, F0, M0, F1, M1], weight=0.5)
    assert float(value.risk) == pytest.approx(1.6)
    assert value.signed_gaps.tolist() == [-2.0, 0.5]
    assert float(value.penalty) == 4.0 and int(value.active) == 0
    assert float(value.total) == pytest.approx(1.6 + 0.5 * 4.0)


def test_power_one_and_coefficients():
    losses, groups = [1.0, 3.0, 1.0, 2.0], [F0, M0, F1, M1]  # gaps 2 and 1
    assert float(value_of(losses, groups, power=1).penalty) == 2.0
    german = value_of(losses, groups, power=1, coefficients=Coefficients(languages={"en": 0.2, "de": 1.8}))
    assert float(german.penalty) == pytest.approx(1.8) and int(german.active) == 1


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("max", 4.0),
        ("mean", 2.5),
        ("sum", 5.0),
        ("softmax", 2.0 * math.log((math.exp(4 / 2) + math.exp(1 / 2)) / 2)),  # 2.8 at tau 2: between mean and max
    ],
)
def test_reductions_of_penalties_4_and_1(reduction, expected):
    value = value_of([1.0, 3.0, 1.0, 2.0], [F0, M0, F1, M1], reduction=reduction, temperature=2.0)
    assert float(value.penalty) == pytest.approx(expected)


def test_softmax_is_near_max_at_low_and_near_mean_at_high_temperature():
    rows = [1.0, 3.0, 1.0, 2.0], [F0, M0, F1, M1]
    assert float(value_of(*rows, reduction="softmax", temperature=0.01).penalty) == pytest.approx(4.0, abs=0.01)
    assert float(value_of(*rows, reduction="softmax", temperature=1e4).penalty) == pytest.approx(2.5, abs=0.01)


@pytest.mark.parametrize("reduction", ["max", "mean", "sum", "softmax"])
def test_cell_without_a_gender_has_no_gap_and_no_nan(reduction):
    value = value_of([5.0, 1.0, 1.5], [F0, F1, M1], reduction=reduction)  # cell 0 has no man
    assert value.present.tolist() == [False, True]
    assert value.signed_gaps.tolist() == [0.0, -0.5]
    assert float(value.penalty) == pytest.approx(0.25)
    erm_weights, no_gap = weights_of([1.0, 2.0], [F0, F1], 3.0, reduction=reduction)
    assert float(no_gap.penalty) == 0.0 and int(no_gap.active) == -1
    assert erm_weights.losses.tolist() == [0.5, 0.5]  # plain ERM


def test_unknown_gender_counts_only_in_the_risk():
    value = value_of([1.0, 2.0, 9.0], [F0, M0, -1])
    assert float(value.risk) == 4.0
    assert float(value.penalty) == 1.0


def test_one_fairness_weight_per_cell():
    loss = ErmMinMaxGap(fairness_weight=AdaptiveWeight(per_cell=True))
    assert loss.n_fairness_weights(2) == 2
    value = loss(batch_of([1.0, 3.0, 1.0, 2.0], [F0, M0, F1, M1]), (0.5, 2.0))
    assert float(value.total) == pytest.approx(1.75 + 0.5 * 4.0 + 2.0 * 1.0)
    with pytest.raises(ValueError):
        loss(batch_of([1.0], [F0]), (0.5,))  # two cells, one weight


def test_sample_weights_equal_the_formula():
    # one cell, eight women at 2 nats and eight men at 1: gap 1. w = 1/16 + 3 * 2 * 1 * (+-1) / 8
    losses, groups = [2.0] * 8 + [1.0] * 8, [F0] * 8 + [M0] * 8
    weights, _ = weights_of(losses, groups, 3.0, CELLS[:1])
    assert weights.losses[:8].tolist() == pytest.approx([1 / 16 + 0.75] * 8)
    assert weights.losses[8:].tolist() == pytest.approx([1 / 16 - 0.75] * 8)  # negative for the better group: N w = -11
    clamped, _ = weights_of(losses, groups, 3.0, CELLS[:1], min_sample_weight=0.0)
    assert clamped.losses.tolist() == pytest.approx([1 / 16 + 0.75] * 8 + [0.0] * 8)


def test_weighted_sum_has_the_gradient_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    groups = torch.randint(0, 4, (40,), generator=generator)
    loss = ErmMinMaxGap(coefficients=Coefficients(cells={"en/speech": 0.5, "de/speech": 1.5}))

    def gradient(of):
        theta = torch.ones(5, dtype=torch.float64, requires_grad=True)
        of(GlobalBatch((features @ theta) ** 2, groups, TWO)).backward()
        return theta.grad

    direct = gradient(lambda batch: loss(batch, (0.7,)).total)
    weighted = gradient(lambda b: (sample_weights(loss, b, (0.7,), {})[0].losses * b.losses).sum())
    torch.testing.assert_close(weighted, direct, rtol=1e-12, atol=0)


def test_coefficients_multiply_and_have_mean_one():
    cells = (Cell("en", "speech"), Cell("de", "speech"), Cell("en", "speech+text"), Cell("de", "speech+text"))
    shared = Coefficients(languages={"de": 3.0}, modalities={"speech": 2.0})
    assert shared.kappa(cells) == pytest.approx((2 / 3, 2.0, 1 / 3, 1.0))  # raw 2, 6, 1, 3 with mean 3
    deviating = shared.model_copy(update={"cells": {"de/speech": 0.5}})
    assert deviating.kappa(cells) == pytest.approx((2 / 2.25, 3 / 2.25, 1 / 2.25, 3 / 2.25))
    with pytest.raises(ValueError, match="every coefficient is 0"):
        Coefficients(languages={"en": 0.0, "de": 0.0}).kappa(TWO)


# Gap estimators


def test_moving_average_gaps_by_hand():
    ema = MovingAverageGaps(decay=0.5)
    first, _, state = ema.estimate(batch_of([3.0, 1.0], [F0, M0]), {})
    assert first.tolist() == [2.0, 0.0]  # the first step needs no correction
    # women: (0.5 * 3 + 1 + 1) / (0.5 + 2) = 1.4; men: (0.5 * 1 + 2) / (0.5 + 1) = 5/3
    second, present, state = ema.estimate(batch_of([1.0, 1.0, 2.0], [F0, F0, M0]), state)
    assert second.tolist() == pytest.approx([1.4 - 5 / 3, 0.0]) and present.tolist() == [True, False]
    # a batch without men keeps their mean and has no gradient
    losses = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    third, present, _ = ema.estimate(GlobalBatch(losses, torch.tensor([F0]), TWO), state)
    assert third[0].item() == pytest.approx((0.5 * 0.5 * 3 + 0.5 * 2 + 5) / (0.25 + 1 + 1) - 5 / 3)
    (gradient,) = torch.autograd.grad(third.sum(), losses)
    assert gradient.tolist() == [0.0]


def test_held_out_gaps_give_magnitude_and_sign_and_the_batch_the_gradient():
    loss = ErmMinMaxGap(estimator=HeldOutGaps())
    state = loss.estimator.measure(batch_of([2.0, 1.5, 1.0, 1.0], [F0, M0, F1, M1]))  # +0.5 and 0
    assert state["gaps"].tolist() == [0.5, 0.0]
    # men of cell 0 are worse on the batch, women on held-out utterances: the women get the larger weight
    batch = batch_of([1.0, 3.0, 9.0, 0.0], [F0, M0, F1, M1])
    weights, value = sample_weights(loss, batch, (1.0,), state)
    assert float(value.penalty) == 0.25 and value.state is state
    assert weights.losses.tolist() == pytest.approx([0.25 + 1.0, 0.25 - 1.0, 0.25, 0.25])  # 2 * 0.5 * (+-1) / 1


def test_gap_from_noise_alone():
    """The largest of three estimated gaps, for losses of sd 1.2 without any true gap.

    Expected values: 0.69 nats at batch 64 balanced, 0.72 natural, 0.34 at 256, 0.16 for a
    moving average of decay 0.9, 0.05 of 0.99, 0.10 over a held-out set of 2,884.
    """
    generator = torch.Generator().manual_seed(0)

    def largest(estimator, size, balanced=True, warm_up=0, draws=400):
        largest_gaps, state = [], {}
        for step in range(warm_up + draws):
            groups = torch.randint(0, 6, (size,), generator=generator)
            if balanced:
                groups = torch.arange(size) % 6
            losses = 1.2 * torch.randn(size, generator=generator)
            gaps, _, state = estimator.estimate(GlobalBatch(losses, groups, CELLS), state)
            if step >= warm_up:
                largest_gaps.append(float(gaps.abs().max()))
        return sum(largest_gaps) / draws

    assert largest(BatchGaps(), 64) == pytest.approx(0.69, abs=0.03)
    assert largest(BatchGaps(), 64, balanced=False) == pytest.approx(0.72, abs=0.04)
    assert largest(BatchGaps(), 256) == pytest.approx(0.34, abs=0.02)
    assert largest(BatchGaps(), 2884) == pytest.approx(0.10, abs=0.01)  # a held-out set of that size
    assert largest(MovingAverageGaps(decay=0.9), 64, warm_up=60, draws=2000) == pytest.approx(0.16, abs=0.02)
    assert largest(MovingAverageGaps(decay=0.99), 64, warm_up=500, draws=4000) == pytest.approx(0.05, abs=0.015)


# Properties

losses_and_groups = st.lists(st.tuples(st.floats(0.0, 20.0, width=32), st.integers(-1, 3)), min_size=1, max_size=40)
loss_variants = st.builds(
    ErmMinMaxGap,
    power=st.sampled_from([1, 2]),
    reduction=st.sampled_from(["max", "mean", "sum", "softmax"]),
    coefficients=st.just(Coefficients(languages={"en": 0.5, "de": 1.5})),
    estimator=st.sampled_from([BatchGaps(), MovingAverageGaps()]),
)


def total(loss, rows, weight=0.3):
    losses, groups = zip(*rows, strict=True)
    return float(loss(batch_of(losses, groups), (weight,)).total)


@settings(deadline=None, max_examples=80)
@given(losses_and_groups, st.randoms(use_true_random=False), loss_variants)
def test_loss_is_invariant_to_order_gender_swap_and_duplication(rows, random, loss):
    expected = total(loss, rows)
    assert math.isfinite(expected)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert total(loss, shuffled) == pytest.approx(expected)
    assert total(loss, [(loss, group ^ 1 if group >= 0 else group) for loss, group in rows]) == pytest.approx(expected)
    assert total(loss, rows * 3) == pytest.approx(expected)  # means, not sums


@settings(deadline=None, max_examples=60)
@given(losses_and_groups, st.floats(0.1, 10.0), st.sampled_from([1, 2]), st.sampled_from(["max", "mean", "sum"]))
def test_scaling_the_losses_scales_risk_and_penalty(rows, factor, power, reduction):
    losses, groups = zip(*rows, strict=True)
    original = value_of(losses, groups, power=power, reduction=reduction)
    scaled = value_of([factor * loss for loss in losses], groups, power=power, reduction=reduction)
    assert float(scaled.risk) == pytest.approx(factor * float(original.risk))
    assert float(scaled.penalty) == pytest.approx(factor**power * float(original.penalty))


@settings(deadline=None, max_examples=60)
@given(losses_and_groups, loss_variants)
def test_cell_without_a_gender_does_not_affect_the_other(rows, loss):
    no_men = [(value, group) for value, group in rows if group != M1]  # cell 1 has no gap
    no_cell = [(value, -1 if group == F1 else group) for value, group in no_men]
    if no_men:
        assert total(loss, no_men) == pytest.approx(total(loss, no_cell))


@settings(deadline=None, max_examples=60)
@given(losses_and_groups, loss_variants, st.floats(0.0, 10.0))
def test_penalty_weights_are_equal_within_a_group_and_sum_to_zero(rows, loss, weight):
    losses, groups = zip(*rows, strict=True)
    weights, _ = sample_weights(loss, batch_of(losses, groups), (weight,), {})
    assert torch.isfinite(weights.losses).all()
    assert float(weights.losses.sum()) == pytest.approx(1.0)  # the weights of the penalty sum to 0
    for group in set(groups):
        of_group = weights.losses[torch.tensor(groups) == group]
        assert of_group.tolist() == pytest.approx([float(of_group[0])] * len(of_group))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("reduction", ["max", "mean", "sum", "softmax"])
@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0, 1.0], [1e30, 0.0, 0.0, 1e-30]])
def test_gradient_is_finite_without_gap_and_at_extreme_losses(power, reduction, losses):
    weights, _ = weights_of(losses, [F0, M0, F1, M1], 1.0, power=power, reduction=reduction)
    assert torch.isfinite(weights.losses).all()


def test_group_means_and_counts():
    means, counts = batch_of([1.0, 3.0, 7.0], [F0, F0, M1]).group_means()
    assert means.tolist() == [2.0, 0.0, 0.0, 7.0]
    assert counts.tolist() == [2.0, 0.0, 0.0, 1.0]
    _, present = signed_gaps(means, counts)
    assert not present.any()
