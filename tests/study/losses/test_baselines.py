"""The losses of the comparison, each on values computed by hand."""

from __future__ import annotations

import math
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from study.common.errors import SettingsError
from study.common.groups import Cell
from study.config.config_id import config_id
from study.config.settings import Settings
from study.losses import baselines
from study.losses.base import GlobalBatch, Loss, PenalisedLoss, sample_weights
from study.losses.baselines import LOSSES
from study.losses.gap_estimators import HeldOutGaps

F0, M0, F1, M1 = 0, 1, 2, 3
CELLS = (Cell("en", "speech"), Cell("de", "speech"))
BATCH_LOSSES, GROUPS = [1.0, 3.0, 4.0, 1.0], [F0, F0, M0, F1]  # group means 2, 4, 1


def run(name, losses=BATCH_LOSSES, groups=GROUPS, weight=None, state=None, hidden_states=None, **hyperparameters):
    loss = LOSSES[name](**hyperparameters)
    weights = () if weight is None else (weight,)
    if hidden_states is not None:
        hidden_states = torch.tensor(hidden_states, dtype=torch.float64)
    batch = GlobalBatch(torch.tensor(losses, dtype=torch.float64), torch.tensor(groups), CELLS, hidden_states)
    return sample_weights(loss, batch, weights, state or {})


def test_erm():
    weights, value = run("erm")
    assert float(value.total) == 2.25
    assert weights.losses.tolist() == [0.25] * 4


def test_reweighting():
    weights, value = run("reweighting")
    assert float(value.total) == pytest.approx((2 + 4 + 1) / 3)
    assert weights.losses.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])  # 1 / (K n_k)


def test_group_dro():
    weights, value = run("group_dro", step_size=math.log(2))  # exp(eta L) = 2^L: 4, 16, 2, and 1 where absent
    assert value.state["q"].tolist() == pytest.approx([4 / 23, 16 / 23, 2 / 23, 1 / 23])
    assert float(value.total) == pytest.approx((4 * 2 + 16 * 4 + 2 * 1) / 22)  # over the groups present
    assert weights.losses.tolist() == pytest.approx([2 / 22, 2 / 22, 16 / 22, 2 / 22])
    _, second = run("group_dro", step_size=math.log(2), state=value.state)
    assert second.state["q"].tolist() == pytest.approx([16 / 277, 256 / 277, 4 / 277, 1 / 277])


def test_v_rex():
    weights, value = run("v_rex", weight=3.0)
    variance = ((2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2 + (1 - 7 / 3) ** 2) / 3  # 14/9
    assert float(value.penalty) == pytest.approx(variance) == pytest.approx(14 / 9)
    assert float(value.total) == pytest.approx(7 / 3 + 3 * 14 / 9)
    # d/dL_k = 1/K + beta * 2 (L_k - mean) / K, shared by the n_k utterances
    assert weights.losses[2].item() == pytest.approx(1 / 3 + 3 * 2 * (4 - 7 / 3) / 3)


def test_cvar_dro():
    _, half = run("cvar_dro", tail=0.5)
    assert float(half.total) == (4 + 3) / 2
    weights, value = run("cvar_dro", tail=0.375)  # the worst 1.5 of four
    assert float(value.total) == pytest.approx((4 + 0.5 * 3) / 1.5)
    assert weights.losses.tolist() == pytest.approx([0.0, 0.5 / 1.5, 1 / 1.5, 0.0])
    assert float(run("cvar_dro", tail=1.0)[1].total) == 2.25  # ERM


def test_minimax():
    weights, value = run("minimax")
    assert float(value.total) == 4.0
    assert weights.losses.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_min_diff():
    # two women at 0, two men at 1: of the twelve ordered pairs eight have squared distance 1, the median
    hidden_states = [[0.0], [0.0], [1.0], [1.0]]
    weights, value = run("min_diff", groups=[F0, F1, M0, M1], hidden_states=hidden_states, weight=2.0)
    assert float(value.penalty) == pytest.approx(1 + 1 - 2 * math.exp(-1))
    assert weights.losses.tolist() == [0.25] * 4 and torch.isfinite(weights.hidden_states).all()
    spread = [[0.0], [2.0], [1.0], [3.0]]
    weights, value = run("min_diff", groups=[F0, F1, M0, M1], hidden_states=spread, weight=2.0)
    # squared distances of the ordered pairs: six 1 (01 12 23 and back), four 4, two 9; the lower median of twelve is 1
    within = (1 + math.exp(-4.0)) / 2
    across = (math.exp(-1.0) * 3 + math.exp(-9.0)) / 4
    assert float(value.penalty) == pytest.approx(2 * within - 2 * across)
    assert weights.hidden_states[3].item() > 0  # descent moves the outermost man inwards
    _, without_men = run("min_diff", groups=[F0, F0, F1, F1], hidden_states=spread, weight=2.0)
    assert float(without_men.penalty) == 0.0


def fairness_weights_of(loss: Loss) -> tuple[float, ...]:
    return (0.7,) * (loss.n_fairness_weights(len(CELLS)) if isinstance(loss, PenalisedLoss) else 0)


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.0, 20.0, width=32), st.integers(-1, 3)), min_size=1, max_size=24),
    st.randoms(use_true_random=False),
)
def test_every_loss_is_finite_and_invariant_to_order_and_gender_swap(name, rows, random):
    loss = LOSSES[name]()

    def total(pairs):
        losses, groups = zip(*pairs, strict=True)
        values = torch.tensor(losses, dtype=torch.float64)
        batch = GlobalBatch(values, torch.tensor(groups), CELLS, torch.stack([values, values**2], 1))
        weights, value = sample_weights(loss, batch, fairness_weights_of(loss), {})
        assert torch.isfinite(weights.losses).all()
        assert weights.hidden_states is None or torch.isfinite(weights.hidden_states).all()
        return float(value.total)

    expected = total(rows)
    assert math.isfinite(expected)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert total(shuffled) == pytest.approx(expected)
    assert total([(loss, group ^ 1 if group >= 0 else group) for loss, group in rows]) == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("erm", "cvar_dro")])
def test_utterance_of_unknown_gender_keeps_its_weight(name):
    hidden_states = [[0.0], [0.3], [1.0], [2.0], [5.0]]
    weights, _ = run(
        name,
        [*BATCH_LOSSES, 7.0],
        [*GROUPS, -1],
        0.5 if issubclass(LOSSES[name], PenalisedLoss) else None,
        hidden_states=hidden_states,
    )
    assert weights.losses[4].item() == pytest.approx(1 / 5)


def test_loss_state_survives_a_round_trip_through_a_file(tmp_path):
    batch = GlobalBatch(torch.tensor(BATCH_LOSSES), torch.tensor(GROUPS), CELLS)
    losses_with_state = {
        "group_dro": LOSSES["group_dro"](),
        "ema": LOSSES["minmaxgap"].model_validate({"estimator": {"kind": "ema"}}),
        "held_out": LOSSES["minmaxgap"].model_validate({"estimator": {"kind": "held_out"}}),
    }
    for name, loss in losses_with_state.items():
        start = HeldOutGaps().measure(batch) if name == "held_out" else {}
        _, first = sample_weights(loss, batch, fairness_weights_of(loss), start)
        save_file(dict(first.state), tmp_path / name)
        expected, _ = sample_weights(loss, batch, fairness_weights_of(loss), first.state)
        restored, _ = sample_weights(loss, batch, fairness_weights_of(loss), load_file(tmp_path / name))
        assert first.state and expected.losses.tolist() == restored.losses.tolist()


def test_documented_example_of_a_new_loss_works():
    example = baselines.__doc__.split("and compared.")[1].split("::", 1)[1]
    scope = dict(vars(baselines))
    exec(textwrap.dedent(example), scope)
    batch = GlobalBatch(torch.tensor(BATCH_LOSSES), torch.tensor(GROUPS), CELLS)
    weights, value = sample_weights(scope["WorstCell"](), batch, (), {})
    assert float(value.total) == pytest.approx((1 + 3 + 4) / 3)  # cell 0; cell 1 has one loss of 1
    assert weights.losses.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


def test_loss_without_terms_is_abstract():
    with pytest.raises(TypeError, match="terms"):
        Loss()


def test_every_loss_has_its_own_name_settings_and_config_id():
    ids = set()
    for name in LOSSES:
        chosen = Settings().with_overrides({"loss.method": name})
        assert chosen.loss.method == name
        ids.add(config_id(chosen, CELLS, "corpus", "backbone"))
    assert len(ids) == len(LOSSES) == 8
    with pytest.raises(SettingsError, match=r"loss\.power: there is no such setting"):
        Settings().with_overrides({"loss.method": "group_dro", "loss.power": 1})
