"""Interrupted runs: after a kill at any point, the same command ends like an uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from study.storage.locks import Superseded, claim_run
from study.storage.study_folder import StudyFolder
from study.training.trainer import train
from tests import REPO
from tests.conftest import PATIENCE, without_times


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [2, 3])
def test_resume_after_sigkill_gives_same_metrics(small_study, tmp_path, zero_stage):
    plan, prepared = small_study
    settings = plan.request.settings.with_overrides(
        {"optimisation.epochs": 4, "loss.estimator.kind": "ema", "backbone.lora_dropout": 0.1}
    )
    paths = {}
    for name in ("interrupted", "uninterrupted"):
        spec = {
            "settings": settings.model_dump(mode="json"),
            "parallelism": {"num_workers": 2, "zero_stage": zero_stage},
            "features": str(prepared.features),
            "backbone": prepared.backbone,
            "folder": str(tmp_path / name),
        }
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(spec))

    def run(kill_after: int, *names: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += [str(REPO / "tests/study/training/worker_train.py"), str(kill_after)]
        command += [str(paths[name]) for name in names]
        environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    folder, uninterrupted = StudyFolder(str(tmp_path / "interrupted")), StudyFolder(str(tmp_path / "uninterrupted"))
    killed = run(2, "interrupted")
    assert killed.returncode != 0 and "SIGKILL" in killed.stderr, killed.stderr[-3000:]
    assert folder.exists("runs/abc/0/checkpoint.json") and not folder.exists("runs/abc/0/finished.json")

    resumed = run(0, "interrupted", "uninterrupted")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert resumed.stdout.count("'epoch': 1,") == 2  # on the two workers of the uninterrupted run only
    metrics, expected = (study.read_json("runs/abc/0/finished.json") for study in (folder, uninterrupted))
    assert without_times(metrics) == without_times(expected)
    steps = [study.read_parquet("runs/abc/0/steps.parquet") for study in (folder, uninterrupted)]
    pd.testing.assert_frame_equal(*steps, rtol=1e-5)


CHECKPOINT = ("/engine/", "/run.safetensors", "/checkpoint.json")
KILL_AT = (*CHECKPOINT, "/adapter_model", "/adapter_config", "/predictions", "/finished")


@pytest.mark.slow
def test_resume_after_kill_inside_any_write_gives_same_files(plan_in, tmp_path, monkeypatch):
    """The process is killed while it writes a file: of the checkpoint, of the adapter, or of the final records."""
    overrides = {"optimisation.epochs": 2, "loss.estimator.kind": "ema", "backbone.lora_dropout": 0.1}
    uninterrupted, interrupted = (plan_in(tmp_path / name, overrides) for name in ("uninterrupted", "interrupted"))
    expected = train(uninterrupted, seed=3, report=lambda row: None, export=True)

    write = StudyFolder.write_bytes
    for point in KILL_AT:

        def killed_while_writing(folder: StudyFolder, name: str, data: bytes, point: str = point) -> None:
            if point in f"/{name}":
                temporary = Path(f"{folder.uri}/{name}.0123abcd.tmp")
                temporary.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data[: len(data) // 2])
                raise KeyboardInterrupt
            write(folder, name, data)

        monkeypatch.setattr(StudyFolder, "write_bytes", killed_while_writing)
        with pytest.raises(KeyboardInterrupt):
            train(interrupted, seed=3, report=lambda row: None, export=True)
        assert not interrupted.folder.exists("runs/abc/3/finished.json")
    monkeypatch.setattr(StudyFolder, "write_bytes", write)
    resumed = train(interrupted, seed=3, report=lambda row: None, export=True)

    assert without_times(resumed) == without_times(expected)
    for name in ("predictions.parquet", "steps.parquet", "adapter/adapter_model.safetensors"):
        path = f"runs/abc/3/{name}"
        assert interrupted.folder.read_bytes(path) == uninterrupted.folder.read_bytes(path), name
    remaining = [path.name for path in Path(interrupted.folder.uri, "runs/abc/3").iterdir()]
    assert not [name for name in remaining if name.endswith(".tmp") or name.startswith("checkpoint")]


def test_superseded_attempt_stops_writing(plan_in, tmp_path):
    """This happens if a node loses the cluster but not the storage: its workers go on for a while."""
    plan = plan_in(tmp_path, {"optimisation.epochs": 3})

    def start_elsewhere(row):
        if row["epoch"] == 1:
            claim_run(plan.folder, "runs/abc/3")

    with pytest.raises(Superseded, match=f"runs/abc/3 was taken over by process {os.getpid()} on .*stops writing"):
        train(plan, seed=3, report=start_elsewhere)
    assert [row["epoch"] for row in plan.folder.read_jsonl("runs/abc/3/epochs.jsonl")] == [1]

    with pytest.raises(
        Superseded, match="finished by another attempt; this one"
    ):  # after the last epoch, before the evaluation on test
        train(plan, seed=3, report=lambda row: row["epoch"] == 3 and plan.folder.remove("runs/abc/3/attempt.json"))
    assert not plan.folder.exists("runs/abc/3/finished.json") and not plan.folder.exists(
        "runs/abc/3/predictions.parquet"
    )

    assert train(plan, seed=3, report=lambda row: None)["epochs_run"] == 3
    with pytest.raises(Superseded, match="has been finished by another attempt"):
        train(plan, seed=3, report=lambda row: None)
    assert len(plan.folder.read_jsonl("runs/abc/3/epochs.jsonl")) == 3
    assert not plan.folder.exists("runs/abc/3/attempt.json")


def test_superseded_attempt_does_not_mark_its_checkpoint(plan_in, tmp_path, monkeypatch):
    plan = plan_in(tmp_path, {"optimisation.epochs": 3})
    write, attempts = StudyFolder.write_bytes, []

    def superseded_meanwhile(folder, name, data):
        write(folder, name, data)
        if "checkpoint-00002" in name and name.endswith("run.safetensors"):
            attempts.append(folder.read_json("runs/abc/3/attempt.json")["attempt"])
            claim_run(folder, "runs/abc/3")  # the run is started elsewhere during this write

    monkeypatch.setattr(StudyFolder, "write_bytes", superseded_meanwhile)
    with pytest.raises(Superseded, match="was taken over"):
        train(plan, seed=3, report=lambda row: None)
    marked = plan.folder.read_json("runs/abc/3/checkpoint.json")["checkpoint"]
    assert marked == f"checkpoint-00001-{attempts[0]}"  # attempts do not write into each other's checkpoints
