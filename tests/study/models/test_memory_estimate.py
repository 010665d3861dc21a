"""The memory estimate: computed by hand for the 7B backbone, compared with measurements for a small one."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from study.common.errors import SettingsError
from study.config.settings import BackboneSettings, Parallelism, Settings
from study.data.examples import Batch
from study.data.features import audio_tokens, stored_length
from study.models.lora import load_model
from study.models.memory_estimate import GB, TEXT_CONFIG_7B, Workload, bytes_per_token, memory_need
from study.models.qwen2_audio import EmotionModel
from study.models.tiny import tiny_config
from study.planning import memory_check
from study.planning.memory_check import largest_workload, memory_errors, require_plan_memory

WORKLOAD = Workload(examples=64, scored=128, clip_seconds=3.6, text_tokens=50)


@pytest.fixture(scope="module")
def seven_b():
    return Qwen2AudioConfig(text_config=TEXT_CONFIG_7B)


def test_default_backbone_by_hand(seven_b):
    need = memory_need(
        seven_b, BackboneSettings(), Parallelism(num_workers=1, zero_stage=2), WORKLOAD, on_gpu=True, epochs=20
    )
    assert need.parameters == pytest.approx(8.40e9, rel=1e-3)
    assert need.trainable == 32 * 4 * 16 * (4096 + 4096)
    assert need.weights == pytest.approx(16.8e9, rel=2e-3)
    assert need.optimiser == 12 * need.trainable and need.gradients == 2 * need.trainable
    assert 40 * GB < need.activations < 80 * GB  # 9,088 tokens fit in 141 GB without checkpointing
    assert "16.8 GB weights (8.40 B parameters, bf16)" in need.describe()


def test_each_zero_stage_divides_what_it_shards(seven_b):
    def need(stage, epochs=20):
        parallelism = Parallelism(num_workers=4, zero_stage=stage)
        return memory_need(seven_b, BackboneSettings(), parallelism, WORKLOAD, on_gpu=True, epochs=epochs)

    stage_0, stage_1, stage_2, stage_3 = map(need, range(4))
    assert stage_1.optimiser == stage_0.optimiser / 4 and stage_1.gradients == stage_0.gradients
    assert stage_2.gradients == stage_0.gradients / 4 and stage_2.weights == stage_0.weights
    assert stage_3.weights == stage_0.weights / 4
    assert stage_3.activations == stage_0.activations
    untrained = need(0, epochs=0)
    assert untrained.total == untrained.weights + untrained.scoring


@pytest.mark.parametrize(
    "hyperparameters",
    [{}, {"lora_targets": "all"}, {"lora_dropout": 0.0}, {"lora_targets": "all", "lora_dropout": 0.0},
     {"trainable": ("projector", "audio_encoder")}, {"lora_rank": 4, "attention": "eager"}],
)  # fmt: skip
def test_estimate_equals_what_autograd_stores(tmp_path, hyperparameters):
    torch.manual_seed(0)
    text = {**TEXT_CONFIG_7B, "vocab_size": 700, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 0}
    encoder = {"model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "d_model": 32, "encoder_layers": 2}
    encoder |= {"encoder_attention_heads": 2, "encoder_ffn_dim": 128}
    config = Qwen2AudioConfig(audio_config=encoder, text_config=text, audio_token_index=5)
    Qwen2AudioForConditionalGeneration(config).save_pretrained(tmp_path)
    settings = BackboneSettings(spec=str(tmp_path), **hyperparameters)
    peft_model = load_model(str(tmp_path), settings, torch.float32).train()
    frames, text_tokens, size = 400, 60, 6
    n_audio = audio_tokens(frames)
    batch = Batch(
        input_ids=torch.tensor([[5] * n_audio + [9] * text_tokens] * size),
        prompt_lengths=torch.full((size,), n_audio + text_tokens),
        log_mel=torch.randn(size, stored_length(frames), 16),
        frames=torch.full((size,), frames),
        labels=torch.arange(size),
        groups=torch.zeros(size),
        rows=torch.arange(size),
    )
    model = EmotionModel(peft_model, [[20 + i, 8, 7] for i in range(7)], pad_token_id=0)

    of_weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    stored: dict[int, torch.Tensor] = {}

    def store(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in of_weights:
            stored[tensor.untyped_storage().data_ptr()] = tensor  # keeps a reference, so that addresses stay unique
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
        losses, _ = model.losses(batch)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in stored.values())
    losses.sum().backward()

    load = Workload(size, size, frames / 100, text_tokens, answer_tokens=3)
    need = memory_need(config, settings, Parallelism(num_workers=1, zero_stage=0), load, on_gpu=False, epochs=1)
    assert 0.75 * measured < need.activations < 1.05 * measured, (need.activations, measured)
    trained = [p for p in peft_model.parameters() if p.requires_grad]
    assert need.trainable == sum(p.numel() for p in trained)
    assert need.gradients == sum(p.grad.nbytes for p in trained)
    assert need.weights == sum(p.nbytes for p in peft_model.parameters())


def test_plan_that_does_not_fit_is_refused_with_remedies(seven_b):
    def errors(have, stage=2, sharing=1, load=WORKLOAD):
        need = memory_need(
            seven_b, BackboneSettings(), Parallelism(num_workers=2, zero_stage=stage), load, True, epochs=1
        )
        return memory_errors(need, Settings(), stage, have, sharing, on_gpu=True)

    assert errors(141 * GB) == []
    (too_small,) = errors(40 * GB)
    assert "micro_batch_size" in too_small and "--zero-stage 3" in too_small and "40.0 GB are free" in too_small
    few = replace(WORKLOAD, examples=1, scored=2)
    (weights,) = errors(16 * GB, load=few)
    assert "micro_batch_size" not in weights
    assert errors(40 * GB, load=few) == []
    (sharded,) = errors(8 * GB, stage=3, load=few)
    assert "--zero-stage" not in sharded
    (shared,) = errors(141 * GB, sharing=8)
    assert "fewer --num-workers" in shared and "8 workers" in shared


def test_plan_prints_its_memory_need_or_is_refused(small_study, monkeypatch):
    plan, _ = small_study
    load = largest_workload(plan.request.settings, plan.corpus.utterances, num_workers=1)
    assert load.examples == 24 and 0.5 < load.clip_seconds < 30 and 30 < load.text_tokens < 300
    out = io.StringIO()
    require_plan_memory(plan, 2, Console(file=out, width=200))
    assert out.getvalue().startswith("memory     at least ") and "float32" in out.getvalue()
    monkeypatch.setattr(memory_check, "free_memory", lambda: 1e6)
    with pytest.raises(SettingsError, match=r"memory: 2 workers need at least .* 0\.0 GB .*fewer --num-workers"):
        require_plan_memory(plan, 2, Console(file=out))
    require_plan_memory(plan, None, Console(file=out))  # the memory of a cluster is not known here


def test_micro_batch_that_does_not_fit_is_split_unless_its_size_is_set(small_study, monkeypatch):
    plan, _ = small_study
    load = replace(largest_workload(plan.request.settings, plan.corpus.utterances, num_workers=1), scored=1)

    def need(examples):
        return memory_need(
            tiny_config(),
            plan.request.settings.backbone,
            Parallelism(num_workers=1),
            replace(load, examples=examples),
            False,
            1,
        ).total

    monkeypatch.setattr(memory_check, "free_memory", lambda: (need(1) + need(24)) / 2)
    out = io.StringIO()
    memory_check.require_memory(plan.request.settings, Parallelism(num_workers=1), load, 1, Console(file=out))
    assert "cut into several passes" in out.getvalue()
    given = plan.request.settings.with_overrides({"optimisation.micro_batch_size": 24})
    with pytest.raises(SettingsError, match=r"memory: .*micro_batch_size"):
        memory_check.require_memory(given, Parallelism(num_workers=1), load, 1, Console(file=out))


def test_bytes_per_token_by_hand(seven_b):
    # 64 clips of 3.6 s are 64 x 142 tokens, the logits of their answers included
    whole = memory_need(seven_b, BackboneSettings(), Parallelism(num_workers=1), WORKLOAD, True, epochs=1).activations
    assert bytes_per_token(seven_b, BackboneSettings(), each=2) * 64 * 142 == pytest.approx(whole)
