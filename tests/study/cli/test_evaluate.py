"""study/evaluate.py: an exported adapter on another corpus, by label likelihoods and by generated answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load, load_file, save_file

from study.cli.evaluate import main
from study.common.groups import SCORE_COLUMNS
from study.evaluation.metrics import INVALID, evaluate
from study.training.trainer import train


@pytest.fixture(scope="module")
def adapter(plan_in, small_corpus, tmp_path_factory):
    """(folder of an adapter, test figures of its run, flags that name both corpus and storage)."""
    plan = plan_in(tmp_path_factory.mktemp("trained"), {"optimisation.epochs": 2, "loss.method": "erm"})
    finished = train(plan, seed=0, report=lambda row: None, export=True)
    directory = plan.folder.path("runs/abc/0/adapter")
    storage = plan.features.parent.parent.parent
    return (
        directory,
        finished,
        ["--adapter", directory, "--corpus", f"meld-st:{small_corpus}", "--storage", str(storage)],
    )


def test_label_likelihoods_equal_the_run_and_answers_have_an_invalid_rate(adapter, tmp_path, capsys):
    _, finished, flags = adapter
    file = tmp_path / "kept" / "p.parquet"
    assert main([*flags, "--predictions", str(file)]) == 0
    out = capsys.readouterr().out
    predictions = pd.read_parquet(file)
    figures = evaluate(predictions)
    assert figures["w_f1"] == pytest.approx(finished["test"]["w_f1"])
    assert figures["gap"] == pytest.approx(finished["test"]["gap"])
    assert set(predictions["split"]) == {"test"} and set(SCORE_COLUMNS) <= set(predictions)
    assert f"{100 * figures['w_f1']:.1f}" in out and "0.0 % of answers invalid" in out

    assert main([*flags, "--generate", "--subset", "dev", "--modalities", "speech", "--predictions", str(file)]) == 0
    out = capsys.readouterr().out
    answered = pd.read_parquet(file)
    invalid = 100 * (answered["predicted"] == INVALID).groupby(answered["language"]).mean().mean()
    assert f"{invalid:.1f} % of answers invalid" in out
    assert set(answered["split"]) == {"dev"} and set(answered["modality"]) == {"speech"}
    head = next(line.split() for line in out.splitlines() if line.split()[:1] == ["language"])
    row = next(line.split() for line in out.splitlines() if line.split()[:3] == ["de", "speech", "female"])
    women = answered[(answered["language"] == "de") & (answered["gender"] == "female")]
    assert int(row[head.index("utterances")]) == len(women)
    assert float(row[head.index("invalid")]) == pytest.approx(100 * (women["predicted"] == INVALID).mean(), abs=0.06)


def test_corpus_without_a_split_is_evaluated_as_a_whole(adapter, small_corpus, tmp_path, capsys):
    """Eight clips of four voices, too few to be divided."""
    _, _, flags = adapter
    table = pd.read_csv(small_corpus / "ENG_DEU" / "deu_test.csv").iloc[:8]
    clips = [f"{small_corpus}/ENG_DEU/DEU/test/test_{number}.wav" for number in table["id"]]
    rows = pd.DataFrame({"Path": clips, "Transcript": table["German"], "Emotion": table["emotion"], "Language": "de"})
    rows["Gender"] = ["f", "m"] * 4
    rows["Speaker"] = [f"{gender}{i % 4}" for i, gender in enumerate(rows["Gender"])]
    rows.to_csv(tmp_path / "other.csv", index=False, sep=";")
    output = tmp_path / "kept.parquet"
    corpus = ["--corpus", f"manifest:{tmp_path / 'other.csv'}", "--predictions", str(output)]
    assert main([*flags, *corpus]) == 0
    assert f"all of manifest:{tmp_path / 'other.csv'}, label likelihoods" in capsys.readouterr().out
    predictions = pd.read_parquet(output)
    assert len(predictions) == 8 and set(predictions["speaker"]) == set(rows["Speaker"])
    assert main([*flags, *corpus, "--subset", "all", "--generate"]) == 0
    assert len(pd.read_parquet(output)) == 8
    assert main([*flags, *corpus, "--subset", "test"]) == 2
    assert "has no split; add --split speaker" in capsys.readouterr().err
    assert main([*flags, *corpus, "--split", "speaker"]) == 2
    assert "are too few for train, dev and test" in capsys.readouterr().err
    assert main([*flags, *corpus, "--split", "speaker", "--subset", "all"]) == 2
    assert "leave out --split speaker" in capsys.readouterr().err


def test_corpus_with_one_split_can_be_evaluated(adapter, small_corpus, tmp_path, capsys):
    _, _, flags = adapter
    table = pd.read_csv(small_corpus / "ENG_DEU" / "deu_valid.csv")
    clips = [f"{small_corpus}/ENG_DEU/DEU/dev/dev_{number}.wav" for number in table["id"]]
    rows = pd.DataFrame({"path": clips, "transcript": table["German"], "emotion": table["emotion"], "language": "de"})
    rows[["speaker", "gender", "split"]] = ["x", "female", "dev"]
    rows.to_csv(tmp_path / "dev.csv", index=False)
    flags = [*flags, "--corpus", f"manifest:{tmp_path / 'dev.csv'}"]
    assert main([*flags, "--subset", "dev"]) == 0
    assert "dev of manifest" in capsys.readouterr().out
    assert main(flags) == 2
    assert "the test split of language de is empty" in capsys.readouterr().err


def test_moved_backbone_is_accepted_and_another_is_refused(adapter, small_study, tmp_path, capsys):
    _, _, flags = adapter
    _, prepared = small_study
    moved = shutil.copytree(prepared.backbone, tmp_path / "moved")
    (moved / "README.md").write_text("a note")
    assert main([*flags, "--backbone", str(moved)]) == 0
    weights = load_file(moved / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, moved / "model.safetensors", metadata={"format": "pt"})
    capsys.readouterr()
    assert main([*flags, "--backbone", str(moved)]) == 2
    assert "its content differs from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--adapter", "/nowhere"], "has no adapter_config.json"),
        (["--modalities", "sight"], "--modalities sight"),
        (["--backbone", "/nowhere/at/all"], "there is no such folder"),
        (["--corpus", "tape:x"], "unknown corpus"),
        (["--batch-size", "0"], "--batch-size: "),
    ],
)
def test_error_names_the_option(adapter_stub, capsys, flags, message):
    assert main([*adapter_stub, *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def adapter_stub(small_study, run_plan, small_corpus):
    """Flags of an adapter that was exported untrained: good enough to be refused with."""
    from study.models.adapter import write_adapter
    from study.models.lora import load_model

    plan = run_plan()
    import torch

    peft_model = load_model(plan.backbone, plan.settings.backbone, torch.float32)
    weights = {f"peft_model.{name}": p.detach() for name, p in peft_model.named_parameters() if "lora_" in name}
    settings = plan.settings.with_overrides({"backbone.trainable": []})
    write_adapter(plan.folder, "adapter", weights, peft_model.peft_config["default"], settings, plan.backbone)
    storage = plan.features.parent.parent.parent
    return ["--adapter", plan.folder.path("adapter"), "--corpus", f"meld-st:{small_corpus}", "--storage", str(storage)]


def test_adapter_with_missing_weights_is_refused(adapter_stub, capsys):
    weights = Path(adapter_stub[adapter_stub.index("--adapter") + 1]) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    tensors = load(whole)
    save_file({name: value for name, value in tensors.items() if "lora_B" not in name}, weights)
    assert main(adapter_stub) == 2
    assert "adapter_model.safetensors lacks" in capsys.readouterr().err
    weights.write_bytes(whole[: len(whole) // 2])
    assert main(adapter_stub) == 2
    assert "adapter_model.safetensors cannot be loaded onto" in capsys.readouterr().err
    save_file({**tensors, next(iter(tensors)): next(iter(tensors.values())) * float("nan")}, weights)
    assert main(adapter_stub) == 2
    assert "holds NaN or infinite values" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("adapter_config.json", lambda content: {**content, "lora_alpha": 99}, "has lora_alpha 99"),
        ("adapter_config.json", lambda content: [content], "cannot be read"),
        ("adapter_config.json", lambda content: {**content, "target_modules": "nothing"}, "cannot be loaded onto"),
        ("adapter_config.json", lambda content: {**content, "peft_type": "MAGIC"}, "cannot be loaded onto"),
        ("settings.json", lambda content: {"settings": content["settings"]}, "cannot be read (KeyError('backbone'))"),
        ("settings.json", lambda content: {**content, "backbone": "x"}, "cannot be read"),
    ],
)
def test_invalid_adapter_file_is_named(adapter_stub, capsys, name, change, message):
    path = Path(adapter_stub[adapter_stub.index("--adapter") + 1]) / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert main(adapter_stub) == 2
    assert message in capsys.readouterr().err
