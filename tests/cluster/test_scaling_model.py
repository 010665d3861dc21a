"""The model of a step's time and communication, by hand, and its tables in docs/clusters.md."""

from __future__ import annotations

import pytest
from transformers import Qwen2AudioConfig

from cluster.scaling_model import (
    NETWORK,
    NVLINK,
    SEVEN_B,
    Model,
    bytes_sent,
    communication_table,
    step_seconds,
    throughput_table,
)
from study.config.settings import BackboneSettings, Parallelism
from study.models.memory_estimate import TEXT_CONFIG_7B, Workload, memory_need
from tests import REPO


def test_bytes_sent_by_hand() -> None:
    model = Model(parameters=100.0, trained=10.0)
    assert bytes_sent(model, zero_stage=2, num_workers=1) == bytes_sent(model, zero_stage=3, num_workers=1) == 0
    # half of 20 bytes of gradients, and half of 20 bytes of weights
    assert bytes_sent(model, zero_stage=2, num_workers=2) == 20
    assert bytes_sent(model, zero_stage=2, num_workers=2, micro_batches=3) == 40
    assert bytes_sent(model, zero_stage=1, num_workers=2, micro_batches=3) == 20
    # half of 200 bytes twice, and the gradients; three micro-batches gather nine times
    assert bytes_sent(model, zero_stage=3, num_workers=2) == 210
    assert bytes_sent(model, zero_stage=3, num_workers=2, micro_batches=3) == 930


def test_parameter_counts_are_those_of_the_memory_estimate() -> None:
    workload = Workload(examples=1, scored=1, clip_seconds=3.6, text_tokens=50)
    config = Qwen2AudioConfig(text_config=TEXT_CONFIG_7B)
    need = memory_need(config, BackboneSettings(), Parallelism(num_workers=1), workload, on_gpu=True, epochs=1)
    assert need.parameters == pytest.approx(SEVEN_B.parameters, rel=0.01)
    assert need.trainable == pytest.approx(SEVEN_B.trained, rel=0.01)


def test_step_time_by_hand() -> None:
    # 64 x 3.73 TFLOP at half of 790 TFLOP/s, and 30 ms
    assert step_seconds(SEVEN_B, NVLINK, 2, num_workers=1) == pytest.approx(64 * 3.73 / 395 + 0.03)
    assert step_seconds(SEVEN_B, NETWORK, 3, num_workers=64) > 10 * step_seconds(SEVEN_B, NETWORK, 2, num_workers=64)


def test_docs_have_these_tables() -> None:
    text = (REPO / "docs" / "clusters.md").read_text()
    assert communication_table() in text and throughput_table() in text
