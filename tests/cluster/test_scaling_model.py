"""The model of a step's time and traffic, by hand, and its tables in the cluster's README."""

from __future__ import annotations

import pytest
from transformers import Qwen2AudioConfig

from cluster.scaling_model import NETWORK, NVLINK, SEVEN_B, Model, step_seconds, traffic, traffic_table, trials_table
from study.config.settings import BackboneSettings, Parallelism
from study.models import memory_estimate
from tests import REPO


def test_traffic_by_hand():
    model = Model(parameters=100.0, trained=10.0)
    assert traffic(model, zero_stage=2, num_workers=1) == traffic(model, zero_stage=3, num_workers=1) == 0
    # half of 20 bytes of gradients, and of 20 bytes of weights
    assert traffic(model, zero_stage=2, num_workers=2) == 20
    assert (
        traffic(model, zero_stage=2, num_workers=2, passes=3) == 40
        and traffic(model, zero_stage=1, num_workers=2, passes=3) == 20
    )
    # half of 200 bytes twice, and the gradients; three passes gather nine times
    assert traffic(model, zero_stage=3, num_workers=2) == 210
    assert traffic(model, zero_stage=3, num_workers=2, passes=3) == 930


def test_the_model_is_the_one_that_memory_counts():
    config = Qwen2AudioConfig(text_config=memory_estimate.TEXT_CONFIG_7B)
    load = memory_estimate.Workload(examples=1, scored=1, clip_seconds=3.6, text_tokens=50)
    need = memory_estimate.memory_need(
        config, BackboneSettings(), Parallelism(num_workers=1), load, on_gpu=True, epochs=1
    )
    assert need.parameters == pytest.approx(SEVEN_B.parameters, rel=0.01)
    assert need.trainable == pytest.approx(SEVEN_B.trained, rel=0.01)


def test_a_step_by_hand():
    # 64 x 3.73 TFLOP at half of 790 TFLOP/s, and 30 ms
    assert step_seconds(SEVEN_B, NVLINK, 2, num_workers=1) == pytest.approx(64 * 3.73 / 395 + 0.03)
    assert step_seconds(SEVEN_B, NETWORK, 3, num_workers=64) > 10 * step_seconds(SEVEN_B, NETWORK, 2, num_workers=64)


def test_the_tables_of_the_readme_are_these():
    text = (REPO / "cluster" / "README.md").read_text()
    assert traffic_table() in text and trials_table() in text
