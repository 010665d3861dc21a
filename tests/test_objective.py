"""The objective on numbers that a reader can check, and its properties on any."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.objective import ErmMinMaxGap, group_means, min_max_gap, signed_gaps, utterance_weights

F0, M0, F1, M1 = 0, 1, 2, 3  # groups of two cells


def parts_of(losses, groups, weight=1.0, coefficients=(1.0, 1.0), power=2):
    return ErmMinMaxGap(coefficients, power)(torch.tensor(losses), torch.tensor(groups), weight)


def test_arithmetic_by_hand():
    # cell 0: women (1 + 2) / 2 = 1.5, man 3.5: gap -2. cell 1: woman 1.0, man 0.5: gap 0.5.
    parts = parts_of([1.0, 2.0, 3.5, 1.0, 0.5], [F0, F0, M0, F1, M1], weight=0.5)
    assert float(parts.risk) == pytest.approx(1.6)
    assert parts.signed_gaps.tolist() == [-2.0, 0.5]
    assert float(parts.penalty) == 4.0
    assert float(parts.total) == pytest.approx(1.6 + 0.5 * 4.0)


def test_coefficients_choose_the_cell_and_power_one_is_the_gap():
    losses, groups = [1.0, 3.0, 1.0, 2.0], [F0, M0, F1, M1]  # gaps 2 and 1
    assert float(parts_of(losses, groups, power=1).penalty) == 2.0
    assert float(parts_of(losses, groups, coefficients=(0.2, 1.8), power=1).penalty) == pytest.approx(1.8)


def test_absent_gender_gives_no_gap_and_no_nan():
    parts = parts_of([5.0, 1.0, 1.5], [F0, F1, M1])  # cell 0 has no man
    assert parts.present.tolist() == [False, True]
    assert parts.signed_gaps.tolist() == [0.0, -0.5]
    assert float(parts.penalty) == 0.25


def test_unknown_gender_counts_in_the_risk_only():
    parts = parts_of([1.0, 2.0, 9.0], [F0, M0, -1])
    assert float(parts.risk) == 4.0
    assert float(parts.penalty) == 1.0


def test_no_cell_with_both_genders_is_plain_erm():
    losses, groups = torch.tensor([1.0, 2.0]), torch.tensor([F0, F1])
    weights, parts = utterance_weights(ErmMinMaxGap((1.0, 1.0)), losses, groups, 3.0)
    assert float(parts.penalty) == 0.0
    assert weights.tolist() == [0.5, 0.5]


def test_weights_are_those_of_the_formula():
    # one cell, eight women at 2 nats and eight men at 1: gap 1. w = 1/16 + 3 * 2 * 1 * (+-1) / 8
    losses = torch.tensor([2.0] * 8 + [1.0] * 8)
    groups = torch.tensor([F0] * 8 + [M0] * 8)
    weights, _ = utterance_weights(ErmMinMaxGap((1.0,)), losses, groups, 3.0)
    assert weights[:8].tolist() == pytest.approx([1 / 16 + 0.75] * 8)
    assert weights[8:].tolist() == pytest.approx([1 / 16 - 0.75] * 8)  # negative: the better group is unlearned


def test_weighted_sum_has_the_gradient_of_the_objective():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    groups = torch.randint(0, 4, (40,), generator=generator)
    objective = ErmMinMaxGap((0.5, 1.5))

    def gradient(of):
        theta = torch.ones(5, dtype=torch.float64, requires_grad=True)
        losses = (features @ theta) ** 2
        of(losses).backward()
        return theta.grad

    direct = gradient(lambda losses: objective(losses, groups, 0.7).total)
    weighted = gradient(lambda losses: (utterance_weights(objective, losses, groups, 0.7)[0] * losses).sum())
    torch.testing.assert_close(weighted, direct, rtol=1e-12, atol=0)


losses_and_groups = st.lists(st.tuples(st.floats(0.0, 20.0, width=32), st.integers(-1, 3)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=80)
@given(losses_and_groups, st.randoms(use_true_random=False), st.sampled_from([1, 2]))
def test_properties(rows, random, power):
    objective = ErmMinMaxGap((0.5, 1.5), power)

    def total(pairs):
        losses, groups = zip(*pairs, strict=True)
        return float(objective(torch.tensor(losses, dtype=torch.float64), torch.tensor(groups), 0.3).total)

    expected = total(rows)
    assert math.isfinite(expected)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert total(shuffled) == pytest.approx(expected)  # order says nothing
    assert total([(loss, group ^ 1 if group >= 0 else group) for loss, group in rows]) == pytest.approx(expected)
    assert total(rows * 3) == pytest.approx(expected)  # means, not sums


def test_gradient_is_finite_at_no_gap_and_at_extreme_losses():
    for values in ([1.0, 1.0, 1.0, 1.0], [1e30, 0.0, 0.0, 1e-30]):
        for power in (1, 2):
            weights, _ = utterance_weights(
                ErmMinMaxGap((1.0, 1.0), power),
                torch.tensor(values, dtype=torch.float64),
                torch.tensor([0, 1, 2, 3]),
                1.0,
            )
            assert torch.isfinite(weights).all()


def test_group_means_and_counts():
    means, counts = group_means(torch.tensor([1.0, 3.0, 7.0]), torch.tensor([F0, F0, M1]), 2)
    assert means.tolist() == [[2.0, 0.0], [0.0, 7.0]]
    assert counts.tolist() == [[2.0, 0.0], [0.0, 1.0]]
    gaps, present = signed_gaps(means, counts)
    assert not present.any() and float(min_max_gap(gaps, present, torch.ones(2), 2)) == 0.0
