"""The methods of the comparison, each on numbers worked by hand."""

from __future__ import annotations

import math
import textwrap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from study.common.errors import SettingsError
from study.common.groups import Cell
from study.config.config_id import config_id
from study.config.settings import Settings
from study.losses.base import GlobalBatch, Loss, PenalisedLoss, sample_weights
from study.losses.baselines import LOSSES
from study.losses.gap_estimators import HeldOutGaps

F0, M0, F1, M1 = 0, 1, 2, 3
CELLS = (Cell("en", "speech"), Cell("de", "speech"))
BATCH_LOSSES, GROUPS = [1.0, 3.0, 4.0, 1.0], [F0, F0, M0, F1]  # group means 2, 4, 1


def run(name, losses=BATCH_LOSSES, groups=GROUPS, weight=None, state=None, states=None, **hyperparameters):
    loss = LOSSES[name](**hyperparameters)
    weights = () if weight is None else (weight,)
    if states is not None:
        states = torch.tensor(states, dtype=torch.float64)
    batch = GlobalBatch(torch.tensor(losses, dtype=torch.float64), torch.tensor(groups), CELLS, states)
    return sample_weights(loss, batch, weights, state or {})


def test_erm():
    weights, parts = run("erm")
    assert float(parts.total) == 2.25
    assert weights.losses.tolist() == [0.25] * 4


def test_reweighting():
    weights, parts = run("reweighting")
    assert float(parts.total) == pytest.approx((2 + 4 + 1) / 3)
    assert weights.losses.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])  # 1 / (K n_k)


def test_group_dro_moves_its_distribution_to_the_worst_group():
    weights, parts = run("group_dro", step_size=math.log(2))  # exp(eta L) = 2^L: 4, 16, 2, and 1 where absent
    assert parts.state["q"].tolist() == pytest.approx([4 / 23, 16 / 23, 2 / 23, 1 / 23])
    assert float(parts.total) == pytest.approx((4 * 2 + 16 * 4 + 2 * 1) / 22)  # over the groups present
    assert weights.losses.tolist() == pytest.approx([2 / 22, 2 / 22, 16 / 22, 2 / 22])
    _, again = run("group_dro", step_size=math.log(2), state=parts.state)
    assert again.state["q"].tolist() == pytest.approx([16 / 277, 256 / 277, 4 / 277, 1 / 277])


def test_v_rex():
    weights, parts = run("v_rex", weight=3.0)
    variance = ((2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2 + (1 - 7 / 3) ** 2) / 3  # 14/9
    assert float(parts.penalty) == pytest.approx(variance) == pytest.approx(14 / 9)
    assert float(parts.total) == pytest.approx(7 / 3 + 3 * 14 / 9)
    # d/dL_k = 1/K + beta * 2 (L_k - mean) / K, shared by the n_k utterances
    assert weights.losses[2].item() == pytest.approx(1 / 3 + 3 * 2 * (4 - 7 / 3) / 3)


def test_cvar_dro():
    _, half = run("cvar_dro", tail=0.5)
    assert float(half.total) == (4 + 3) / 2
    weights, parts = run("cvar_dro", tail=0.375)  # the worst 1.5 of four
    assert float(parts.total) == pytest.approx((4 + 0.5 * 3) / 1.5)
    assert weights.losses.tolist() == pytest.approx([0.0, 0.5 / 1.5, 1 / 1.5, 0.0])
    assert float(run("cvar_dro", tail=1.0)[1].total) == 2.25  # ERM


def test_minimax():
    weights, parts = run("minimax")
    assert float(parts.total) == 4.0
    assert weights.losses.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_min_diff():
    # two women at 0, two men at 1: of the twelve ordered pairs eight have squared distance 1, the median
    states = [[0.0], [0.0], [1.0], [1.0]]
    weights, parts = run("min_diff", groups=[F0, F1, M0, M1], states=states, weight=2.0)
    assert float(parts.penalty) == pytest.approx(1 + 1 - 2 * math.exp(-1))
    assert weights.losses.tolist() == [0.25] * 4 and torch.isfinite(weights.hidden_states).all()
    spread = [[0.0], [2.0], [1.0], [3.0]]
    weights, parts = run("min_diff", groups=[F0, F1, M0, M1], states=spread, weight=2.0)
    # squared distances of the ordered pairs: six 1 (01 12 23 and back), four 4, two 9; the lower median of twelve is 1
    within = (1 + math.exp(-4.0)) / 2
    across = (math.exp(-1.0) * 3 + math.exp(-9.0)) / 4
    assert float(parts.penalty) == pytest.approx(2 * within - 2 * across)
    assert weights.hidden_states[3].item() > 0  # the outermost man is drawn inwards by descent
    assert float(run("min_diff", groups=[F0, F0, F1, F1], states=spread, weight=2.0)[1].penalty) == 0.0  # no men


def weights_for(loss: Loss) -> tuple[float, ...]:
    return (0.7,) * (loss.n_fairness_weights(len(CELLS)) if isinstance(loss, PenalisedLoss) else 0)


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.0, 20.0, width=32), st.integers(-1, 3)), min_size=1, max_size=24),
    st.randoms(use_true_random=False),
)
def test_every_method_is_finite_and_blind_to_order_and_to_the_naming_of_genders(name, rows, random):
    loss = LOSSES[name]()

    def total(pairs):
        losses, groups = zip(*pairs, strict=True)
        values = torch.tensor(losses, dtype=torch.float64)
        batch = GlobalBatch(values, torch.tensor(groups), CELLS, torch.stack([values, values**2], 1))
        weights, parts = sample_weights(loss, batch, weights_for(loss), {})
        assert torch.isfinite(weights.losses).all()
        assert weights.hidden_states is None or torch.isfinite(weights.hidden_states).all()
        return float(parts.total)

    expected = total(rows)
    assert math.isfinite(expected)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert total(shuffled) == pytest.approx(expected)
    assert total([(loss, group ^ 1 if group >= 0 else group) for loss, group in rows]) == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("erm", "cvar_dro")])
def test_an_utterance_of_unknown_gender_keeps_its_weight(name):
    states = [[0.0], [0.3], [1.0], [2.0], [5.0]]
    weights, _ = run(
        name,
        [*BATCH_LOSSES, 7.0],
        [*GROUPS, -1],
        0.5 if issubclass(LOSSES[name], PenalisedLoss) else None,
        states=states,
    )
    assert weights.losses[4].item() == pytest.approx(1 / 5)


def test_memory_is_plain_tensors_and_survives_a_round_trip(tmp_path):
    from safetensors.torch import load_file, save_file

    batch = GlobalBatch(torch.tensor(BATCH_LOSSES), torch.tensor(GROUPS), CELLS)
    remembering = {
        "group_dro": LOSSES["group_dro"](),
        "ema": LOSSES["minmaxgap"].model_validate({"estimator": {"kind": "ema"}}),
        "held_out": LOSSES["minmaxgap"].model_validate({"estimator": {"kind": "held_out"}}),
    }
    for name, loss in remembering.items():
        start = HeldOutGaps().measure(batch) if name == "held_out" else {}
        _, first = sample_weights(loss, batch, weights_for(loss), start)
        save_file(dict(first.state), tmp_path / name)
        kept, _ = sample_weights(loss, batch, weights_for(loss), first.state)
        read, _ = sample_weights(loss, batch, weights_for(loss), load_file(tmp_path / name))
        assert first.state and kept.losses.tolist() == read.losses.tolist()


def test_the_method_that_the_documentation_adds_works():
    import study.losses.baselines

    text = study.losses.baselines.__doc__.split("and compared.")[1].split("::", 1)[1]
    scope = dict(vars(study.losses.baselines))
    exec(textwrap.dedent(text), scope)
    batch = GlobalBatch(torch.tensor(BATCH_LOSSES), torch.tensor(GROUPS), CELLS)
    weights, parts = sample_weights(scope["WorstCell"](), batch, (), {})
    assert float(parts.total) == pytest.approx((1 + 3 + 4) / 3)  # cell 0; cell 1 has one loss of 1
    assert weights.losses.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.0])


def test_a_method_without_terms_cannot_be_made():
    with pytest.raises(TypeError, match="terms"):
        Loss()


def test_methods_have_names_knobs_and_ids_of_their_own():
    ids = set()
    for name in LOSSES:
        chosen = Settings().with_overrides({"loss.method": name})
        assert chosen.loss.method == name
        ids.add(config_id(chosen, CELLS, "corpus", "backbone"))
    assert len(ids) == len(LOSSES) == 8
    with pytest.raises(SettingsError, match=r"loss\.power: there is no such setting"):
        Settings().with_overrides({"loss.method": "group_dro", "loss.power": 1})
