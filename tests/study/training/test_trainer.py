"""One run without Ray: what it learns, what it leaves, what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from study.common.groups import SCORE_COLUMNS
from study.models import base_weights
from study.storage.schemas import PREDICTION_COLUMNS
from study.training.run import Run
from study.training.train_step import LossNotFinite
from study.training.trainer import train

CONSTANT = {"loss.fairness_weight.schedule": "constant", "loss.fairness_weight.weight": 0.5}


def test_a_run_leaves_its_records_and_learns(run_plan):
    plan = run_plan({"optimisation.epochs": 3})
    reports = []
    finished = train(plan, seed=3, report=reports.append)
    epochs = plan.folder.read_jsonl("runs/abc/3/epochs.jsonl")
    assert [row["epoch"] for row in epochs] == [1, 2, 3] == [row["epoch"] for row in reports]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    best = max(epochs, key=lambda row: row["dev"]["w_f1"])
    assert finished["epoch"] == best["epoch"] and finished["dev"] == best["dev"]
    assert [row["dev"] for row in reports] == [row["dev"] for row in epochs]  # whole: any figure can be ranked by
    assert plan.folder.read_json("runs/abc/3/finished.json") == finished
    predictions = plan.folder.read_parquet("runs/abc/3/predictions.parquet")
    assert tuple(predictions.columns) == PREDICTION_COLUMNS
    assert set(predictions["split"]) == {"dev", "test"}
    assert not predictions.duplicated(["utterance_id", "modality"]).any()
    assert (predictions[list(SCORE_COLUMNS)].to_numpy() < 0).all()  # log-probabilities


def test_the_selected_epoch_is_the_one_that_is_scored(run_plan):
    from study.evaluation.metrics import evaluate

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
    first = train(plan, 1, report=lambda row: None)
    plan.folder.remove("runs/abc/1")
    again, other = (train(plan, seed, report=lambda row: None) for seed in (1, 2))
    assert first["test"]["cells"] == again["test"]["cells"]
    assert first["test"]["cells"] != other["test"]["cells"]


def test_schedules_reach_the_training_record(run_plan):
    def weights(overrides):
        plan = run_plan(overrides)
        train(plan, seed=0, report=lambda row: None)
        rows = plan.folder.read_jsonl("runs/abc/0/epochs.jsonl")
        plan.folder.remove("runs/abc/0")
        return [row["fairness_weight"] for row in rows]

    assert weights(CONSTANT) == [0.5, 0.5]
    assert weights({"loss.method": "erm"}) == [0.0, 0.0]
    first, second = weights({"loss.fairness_weight.step_size": 3.0, "loss.fairness_weight.initial": 0.1})
    assert first == 0.1 and second != 0.1  # moved by the dev gap after the first epoch
    by_loss = weights({"loss.fairness_weight.driver": "loss_gap", "loss.fairness_weight.initial": 0.1})
    assert by_loss[0] == 0.1 and by_loss[1] != 0.1


def test_every_step_is_recorded(run_plan):
    plan = run_plan({"loss.fairness_weight.per_cell": True, "loss.fairness_weight.initial": 0.5})
    train(plan, seed=0, report=lambda row: None)
    steps = plan.folder.read_parquet("runs/abc/0/steps.parquet")
    epochs = plan.folder.read_jsonl("runs/abc/0/epochs.jsonl")
    cells = [f"{language}/speech+text" for language in ("en", "ja", "de")]
    assert steps["step"].tolist() == list(range(1, len(steps) + 1)) and set(steps["epoch"]) == {1, 2}
    assert set(steps["active"]) <= set(cells) and steps["active"].nunique() > 1
    worst = steps[[f"gap/{cell}" for cell in cells]].abs().to_numpy().argmax(1)
    assert [cells[i] for i in worst] == steps["active"].tolist()
    assert (steps["negative_weights"] > 0).any() and (steps["negative_weights"] < 1).all()
    first, second = (steps.loc[steps["epoch"] == epoch, [f"fairness_weight/{c}" for c in cells]] for epoch in (1, 2))
    assert (first == 0.5).all(axis=None) and second.nunique(axis=1).min() > 1  # each cell's own gap moved its own
    assert epochs[0]["loss"] == pytest.approx(steps.loc[steps["epoch"] == 1, "loss"].mean())


def test_a_weight_can_move_several_times_an_epoch_and_by_the_control_split(run_plan):
    hyperparameters = {
        "loss.fairness_updates_per_epoch": 3,
        "loss.fairness_weight.step_size": 5.0,
        "control.fraction": 0.5,
    }
    by_split = {}
    for split in ("dev", "control"):
        plan = run_plan({**hyperparameters, "loss.fairness_weight.split": split})
        finished = train(plan, seed=0, report=lambda row: None)
        by_split[split] = plan.folder.read_parquet("runs/abc/0/steps.parquet")["fairness_weight"]
        assert by_split[split].nunique() >= 5  # 0, and after five of the six looks (the last one is after the end)
        n_dev = sum(cell[f"n_{g}"] for cell in finished["dev"]["cells"].values() for g in ("female", "male"))
        assert 0.3 < n_dev / 84 < 0.7  # the other half of dev controls
        plan.folder.remove("runs")
    assert by_split["dev"].tolist() != by_split["control"].tolist()


def test_held_out_gaps_are_those_of_the_control_split(run_plan):
    plan = run_plan({"loss.estimator.kind": "held_out", "control.fraction": 0.5, **CONSTANT})
    run = Run(plan, 0)
    run.measure_control()
    scores, figures = run.evaluate("control")
    examples = run.examples["control"]
    lengths = np.array([len(answer) for answer in run.answers])
    losses = -scores[np.arange(len(scores)), examples.labels] / lengths[examples.labels]
    expected = [
        losses[examples.groups == 2 * cell].mean() - losses[examples.groups == 2 * cell + 1].mean() for cell in range(3)
    ]
    assert run.loss_state["gaps"].tolist() == pytest.approx(expected, abs=1e-5)  # differences of float32 losses near 2
    run.engine.eval()
    with torch.no_grad():  # and these losses are those of training
        parts = [
            run.engine(examples.collate(rows), score=False)[0] for rows in np.array_split(np.arange(len(examples)), 2)
        ]
    run.engine.train()
    torch.testing.assert_close(torch.cat(parts), run.held_out("control").losses, rtol=1e-4, atol=1e-4)
    assert not set(run.examples["dev"].utterances) & set(examples.utterances)
    run.close()


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"loss.estimator.kind": "ema", "loss.fairness_weight.initial": 0.3, "backbone.lora_dropout": 0.2},
        {"loss.method": "group_dro", "loss.sampling": "natural"},
    ],
)
@pytest.mark.parametrize("cut_at", [1, 2])
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(run_plan, hyperparameters, cut_at):
    plan = run_plan({**hyperparameters, "optimisation.epochs": 3})
    whole = train(plan, seed=1, report=lambda row: None)
    kept = plan.folder.read_parquet("runs/abc/1/steps.parquet")
    assert not [name for name in plan.folder.names("runs/abc/1") if name.startswith("checkpoint")]
    plan.folder.remove("runs")

    def cut(row):
        if row["epoch"] == cut_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, seed=1, report=cut)
    assert not plan.folder.exists("runs/abc/1/finished.json")
    epochs = []
    resumed = train(plan, seed=1, report=lambda row: epochs.append(row["epoch"]))
    assert epochs == list(range(cut_at + 1, 4))  # nothing is trained twice
    pd.testing.assert_frame_equal(plan.folder.read_parquet("runs/abc/1/steps.parquet"), kept, rtol=1e-5)
    for split in ("dev", "test"):
        assert resumed[split] == whole[split]
    assert resumed["epoch"] == whole["epoch"]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # ZeRO-2 imports torch.compile
def test_a_checkpoint_of_another_zero_stage_is_not_used(run_plan):
    def cut(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run_plan(), seed=0, report=cut)
    epochs = []
    train(run_plan(zero_stage=2), seed=0, report=lambda row: epochs.append(row["epoch"]))
    assert epochs == [1, 2]


def test_accumulation_replays_the_same_dropout(run_plan):
    run = Run(run_plan({**CONSTANT, "backbone.lora_dropout": 0.5, "optimisation.micro_batch_size": 12}), 0)
    with torch.no_grad():  # LoRA's second matrix is 0 at the start, which would hide its dropout
        for name, parameter in run.engine.module.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    rows = np.arange(24)
    examples = run.examples["train"]
    batches = [[examples.collate(rows[:12])], [examples.collate(rows[12:])]]
    first, _, states = run.outcomes_without_gradient(batches)
    replayed = run.outcomes_replayed(batches, states)
    torch.testing.assert_close(torch.cat([losses for losses, _ in replayed]), first, rtol=0, atol=0)
    different, _, _ = run.outcomes_without_gradient(batches)
    assert (different != first).any()  # dropout is on
    run.close()


def test_passes_are_cut_by_free_memory(run_plan, monkeypatch):
    def passes_of(overrides):
        run = Run(run_plan(overrides), 0)
        passes = run.collated([np.arange(24)])
        lengths = run.examples["train"].lengths
        kept, tokens = [[batch.rows.tolist() for batch in buckets] for buckets in passes], run.tokens
        run.close()
        return kept, tokens, lengths

    plenty, _, _ = passes_of({})
    assert len(plenty) == 1
    monkeypatch.setattr("study.training.run.free_memory", lambda: 2e7)
    scarce, tokens, lengths = passes_of({})
    assert len(scarce) > 1 and sorted(row for buckets in scarce for rows in buckets for row in rows) == list(range(24))
    held = [sum(len(rows) * lengths[rows].max() for rows in buckets) for buckets in scarce]
    assert max(held) <= tokens
    given, tokens, _ = passes_of({"optimisation.micro_batch_size": 24})
    assert len(given) == 1 and tokens is None


@pytest.mark.parametrize(("free", "same"), [(2e9, True), (1.9e7, True), (1e7, False)])
def test_a_run_that_goes_on_cuts_its_steps_as_before_where_memory_allows(run_plan, monkeypatch, free, same):
    plan = run_plan({**CONSTANT, "backbone.lora_dropout": 0.5})
    monkeypatch.setattr("study.training.run.free_memory", lambda: 2e7)
    whole = train(plan, seed=0, report=lambda row: None)
    steps = plan.folder.read_parquet("runs/abc/0/steps.parquet")
    plan.folder.remove("runs")

    def cut(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, seed=0, report=cut)
    monkeypatch.setattr("study.training.run.free_memory", lambda: free)
    resumed = train(plan, seed=0, report=lambda row: None)
    again = plan.folder.read_parquet("runs/abc/0/steps.parquet")
    assert np.allclose(again["loss"], steps["loss"], rtol=1e-5) == same
    assert not same or resumed["test"] == whole["test"]


def test_weights_that_are_no_numbers_are_named_where_nothing_is_trained(run_plan):
    run = Run(run_plan({"optimisation.epochs": 0}), 0)
    with torch.no_grad():
        next(iter(run.engine.module.peft_model.get_base_model().lm_head.parameters()))[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"examples have a score that is not a number: .*fetch them again"):
        run.evaluate("dev")
    run.close()


def test_a_loss_that_is_not_finite_names_the_remedy(run_plan, monkeypatch):
    plan = run_plan(CONSTANT)
    monkeypatch.setattr(
        "study.models.qwen2_audio.EmotionModel.losses",
        lambda self, batch: (self.scores(batch)[:, 0] * float("nan"), self.scores(batch)),
    )
    with pytest.raises(LossNotFinite, match=r"epoch 1: .*learning_rate"):
        train(plan, seed=0, report=lambda row: None)


def test_a_batch_larger_than_the_corpus_names_the_knob(run_plan):
    with pytest.raises(ValueError, match=r"optimisation\.batch_size: 6400 is more than the \d+"):
        train(run_plan({"optimisation.batch_size": 6400}), seed=0, report=lambda row: None)


def test_no_epochs_score_the_backbone_as_it_is(run_plan):
    plan = run_plan({"optimisation.epochs": 0, "optimisation.batch_size": 6400})  # more than there are to train on
    finished = train(plan, seed=0, report=lambda row: None)
    assert finished["epoch"] == finished["epochs_run"] == 0
    assert plan.folder.read_jsonl("runs/abc/0/epochs.jsonl") == []
    assert not plan.folder.read_parquet("runs/abc/0/steps.parquet")["fairness_weight"].any()
    predictions = plan.folder.read_parquet("runs/abc/0/predictions.parquet")
    run = Run(plan, 1)
    for split in ("dev", "test"):
        with run.engine.module.peft_model.disable_adapter():
            scores, _ = run.evaluate(split)
        stored = predictions.loc[predictions["split"] == split, list(SCORE_COLUMNS)].to_numpy()
        assert stored == pytest.approx(scores, abs=1e-5)
    run.close()


@pytest.mark.parametrize("trainable", [[], ["projector"]])
def test_a_following_run_on_the_base_that_was_kept_equals_the_first(run_plan, monkeypatch, trainable):
    plan = run_plan({"optimisation.epochs": 1, "backbone.trainable": trainable})
    monkeypatch.setattr(base_weights, "_kept", {})
    loads = []
    load = base_weights.load_base
    monkeypatch.setattr(base_weights, "load_base", lambda *args: loads.append(args) or load(*args))

    def predictions(seed):
        train(plan, seed, report=lambda row: None)
        table = plan.folder.read_parquet(f"runs/abc/{seed}/predictions.parquet")
        plan.folder.remove(f"runs/abc/{seed}")
        return table

    first = predictions(1)
    predictions(2)
    pd.testing.assert_frame_equal(predictions(1), first, check_exact=True)
    assert len(loads) == (1 if not trainable else 3)  # a base that was trained itself is loaded again
