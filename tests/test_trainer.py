"""One run without Ray: what it learns, what it leaves, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from study.records import PREDICTION_COLUMNS, SCORE_COLUMNS
from study.trainer import LossNotFinite, Run, train

CONSTANT = {"objective.fairness_weight.schedule": "constant", "objective.fairness_weight.weight": 0.5}


def test_a_run_leaves_its_records_and_learns(run_plan):
    plan = run_plan({"optimisation.epochs": 3})
    reports = []
    finished = train(plan, seed=3, report=reports.append)
    epochs = plan.folder.read_jsonl("runs/abc/3/epochs.jsonl")
    assert [row["epoch"] for row in epochs] == [1, 2, 3] == [row["epoch"] for row in reports]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    best = max(epochs, key=lambda row: row["dev"]["w_f1"])
    assert finished["epoch"] == best["epoch"] and finished["dev"]["w_f1"] == best["dev"]["w_f1"]
    assert plan.folder.read_json("runs/abc/3/finished.json") == finished
    predictions = plan.folder.read_parquet("runs/abc/3/predictions.parquet")
    assert tuple(predictions.columns) == PREDICTION_COLUMNS
    assert set(predictions["split"]) == {"dev", "test"}
    assert not predictions.duplicated(["utterance_id", "modality"]).any()
    assert (predictions[list(SCORE_COLUMNS)].to_numpy() < 0).all()  # log-probabilities


def test_the_selected_epoch_is_the_one_that_is_scored(run_plan):
    from study.metrics import evaluate

    plan = run_plan({"optimisation.learning_rate": 0.05, "optimisation.patience": 1, "optimisation.epochs": 4})
    finished = train(plan, seed=0, report=lambda row: None)
    assert finished["epochs_run"] <= finished["epoch"] + 1  # early stopping
    run = Run(plan, 0)
    predictions = plan.folder.read_parquet("runs/abc/0/predictions.parquet")
    for split in ("dev", "test"):
        scores = predictions.loc[predictions["split"] == split, list(SCORE_COLUMNS)].to_numpy()
        assert evaluate(run.frame(split, scores))["w_f1"] == pytest.approx(finished[split]["w_f1"])
    run.close()


def test_the_same_seed_gives_the_same_figures_and_another_one_others(run_plan):
    plan = run_plan({"optimisation.epochs": 1})
    first, again, other = (train(plan, seed, report=lambda row: None) for seed in (1, 1, 2))
    assert first["test"]["cells"] == again["test"]["cells"]
    assert first["test"]["cells"] != other["test"]["cells"]


def test_schedules_reach_the_training_record(run_plan):
    def weights(overrides):
        plan = run_plan(overrides)
        train(plan, seed=0, report=lambda row: None)
        return [row["fairness_weight"] for row in plan.folder.read_jsonl("runs/abc/0/epochs.jsonl")]

    assert weights(CONSTANT) == [0.5, 0.5]
    assert weights({"objective.method": "erm"}) == [0.0, 0.0]
    first, second = weights({"objective.fairness_weight.step_size": 3.0, "objective.fairness_weight.initial": 0.1})
    assert first == 0.1 and second != 0.1  # moved by the dev gap after the first epoch
    by_loss = weights({"objective.fairness_weight.driver": "loss_gap", "objective.fairness_weight.initial": 0.1})
    assert by_loss[0] == 0.1 and by_loss[1] != 0.1


def test_accumulation_replays_the_same_dropout(run_plan):
    run = Run(run_plan({**CONSTANT, "backbone.lora_dropout": 0.5, "optimisation.micro_batch_size": 12}), 0)
    with torch.no_grad():  # LoRA's second matrix is 0 at the start, which would hide its dropout
        for name, parameter in run.engine.module.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    rows = np.arange(24)
    examples = run.examples["train"]
    batches = [examples.collate(rows[:12]), examples.collate(rows[12:])]
    first, states = run.losses_without_gradient(batches)
    replayed = run.losses_replayed(batches, states)
    torch.testing.assert_close(torch.cat(tuple(replayed)), first, rtol=0, atol=0)
    different, _ = run.losses_without_gradient(batches)
    assert (different != first).any()  # dropout is on
    run.close()


def test_a_loss_that_is_not_finite_names_the_remedy(run_plan, monkeypatch):
    plan = run_plan(CONSTANT)
    monkeypatch.setattr(
        "study.backbone.EmotionModel.losses", lambda self, batch: self.scores(batch)[:, 0] * float("nan")
    )
    with pytest.raises(LossNotFinite, match=r"epoch 1: .*learning_rate"):
        train(plan, seed=0, report=lambda row: None)


def test_a_batch_larger_than_the_corpus_names_the_knob(run_plan):
    with pytest.raises(ValueError, match=r"optimisation\.batch_size: 6400 is more than the \d+"):
        train(run_plan({"optimisation.batch_size": 6400}), seed=0, report=lambda row: None)
