"""The DeepSpeed configuration of a run, and the command that prints it."""

from __future__ import annotations

import json

import pytest
from deepspeed.runtime.config import DeepSpeedConfig

from study.cli.deepspeed_config import main
from study.config.settings import Optimisation, Parallelism
from study.training.deepspeed_config import deepspeed_config


@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize("num_workers", [1, 8])
def test_printed_configuration_is_that_of_a_run(capsys, num_workers, zero_stage):
    assert main(["--num-workers", str(num_workers), "--zero-stage", str(zero_stage)]) == 0
    printed = json.loads(capsys.readouterr().out)
    parallelism = Parallelism(num_workers=num_workers, zero_stage=zero_stage)
    assert printed == deepspeed_config(Optimisation(), parallelism, on_gpu=True)
    micro, accumulation = printed["train_micro_batch_size_per_gpu"], printed["gradient_accumulation_steps"]
    assert micro * accumulation * num_workers == Optimisation().batch_size
    assert printed["zero_optimization"]["stage"] == zero_stage and printed["bf16"]["enabled"]


def test_micro_batches_and_cpu_are_options(capsys):
    assert main(["--batch-size", "48", "--num-workers", "2", "--micro-batch-size", "8", "--cpu"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["train_micro_batch_size_per_gpu"] == 8 and printed["gradient_accumulation_steps"] == 3
    assert not printed["bf16"]["enabled"]


def test_deepspeed_accepts_the_configuration():
    config = DeepSpeedConfig(deepspeed_config(Optimisation(), Parallelism(num_workers=1, zero_stage=2), on_gpu=False))
    assert config.zero_optimization_stage == 2 and config.gradient_clipping == Optimisation().gradient_clipping
