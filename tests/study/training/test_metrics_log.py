"""Rows of the step and epoch records, computed by hand."""

from __future__ import annotations

import pytest
import torch

from study.common.groups import cells
from study.losses.base import GlobalBatch, sample_weights
from study.losses.minmaxgap import ErmMinMaxGap
from study.training.metrics_log import epoch_record, step_record

CELLS = cells(["en", "de"], ["speech"])


def record(losses, groups, weights=(2.0,)):
    batch = GlobalBatch(torch.tensor(losses), torch.tensor(groups), CELLS)
    samples, value = sample_weights(ErmMinMaxGap(power=1), batch, weights, {})
    return step_record(CELLS, weights, value, samples)


def test_step_record_by_hand():
    # English: women 1, men 2; German: women 4, men 1 (a gap of 3 nats, the larger one)
    row = record([1.0, 2.0, 4.0, 1.0], [0, 1, 2, 3])
    assert row["loss"] == 2.0 and row["penalty"] == 3.0 and row["fairness_weight"] == 2.0
    assert (row["gap/en/speech"], row["gap/de/speech"], row["active"]) == (-1.0, 3.0, "de/speech")
    # w = 1/4 + 2 * (+1, -1) in German: one utterance in four has a negative weight
    assert row["negative_weights"] == 0.25
    assert not any(name.startswith("fairness_weight/") for name in row)


def test_cell_without_a_gender_has_no_gap():
    row = record([1.0, 2.0, 4.0], [0, 1, 2])
    assert row["gap/de/speech"] is None and row["active"] == "en/speech"
    no_gap = record([1.0, 4.0], [0, 2])
    assert no_gap["active"] is None and no_gap["penalty"] == 0.0


def test_epoch_record_is_the_mean_of_its_steps():
    step = {"penalty": 0.0, "negative_weights": 0.0, "gap/de/speech": -1.0}
    steps = [
        {"epoch": 1, "loss": 9.0, "fairness_weight": 0.0, **step},
        {"epoch": 2, "loss": 1.0, "fairness_weight": 1.0, **step},
        {"epoch": 2, "loss": 2.0, "fairness_weight": 3.0, **step, "gap/de/speech": 2.0},
    ]
    row = epoch_record(2, steps, {"w_f1": 0.5, "accuracy": 0.6, "gap": None}, {"train": 1.23456, "total": 9.0})
    assert (row["loss"], row["fairness_weight"], row["gaps"]) == (1.5, 3.0, {"de/speech": pytest.approx(1.5)})
    assert row["seconds"] == {"train": 1.235} and row["dev"]["gap"] is None
