"""States of a frozen tower from the cache: the same losses, scores and gradients as with the tower in every pass."""

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
from study.models.encoder_cache import EncoderCache, compute, lacking_room, open_cache
from study.models.pretrained import is_deterministic
from study.training.run import Run
from study.training.trainer import train
from tests import REPO

FROZEN = {"backbone.trainable": ["projector"]}
KIND = torch.float32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cached(plan_in, tmp_path_factory):
    """Runs of one seed: with the states kept, and with the tower in every pass."""
    runs = {}
    for kind in ("cached", "computed"):
        plan = plan_in(tmp_path_factory.mktemp("audio_encoder"), {**FROZEN, "computation.encoder_states": kind})
        runs[kind] = Run(plan, seed=0)
    yield runs
    for run in runs.values():
        run.close()


def outcome(run: Run, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    model, batch = run.engine.module, run.examples["train"].collate(rows)
    losses, _ = model(batch, score=False)
    losses.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    with torch.no_grad():
        return losses.detach(), model(batch, score=True), gradients


def test_losses_scores_and_gradients_equal_those_with_the_tower(cached):
    rows = np.arange(24)
    one, other = (outcome(cached[kind], rows) for kind in ("cached", "computed"))
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one[1], other[1], rtol=1e-5, atol=1e-5)
    assert one[2].keys() == other[2].keys() and any("projector" in name for name in one[2])
    flat, flat_other = (torch.cat([g.flatten() for g in gradients.values()]) for gradients in (one[2], other[2]))
    assert flat.norm() > 1e-2 and (flat - flat_other).norm() <= 1e-5 * flat.norm()


def test_the_tower_does_not_run_where_its_states_are_kept(cached, monkeypatch):
    def refuse(*_):
        raise AssertionError("the tower ran")

    monkeypatch.setattr("study.models.qwen2_audio.encoder_states", refuse)
    run = cached["cached"]
    assert run.examples["dev"].collate([0]).log_mel is None
    run.evaluate("dev")
    with pytest.raises(AssertionError, match="the tower ran"):
        cached["computed"].evaluate("dev")


def test_every_clip_has_its_own_states(cached, monkeypatch):
    examples = cached["cached"].examples["train"]
    dataset, store = examples.dataset, examples.states
    assert len(dataset) > encoder_cache.SHARD  # so that there is a second part
    rows = [0, encoder_cache.SHARD - 1, encoder_cache.SHARD, len(dataset) - 1]
    encoder = cached["computed"].engine.module.peft_model.get_base_model().model.audio_tower
    for row in rows:
        clip = dataset[row]
        mel = features.mels_of([clip], examples.mel_bins)
        with torch.no_grad():
            expected = encoder_cache.encoder_states(encoder, mel, torch.tensor([int(clip["frames"])]))[0]
        torch.testing.assert_close(store[row], expected, rtol=1e-4, atol=1e-5)


def test_an_interrupted_build_goes_on(cached, small_study, tmp_path, monkeypatch):
    prepared, dataset = small_study[1], cached["cached"].examples["train"].dataset
    monkeypatch.setattr(encoder_cache, "SHARD", 100)
    store = EncoderCache(tmp_path, np.asarray(dataset["frames"]), 48, KIND)
    computed, states = [], encoder_cache._states

    def states_or_die(rows, *arguments):
        computed.append(int(rows[0]))
        if len(computed) == 3:
            raise KeyboardInterrupt
        return states(rows, *arguments)

    monkeypatch.setattr(encoder_cache, "_states", states_or_die)
    with pytest.raises(KeyboardInterrupt):
        compute(store, dataset, prepared.backbone, CPU, 64)
    assert computed == [0, 100, 200] and store.missing() == list(range(2, len(store.shards)))
    compute(store, dataset, prepared.backbone, CPU, 64)
    assert computed == [0, 100, 200, *range(200, len(dataset), 100)]  # nothing twice that was kept
    assert store[150].shape == (features.audio_tokens(int(dataset[150]["frames"])), 48)


@pytest.mark.slow
def test_processes_share_the_work_and_compute_nothing_twice(cached, small_study, tmp_path):
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
    start = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[0] for process in start]
    assert [process.returncode for process in start] == [0, 0]
    shares = [int(share) for share in re.findall(r"; (\d+) of \d+ parts by this process", "".join(said))]
    parts = -(-len(cached["cached"].examples["train"].dataset) // 16)
    assert sum(shares) == parts and len(shares) in (1, 2)  # one that comes late has nothing to say


def test_a_tower_on_30_seconds_is_run_in_every_pass(run_plan):
    heard = {**FROZEN, "computation.encoder_input": "30_seconds"}
    run = Run(run_plan(heard), 0)
    assert run.examples["train"].states is None
    run.close()
    with pytest.raises(SettingsError, match="cached is not possible: computation.encoder_input is 30_seconds"):
        Run(run_plan({**heard, "computation.encoder_states": "cached"}), 0)


def test_a_full_disk_means_the_tower_in_every_pass_or_a_refusal(run_plan, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(encoder_cache.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    monkeypatch.setattr(EncoderCache, "missing", lambda self: list(range(len(self.shards))))
    run = Run(run_plan(FROZEN), 0)
    assert run.examples["train"].states is None
    assert "not kept: 0.0 GB are needed" in capsys.readouterr().out
    run.close()
    with pytest.raises(SettingsError, match=r"computation\.encoder_states: cached is not possible: .* GB are free"):
        Run(run_plan({**FROZEN, "computation.encoder_states": "cached"}), 0)


def test_a_tower_that_is_trained_or_drops_activations_has_no_cache(run_plan, small_study, tmp_path):
    with pytest.raises(SettingsError, match=r"the tower is trained"):
        Run(run_plan({"computation.encoder_states": "cached"}), 0)
    source = small_study[1].backbone
    config = Path(source, "config.json").read_text()
    assert is_deterministic(source) and '"dropout": 0.0' in config
    (tmp_path / "config.json").write_text(config.replace('"dropout": 0.0', '"dropout": 0.1'))
    assert not is_deterministic(str(tmp_path))


def test_a_part_of_another_shape_names_the_file_and_the_remedy(tmp_path):
    store = EncoderCache(tmp_path, np.array([100, 200]), 48, KIND)
    assert store.bytes_of([0]) == (25 + 50) * 48 * 4
    save_file({"states": torch.zeros(3, 48)}, tmp_path / "00000.safetensors")
    with pytest.raises(ValueError, match=r"00000\.safetensors: holds \(3, 48\), not \(75, 48\); remove it"):
        store[0]


def test_another_backbone_or_type_has_another_folder(small_study, cached, tmp_path):
    prepared, dataset = small_study[1], cached["cached"].examples["train"].dataset
    folder = open_cache(prepared.features, dataset, prepared.backbone, KIND).folder
    assert folder == cached["cached"].examples["train"].states.folder
    assert open_cache(prepared.features, dataset, prepared.backbone, torch.bfloat16).folder != folder
    assert lacking_room(open_cache(prepared.features, dataset, prepared.backbone, KIND)) is None


def test_a_whole_run_is_the_same_with_and_without(run_plan):
    figures = []
    for kind in ("cached", "computed"):
        plan = run_plan({**FROZEN, "optimisation.epochs": 1, "computation.encoder_states": kind})
        finished = train(plan, seed=0, report=lambda row: None)
        figures.append(finished["test"]["w_f1"])
        plan.folder.remove("runs")
    assert figures[0] == pytest.approx(figures[1], abs=1e-9)
