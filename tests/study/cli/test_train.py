"""study/train.py: from options or a file to an adapter that PEFT loads."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import Qwen2AudioForConditionalGeneration

from study.cli.app import run_script
from study.cli.run_single import describe_single
from study.cli.train import main
from study.common.errors import SettingsError
from study.common.groups import SCORE_COLUMNS
from study.config.presets import on_backbone
from study.config.settings import Parallelism, Settings
from study.data.examples import answer_ids
from study.models.pretrained import load_processor
from study.models.qwen2_audio import EmotionModel
from study.planning.config_file import read_config
from study.storage.records import write_trial
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from study.training.engine import join_process_group
from study.training.trainer import Trainer, train
from tests import REPO
from tests.conftest import PATIENCE, without_times


@pytest.fixture(scope="module")
def command(small_corpus, tmp_path_factory):
    """A function from flags to the command line of train.py on the small corpus; ``command.storage`` is its storage."""
    storage = tmp_path_factory.mktemp("singles")

    def make(*flags: str, script: str = "study/train.py") -> list[str]:
        fixed = ["--corpus", f"meld-st:{small_corpus}", "--storage", str(storage)]
        return [script, *fixed, "--set", "optimisation.batch_size=24", *flags]

    make.storage = storage
    return make


def start(arguments: list[str], torchrun: int = 0, **options) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torchrun)] if torchrun else []
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments],
        cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(command):
    """(output, study folder) of a run under torchrun with two ranks, both modalities."""
    flags = ("--study", "one", "--epochs", "1", "--modalities", "speech,speech+text", "--set", "loss.method=erm")
    process = start(command(*flags), torchrun=2)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    return out, StudyFolder.at(str(command.storage), "one")


def test_two_ranks_of_torchrun_print_one_table_and_write_one_study(finished):
    out, folder = finished
    (config_id, seed), *others = StudyState(folder).finished_runs
    assert not others and out.count("epoch   1  dev W-F1") == 1
    lines = [line.split() for line in out.splitlines()]
    for modality in ("speech", "speech+text"):
        for who in ("female", "male", "all"):
            assert sum(line[:3] == ["de", modality, who] for line in lines) == 2  # dev and test
        assert sum(line[:3] == ["mean", modality, "all"] for line in lines) == 2
    (trial,) = StudyState(folder).trials.values()
    assert trial["config_id"] == config_id and trial["hyperparameters"] == {"loss.method": "erm"}
    for name in ("adapter_config.json", "adapter_model.safetensors", "settings.json", "README.md"):
        assert folder.exists(f"runs/{config_id}/{seed}/adapter/{name}")
    assert folder.path("runs", config_id, str(seed), "adapter") in out


def test_model_card_has_metrics_settings_and_corpus_notes(finished):
    out, folder = finished
    ((config_id, seed),) = StudyState(folder).finished_runs
    card = folder.read_bytes(f"runs/{config_id}/{seed}/adapter/README.md").decode()
    study = folder.read_json("study.json")
    assert card.startswith("---\nbase_model: ") and "library_name" in card
    assert '`loss.method`: "erm"' in card
    assert all(note in card for note in study["corpus"]["notes"]) and study["corpus"]["notes"]
    test_row = [line for line in out.splitlines() if line.startswith("mean")][-1]
    assert test_row in card


@pytest.mark.parametrize("trainable", [(), ("projector", "audio_encoder")])
def test_peft_loads_the_adapter_and_predicts_the_same(run_plan, trainable):
    plan = run_plan({"optimisation.epochs": 1, "backbone.trainable": trainable})
    train(plan, seed=0, report=lambda row: None, export=True)
    directory = plan.folder.path("runs/abc/0/adapter")
    base = Qwen2AudioForConditionalGeneration.from_pretrained(plan.backbone, attn_implementation="sdpa")
    untrained = {name: value.clone() for name, value in base.named_parameters()}
    peft_model = PeftModel.from_pretrained(base, directory)  # warns if a weight were missing: an error in tests
    processor = load_processor(plan.backbone)
    answers = answer_ids(plan.settings.prompt, processor)
    model = EmotionModel(peft_model, answers, processor.tokenizer.pad_token_id).eval()

    trainer = Trainer(plan, 1)
    examples = trainer.data.examples["test"]
    with torch.no_grad():
        scores = torch.cat([model.scores(examples.collate(range(i, i + 12))) for i in (0, 12, 24)])
    trainer.close()
    predictions = plan.folder.read_parquet("runs/abc/0/predictions.parquet")
    stored = predictions.loc[predictions["split"] == "test", list(SCORE_COLUMNS)].to_numpy()
    np.testing.assert_allclose(scores.numpy(), stored[:36], atol=2e-4)
    tensors = load_file(f"{directory}/adapter_model.safetensors")
    changed = [
        name
        for name, value in tensors.items()
        if "lora_" not in name and not torch.equal(value, untrained[name.removeprefix("base_model.model.")])
    ]
    assert bool(changed) == bool(trainable)
    config = json.loads(Path(directory, "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == plan.backbone and config["r"] == 16


def test_config_is_dotted_or_nested_json_or_toml(tmp_path):
    nested = tmp_path / "a.json"
    nested.write_text(json.dumps({"loss": {"method": "group_dro", "step_size": 0.1}, "modalities": ["speech"]}))
    dotted = tmp_path / "b.toml"
    dotted.write_text('modalities = ["speech"]\n"loss.step_size" = 0.1\n[loss]\nmethod = "group_dro"\n')
    settings = read_config(nested, None)
    assert settings == read_config(dotted, None)
    assert settings.loss.step_size == 0.1 and settings.backbone.spec == "tiny"
    assert settings.optimisation.epochs == 3  # the tiny backbone's default
    assert read_config(nested, "Qwen/Qwen2-Audio-7B-Instruct").optimisation.epochs == 20


def test_trial_of_a_study_is_a_config(tmp_path):
    folder = StudyFolder.at(str(tmp_path), "search")
    base = Settings().with_overrides({"optimisation.epochs": 7, "corpus.loudness": "rms"})
    folder.write_json("study.json", {"settings": base.model_dump(mode="json")})
    hyperparameters = {"loss.method": "erm", "loss.sampling": "balanced"}
    write_trial(folder, {"number": 4, "config_id": "x", "hyperparameters": hyperparameters})
    assert read_config(tmp_path / "search/trials/00004.json", None) == base.with_overrides(hyperparameters)


def test_settings_of_a_run_or_adapter_are_a_config(tmp_path):
    settings = Settings().with_overrides({"optimisation.epochs": 7, "backbone.lora_rank": 4})
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"settings": settings.model_dump(mode="json"), "seed": 3}))
    assert read_config(path, None) == settings


def test_corpus_path_is_relative_to_the_config(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"corpus.spec": "manifest:data/m.csv"}))
    assert read_config(path, None).corpus.spec == f"manifest:{tmp_path / 'data' / 'm.csv'}"


def test_trial_on_another_backbone_loses_the_preset_of_the_tiny_one(tmp_path):
    folder = StudyFolder.at(str(tmp_path), "search")
    folder.write_json("study.json", {"settings": on_backbone(Settings(), "tiny").model_dump(mode="json")})
    hyperparameters = {"loss.method": "erm", "optimisation.learning_rate": 0.01}
    write_trial(folder, {"number": 4, "config_id": "x", "hyperparameters": hyperparameters})
    settings = read_config(tmp_path / "search/trials/00004.json", "some/model")
    assert settings == Settings().with_overrides({"backbone.spec": "some/model", **hyperparameters})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "faulty.json cannot be read as JSON"),
        ("[]", "does not contain settings"),
        ('{"hyperparameters": null, "config_id": "x"}', "study.json cannot be read"),
        ('{"optimisation": {"epoch": 3}, "loss.power": -1}', "optimisation.epoch: there is no such setting"),
    ],
)
def test_invalid_config_names_file_and_setting(tmp_path, text, message):
    path = tmp_path / "faulty.json"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_config(path, None)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert ("loss.power" in str(caught.value)) == ("loss.power" in text)


def single(command, *flags: str):
    """Return the request of train.py for these flags."""
    from study.cli.run_single import single_request
    from study.cli.train import make_parser

    return single_request(*make_parser().read([*flags, "--storage", str(command.storage)]))


def test_options_override_the_file(command, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"optimisation.epochs": 9, "modalities": ["speech"], "optimisation.batch_size": 48}))
    request = single(command, "--config", str(path), "--epochs", "4", "--set", "optimisation.batch_size=30")
    optimisation = request.settings.optimisation
    assert (optimisation.epochs, optimisation.batch_size) == (4, 30) and request.settings.modalities == ("speech",)
    assert (
        request.settings.corpus.spec == "synthetic" and request.settings.backbone.spec == "tiny" and not request.errors
    )


def test_settings_are_shown_without_escapes(small_study):
    plan, _ = small_study
    settings = plan.request.settings.with_overrides({"prompt.labels": "ja"})
    out = io.StringIO()
    describe_single(replace(plan, request=replace(plan.request, settings=settings)), Console(file=out, width=1000))
    assert 'prompt.labels=["中立", "喜び"' in out.getvalue()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-workers", "2"), "torchrun --nproc-per-node"),
        (("--seeds", "0,1"), "--seeds 0,1"),
        (("--config", "no"), "no"),
    ],
)
def test_options_that_need_several_runs_are_errors(command, capsys, flags, message):
    assert run_script(lambda: single(command, *flags)) == 2
    assert message in capsys.readouterr().err


def test_trial_of_a_study_is_trained_and_exported(finished, command, capsys):
    """``--config`` with a trial, down to an adapter, in this process; a flag goes before the study's settings."""
    _, folder = finished
    trial = folder.path("trials", "00000.json")
    fixed = ["--storage", str(command.storage), "--study", "again", "--modalities", "speech"]
    join_process_group()
    assert main(["--config", trial, *fixed]) == 0
    out = capsys.readouterr().out
    repeated = StudyFolder.at(str(command.storage), "again")
    ((config_id, seed),) = StudyState(repeated).finished_runs
    settings = repeated.read_json(f"runs/{config_id}/{seed}/settings.json")["settings"]
    expected = folder.read_json("study.json")["settings"]
    assert settings == {**expected, "modalities": ["speech"]} and settings["loss"]["method"] == "erm"
    adapter = repeated.path("runs", config_id, str(seed), "adapter")
    assert f"adapter    {adapter}" in out and "memory     at least" in out
    # the adapter's own settings are a configuration too, and the same run
    assert main(["--config", f"{adapter}/settings.json", *fixed[:4]]) == 0
    assert "this run has finished" in capsys.readouterr().out


def test_unfinished_run_of_another_parallelism_is_not_restarted(command, finished, capsys):
    out, folder = finished
    ((config_id, seed),) = StudyState(folder).finished_runs
    directory = f"runs/{config_id}/{seed}"
    unfinished = StudyFolder.at(str(command.storage), "cut")
    shutil.copytree(folder.uri, unfinished.uri)
    unfinished.remove(f"{directory}/finished.json")
    unfinished.write_json("study.json", {**unfinished.read_json("study.json"), "name": "cut"})
    unfinished.write_json(
        f"{directory}/checkpoint.json", {"parallelism": Parallelism(num_workers=2, zero_stage=2).model_dump()}
    )
    flags = ["--config", unfinished.path("trials", "00000.json"), "--storage", str(command.storage), "--study", "cut"]
    assert main(flags) == 2
    assert "is an unfinished run of 2 workers, ZeRO-2, but this call has 1 worker, ZeRO-2" in capsys.readouterr().err
    assert unfinished.exists(f"{directory}/checkpoint.json")


def test_study_without_an_epoch_accepts_a_repaired_backbone(command, small_study, tmp_path, capsys):
    backbone = shutil.copytree(small_study[1].backbone, tmp_path / "backbone")
    weights = backbone / "model.safetensors"
    intact = weights.read_bytes()
    flags = command("--study", "mended", "--epochs", "0", "--backbone", str(backbone))[1:]
    join_process_group()
    weights.write_bytes(intact[:-100])
    assert main(flags) == 2
    assert "cannot be read" in capsys.readouterr().err
    weights.write_bytes(intact)
    assert main(flags) == 0
    weights.write_bytes(intact[:-4] + bytes(4))  # one weight is another: now that a run is there, another study
    assert main(flags) == 2
    assert "backbone: content" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_after_sigkill_gives_same_metrics(command, capsys):
    folder = StudyFolder.at(str(command.storage), "killed")
    length = ("--epochs", "12", "--set", "optimisation.patience=12")  # no early stop: the last epoch is the twelfth
    arguments = command("--study", "killed", *length)
    process = start(arguments, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not list(Path(folder.uri).glob("runs/*/0/checkpoint.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not StudyState(folder).finished_runs
    process = start(arguments)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    assert "epoch  12" in out and "epoch   1" not in out
    process = start(command("--study", "unbroken", *length))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    uninterrupted_folder = StudyFolder.at(str(command.storage), "unbroken")
    ((config_id, seed),) = StudyState(folder).finished_runs
    assert StudyState(uninterrupted_folder).finished_runs == [(config_id, seed)]
    resumed, uninterrupted = (
        study.read_json(f"runs/{config_id}/{seed}/finished.json") for study in (folder, uninterrupted_folder)
    )
    assert without_times(resumed) == without_times(uninterrupted)
    join_process_group()
    capsys.readouterr()
    assert main(arguments[1:]) == 0
    repeated = capsys.readouterr().out
    assert "has finished" in repeated and out.splitlines()[-20:] == repeated.splitlines()[-20:]


@pytest.mark.slow
def test_zero_3_exports_whole_weights(command):
    process = start(command("--study", "sharded", "--epochs", "1", "--zero-stage", "3"), torchrun=2)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    folder = StudyFolder.at(str(command.storage), "sharded")
    ((config_id, seed),) = StudyState(folder).finished_runs
    directory, predictions_file = folder.path("runs", config_id, str(seed), "adapter"), folder.path("kept.parquet")
    corpus = folder.read_json("study.json")["corpus"]["spec"]
    flags = [
        "--adapter",
        directory,
        "--corpus",
        corpus,
        "--storage",
        str(command.storage),
        "--predictions",
        predictions_file,
    ]
    process = start(["study/evaluate.py", *flags])
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err[-3000:]
    run = folder.read_parquet(f"runs/{config_id}/{seed}/predictions.parquet").query("split == 'test'")
    repeated = folder.read_parquet("kept.parquet").set_index(["utterance_id", "modality"])
    repeated = repeated.loc[list(zip(run["utterance_id"], run["modality"], strict=True))]
    np.testing.assert_allclose(repeated[list(SCORE_COLUMNS)], run[list(SCORE_COLUMNS)], atol=2e-4)
