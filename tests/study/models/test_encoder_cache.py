"""Cached states of a frozen audio encoder give the same losses, scores and gradients as running the encoder."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from study.common.errors import SettingsError
from study.data import features
from study.models import encoder_cache
from study.models.encoder_cache import EncoderCache, compute, missing_disk_space, open_cache
from study.models.pretrained import is_deterministic
from study.training.trainer import Trainer, train
from tests import REPO

FROZEN = {"backbone.trainable": ["projector"]}
DTYPE = torch.float32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trainers(plan_in, tmp_path_factory):
    """Trainers with the same seed: one with cached encoder states, one that runs the encoder in every forward pass."""
    by_kind = {}
    for kind in ("cached", "computed"):
        plan = plan_in(tmp_path_factory.mktemp("audio_encoder"), {**FROZEN, "computation.encoder_states": kind})
        by_kind[kind] = Trainer(plan, seed=0)
    yield by_kind
    for trainer in by_kind.values():
        trainer.close()


def losses_scores_gradients(
    trainer: Trainer, rows: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    model, batch = trainer.engine.model, trainer.step.examples.collate(rows)
    losses, _ = model(batch, score=False)
    losses.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    with torch.no_grad():
        return losses.detach(), model(batch, score=True), gradients


def test_losses_scores_and_gradients_equal_those_without_cache(trainers):
    cached, computed = (losses_scores_gradients(trainers[kind], np.arange(24)) for kind in ("cached", "computed"))
    torch.testing.assert_close(cached[0], computed[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cached[1], computed[1], rtol=1e-5, atol=1e-5)
    assert cached[2].keys() == computed[2].keys() and any("projector" in name for name in cached[2])
    flat, expected = (torch.cat([g.flatten() for g in gradients.values()]) for gradients in (cached[2], computed[2]))
    assert flat.norm() > 1e-2 and (flat - expected).norm() <= 1e-5 * flat.norm()


def test_encoder_does_not_run_if_its_states_are_cached(trainers, monkeypatch):
    def refuse(*_):
        raise AssertionError("the audio encoder ran")

    monkeypatch.setattr("study.models.qwen2_audio.encoder_states", refuse)
    assert trainers["cached"].data.examples["dev"].collate([0]).log_mel is None
    trainers["cached"].evaluator.evaluate("dev")
    with pytest.raises(AssertionError, match="the audio encoder ran"):
        trainers["computed"].evaluator.evaluate("dev")


def test_every_clip_has_its_own_states(trainers):
    examples = trainers["cached"].step.examples
    dataset, store = examples.dataset, examples.states
    assert len(dataset) > encoder_cache.SHARD  # at least two shards
    rows = [0, encoder_cache.SHARD - 1, encoder_cache.SHARD, len(dataset) - 1]
    encoder = trainers["computed"].engine.model.peft_model.get_base_model().model.audio_tower
    for row in rows:
        clip = dataset[row]
        mel = features.pad_mels([clip], examples.mel_bins)
        with torch.no_grad():
            expected = encoder_cache.encoder_states(encoder, mel, torch.tensor([int(clip["frames"])]))[0]
        torch.testing.assert_close(store[row], expected, rtol=1e-4, atol=1e-5)


def test_interrupted_build_resumes(trainers, small_study, tmp_path, monkeypatch):
    prepared, dataset = small_study[1], trainers["cached"].step.examples.dataset
    monkeypatch.setattr(encoder_cache, "SHARD", 100)
    store = EncoderCache(tmp_path, np.asarray(dataset["frames"]), 48, DTYPE)
    computed, states = [], encoder_cache._states

    def interrupted_states(rows, *arguments):
        computed.append(int(rows[0]))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return states(rows, *arguments)

    monkeypatch.setattr(encoder_cache, "_states", interrupted_states)
    with pytest.raises(KeyboardInterrupt):
        compute(store, dataset, prepared.backbone, CPU, 64)
    assert computed == [0, 100, 200] and store.missing() == list(range(2, len(store.shards)))
    compute(store, dataset, prepared.backbone, CPU, 64)
    assert computed == [0, 100, 200, *range(200, len(dataset), 100)]  # finished shards are not computed again
    assert store[150].shape == (features.audio_tokens(int(dataset[150]["frames"])), 48)


@pytest.mark.slow
def test_processes_share_the_build(trainers, small_study, tmp_path):
    prepared = small_study[1]
    code = f"""
import torch
from pathlib import Path
from study.data import features
from study.models import encoder_cache
encoder_cache.SHARD = 16
dataset = features.load(Path({str(prepared.features)!r}))
store = encoder_cache.EncoderCache(Path({str(tmp_path / "shared")!r}), dataset.to_pandas()["frames"].to_numpy(), 48,
                               torch.float32)
encoder_cache.compute(store, dataset, {prepared.backbone!r}, torch.device("cpu"), 64)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    shares = [int(share) for share in re.findall(r"; (\d+) of \d+ parts by this process", "".join(outputs))]
    n_shards = -(-len(trainers["cached"].step.examples.dataset) // 16)
    assert sum(shares) == n_shards and len(shares) in (1, 2)  # a process that starts late may find nothing to do


def test_encoder_on_30_seconds_is_not_cached(run_plan):
    overrides = {**FROZEN, "computation.encoder_input": "30_seconds"}
    trainer = Trainer(run_plan(overrides), 0)
    assert trainer.step.examples.states is None
    trainer.close()
    with pytest.raises(SettingsError, match="cached is not possible: computation.encoder_input is 30_seconds"):
        Trainer(run_plan({**overrides, "computation.encoder_states": "cached"}), 0)


def test_full_disk_disables_the_cache_or_is_refused(run_plan, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(encoder_cache.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    monkeypatch.setattr(EncoderCache, "missing", lambda self: list(range(len(self.shards))))
    trainer = Trainer(run_plan(FROZEN), 0)
    assert trainer.step.examples.states is None
    assert "not cached: 0.0 GB are needed" in capsys.readouterr().out
    trainer.close()
    with pytest.raises(SettingsError, match=r"computation\.encoder_states: cached is not possible: .* GB are free"):
        Trainer(run_plan({**FROZEN, "computation.encoder_states": "cached"}), 0)


def test_trained_encoder_or_one_with_dropout_is_not_cached(run_plan, small_study, tmp_path):
    with pytest.raises(SettingsError, match=r"the audio encoder is trained"):
        Trainer(run_plan({"computation.encoder_states": "cached"}), 0)
    source = small_study[1].backbone
    config = Path(source, "config.json").read_text()
    assert is_deterministic(source) and '"dropout": 0.0' in config
    (tmp_path / "config.json").write_text(config.replace('"dropout": 0.0', '"dropout": 0.1'))
    assert not is_deterministic(str(tmp_path))


def test_shard_of_another_shape_names_the_file_and_the_remedy(tmp_path):
    store = EncoderCache(tmp_path, np.array([100, 200]), 48, DTYPE)
    assert store.bytes_of([0]) == (25 + 50) * 48 * 4
    save_file({"states": torch.zeros(3, 48)}, tmp_path / "00000.safetensors")
    with pytest.raises(ValueError, match=r"00000\.safetensors: has shape \(3, 48\) .* expected \(75, 48\).*remove it"):
        store[0]


def test_folder_depends_on_backbone_and_dtype(small_study, trainers):
    prepared, examples = small_study[1], trainers["cached"].step.examples
    store = open_cache(prepared.features, examples.dataset, prepared.backbone, DTYPE)
    assert store.folder == examples.states.folder
    assert open_cache(prepared.features, examples.dataset, prepared.backbone, torch.bfloat16).folder != store.folder
    assert missing_disk_space(store) is None


def test_whole_run_is_the_same_with_and_without_cache(run_plan):
    w_f1 = []
    for kind in ("cached", "computed"):
        plan = run_plan({**FROZEN, "optimisation.epochs": 1, "computation.encoder_states": kind})
        finished = train(plan, seed=0, report=lambda row: None)
        w_f1.append(finished["test"]["w_f1"])
        plan.folder.remove("runs")
    assert w_f1[0] == pytest.approx(w_f1[1], abs=1e-9)
