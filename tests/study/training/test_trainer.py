"""Train single runs without Ray: what they learn, record and refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from study.common.groups import SCORE_COLUMNS
from study.evaluation.metrics import evaluate
from study.models import lora
from study.storage.schemas import PREDICTION_COLUMNS
from study.training.train_step import LossNotFinite
from study.training.trainer import Trainer, train

CONSTANT = {"loss.fairness_weight.schedule": "constant", "loss.fairness_weight.weight": 0.5}


def ignore(row):
    """A report function that does nothing."""


def interrupt(row):
    raise KeyboardInterrupt


@pytest.fixture
def trainer_of(run_plan):
    """A function that builds a trainer from overrides of the settings; all of them are closed in the end."""
    trainers = []

    def build(overrides, seed=0):
        trainers.append(Trainer(run_plan(overrides), seed))
        return trainers[-1]

    yield build
    for trainer in trainers:
        trainer.close()


def test_run_learns_and_writes_its_records(run_plan):
    plan = run_plan({"optimisation.epochs": 3})
    reports = []
    finished = train(plan, seed=3, report=reports.append)
    epochs = plan.folder.read_jsonl("runs/abc/3/epochs.jsonl")
    assert [row["epoch"] for row in epochs] == [1, 2, 3] == [row["epoch"] for row in reports]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]
    best = max(epochs, key=lambda row: row["dev"]["w_f1"])
    assert finished["epoch"] == best["epoch"] and finished["dev"] == best["dev"]
    assert [row["dev"] for row in reports] == [row["dev"] for row in epochs]
    assert plan.folder.read_json("runs/abc/3/finished.json") == finished
    predictions = plan.folder.read_parquet("runs/abc/3/predictions.parquet")
    assert tuple(predictions.columns) == PREDICTION_COLUMNS
    assert set(predictions["split"]) == {"dev", "test"}
    assert not predictions.duplicated(["utterance_id", "modality"]).any()
    assert (predictions[list(SCORE_COLUMNS)].to_numpy() < 0).all()  # log-probabilities


def test_predictions_are_those_of_the_selected_epoch(run_plan, trainer_of):
    overrides = {"optimisation.learning_rate": 0.05, "optimisation.patience": 1, "optimisation.epochs": 4}
    plan = run_plan(overrides)
    finished = train(plan, seed=0, report=ignore)
    assert finished["epochs_run"] <= finished["epoch"] + 1  # early stopping
    trainer = trainer_of(overrides)
    predictions = plan.folder.read_parquet("runs/abc/0/predictions.parquet")
    for split in ("dev", "test"):
        scores = predictions.loc[predictions["split"] == split, list(SCORE_COLUMNS)].to_numpy()
        metrics = evaluate(trainer.evaluator.predictions(split, scores))
        assert metrics["w_f1"] == pytest.approx(finished[split]["w_f1"])


def test_seed_determines_the_results(run_plan):
    plan = run_plan({"optimisation.epochs": 1})
    first = train(plan, 1, report=ignore)
    plan.folder.remove("runs/abc/1")
    second, other_seed = (train(plan, seed, report=ignore) for seed in (1, 2))
    assert first["test"]["cells"] == second["test"]["cells"]
    assert first["test"]["cells"] != other_seed["test"]["cells"]


def test_fairness_weight_follows_its_schedule(run_plan):
    def weights(overrides):
        plan = run_plan(overrides)
        train(plan, seed=0, report=ignore)
        rows = plan.folder.read_jsonl("runs/abc/0/epochs.jsonl")
        plan.folder.remove("runs/abc/0")
        return [row["fairness_weight"] for row in rows]

    assert weights(CONSTANT) == [0.5, 0.5]
    assert weights({"loss.method": "erm"}) == [0.0, 0.0]
    first, second = weights({"loss.fairness_weight.step_size": 3.0, "loss.fairness_weight.initial": 0.1})
    assert first == 0.1 and second != 0.1  # updated by the dev gap after the first epoch
    first, second = weights({"loss.fairness_weight.driver": "loss_gap", "loss.fairness_weight.initial": 0.1})
    assert first == 0.1 and second != 0.1


def test_every_step_is_recorded(run_plan):
    plan = run_plan({"loss.fairness_weight.per_cell": True, "loss.fairness_weight.initial": 0.5})
    train(plan, seed=0, report=ignore)
    steps = plan.folder.read_parquet("runs/abc/0/steps.parquet")
    epochs = plan.folder.read_jsonl("runs/abc/0/epochs.jsonl")
    cells = [f"{language}/speech+text" for language in ("en", "ja", "de")]
    assert steps["step"].tolist() == list(range(1, len(steps) + 1)) and set(steps["epoch"]) == {1, 2}
    assert set(steps["active"]) <= set(cells) and steps["active"].nunique() > 1
    worst = steps[[f"gap/{cell}" for cell in cells]].abs().to_numpy().argmax(1)
    assert [cells[i] for i in worst] == steps["active"].tolist()
    assert (steps["negative_weights"] > 0).any() and (steps["negative_weights"] < 1).all()
    first, second = (steps.loc[steps["epoch"] == epoch, [f"fairness_weight/{c}" for c in cells]] for epoch in (1, 2))
    assert (first == 0.5).all(axis=None) and second.nunique(axis=1).min() > 1  # each is updated by its own cell's gap
    assert epochs[0]["loss"] == pytest.approx(steps.loc[steps["epoch"] == 1, "loss"].mean())


def test_several_fairness_updates_an_epoch_from_dev_or_control_split(run_plan):
    overrides = {
        "loss.fairness_updates_per_epoch": 3,
        "loss.fairness_weight.step_size": 5.0,
        "control.fraction": 0.5,
    }
    by_split = {}
    for split in ("dev", "control"):
        plan = run_plan({**overrides, "loss.fairness_weight.split": split})
        finished = train(plan, seed=0, report=ignore)
        by_split[split] = plan.folder.read_parquet("runs/abc/0/steps.parquet")["fairness_weight"]
        assert by_split[split].nunique() >= 5  # 0, and one after each of six updates except the last, after the end
        n_dev = sum(cell[f"n_{g}"] for cell in finished["dev"]["cells"].values() for g in ("female", "male"))
        assert 0.3 < n_dev / 84 < 0.7  # the other half of dev is the control split
        plan.folder.remove("runs")
    assert by_split["dev"].tolist() != by_split["control"].tolist()


def test_held_out_gaps_are_those_of_the_control_split(trainer_of):
    trainer = trainer_of({"loss.estimator.kind": "held_out", "control.fraction": 0.5, **CONSTANT})
    trainer.fairness.measure_control_split()
    scores, _ = trainer.evaluator.evaluate("control")
    examples = trainer.data.examples["control"]
    lengths = np.array([len(answer) for answer in trainer.data.answers])
    losses = -scores[np.arange(len(scores)), examples.labels] / lengths[examples.labels]
    expected = [
        losses[examples.groups == 2 * cell].mean() - losses[examples.groups == 2 * cell + 1].mean() for cell in range(3)
    ]
    # differences of float32 losses near 2
    assert trainer.state.loss_state["gaps"].tolist() == pytest.approx(expected, abs=1e-5)
    model = trainer.engine.model.eval()
    with torch.no_grad():  # the same losses as in training
        batches = [examples.collate(rows) for rows in np.array_split(np.arange(len(examples)), 2)]
        training_losses = torch.cat([model(batch, score=False)[0] for batch in batches])
    held_out = trainer.evaluator.global_batch("control")
    torch.testing.assert_close(training_losses, held_out.losses, rtol=1e-4, atol=1e-4)
    assert not set(trainer.data.examples["dev"].utterances) & set(examples.utterances)


@pytest.mark.parametrize(
    "overrides",
    [
        {"loss.estimator.kind": "ema", "loss.fairness_weight.initial": 0.3, "backbone.lora_dropout": 0.2},
        {"loss.method": "group_dro", "loss.sampling": "natural"},
    ],
)
@pytest.mark.parametrize("last_epoch", [1, 2])
def test_resumed_run_ends_like_an_uninterrupted_one(run_plan, overrides, last_epoch):
    plan = run_plan({**overrides, "optimisation.epochs": 3})
    uninterrupted = train(plan, seed=1, report=ignore)
    steps = plan.folder.read_parquet("runs/abc/1/steps.parquet")
    assert not [name for name in plan.folder.names("runs/abc/1") if name.startswith("checkpoint")]
    plan.folder.remove("runs")

    def interrupt_after(row):
        if row["epoch"] == last_epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, seed=1, report=interrupt_after)
    assert not plan.folder.exists("runs/abc/1/finished.json")
    epochs = []
    resumed = train(plan, seed=1, report=lambda row: epochs.append(row["epoch"]))
    assert epochs == list(range(last_epoch + 1, 4))  # no epoch is trained twice
    pd.testing.assert_frame_equal(plan.folder.read_parquet("runs/abc/1/steps.parquet"), steps, rtol=1e-5)
    for split in ("dev", "test"):
        assert resumed[split] == uninterrupted[split]
    assert resumed["epoch"] == uninterrupted["epoch"]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # ZeRO-2 imports torch.compile
def test_checkpoint_of_another_zero_stage_is_not_used(run_plan, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(run_plan(), seed=0, report=interrupt)
    epochs = []
    train(run_plan(zero_stage=2), seed=0, report=lambda row: epochs.append(row["epoch"]))
    assert epochs == [1, 2]
    assert "starting from the beginning" in capsys.readouterr().out


def test_accumulation_replays_the_same_dropout_masks(trainer_of):
    trainer = trainer_of({**CONSTANT, "backbone.lora_dropout": 0.5, "optimisation.micro_batch_size": 12})
    with torch.no_grad():  # the second LoRA matrix starts at 0, which would hide the dropout
        for name, parameter in trainer.engine.model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    step, rows = trainer.step, np.arange(24)
    micro_batches = [[step.examples.collate(rows[:12])], [step.examples.collate(rows[12:])]]
    first, _, random_states = step.forward_without_gradient(micro_batches)
    replayed = step.forward_replayed(micro_batches, random_states)
    torch.testing.assert_close(torch.cat([losses for losses, _ in replayed]), first, rtol=0, atol=0)
    different, _, _ = step.forward_without_gradient(micro_batches)
    assert (different != first).any()  # dropout is on


def test_free_memory_limits_micro_batches(trainer_of, monkeypatch):
    def micro_batches_of(overrides):
        trainer = trainer_of(overrides)
        rows = [[batch.rows.tolist() for batch in buckets] for buckets in trainer.collate(np.arange(24))]
        return rows, trainer.state.micro_batch_tokens, trainer.step.examples.lengths

    plenty, _, _ = micro_batches_of({})
    assert len(plenty) == 1
    monkeypatch.setattr("study.training.engine.free_memory", lambda: 2e7)
    scarce, max_tokens, lengths = micro_batches_of({})
    assert len(scarce) > 1 and sorted(row for buckets in scarce for rows in buckets for row in rows) == list(range(24))
    tokens = [sum(len(rows) * lengths[rows].max() for rows in buckets) for buckets in scarce]
    assert max(tokens) <= max_tokens
    fixed, max_tokens, _ = micro_batches_of({"optimisation.micro_batch_size": 24})
    assert len(fixed) == 1 and max_tokens is None


@pytest.mark.parametrize(("free", "same"), [(2e9, True), (1.9e7, True), (1e7, False)])
def test_resumed_run_keeps_its_micro_batches_if_they_fit_in_memory(run_plan, monkeypatch, free, same):
    plan = run_plan({**CONSTANT, "backbone.lora_dropout": 0.5})
    monkeypatch.setattr("study.training.engine.free_memory", lambda: 2e7)
    uninterrupted = train(plan, seed=0, report=ignore)
    steps = plan.folder.read_parquet("runs/abc/0/steps.parquet")
    plan.folder.remove("runs")

    with pytest.raises(KeyboardInterrupt):
        train(plan, seed=0, report=interrupt)
    monkeypatch.setattr("study.training.engine.free_memory", lambda: free)
    resumed = train(plan, seed=0, report=ignore)
    resumed_steps = plan.folder.read_parquet("runs/abc/0/steps.parquet")
    assert np.allclose(resumed_steps["loss"], steps["loss"], rtol=1e-5) == same
    assert not same or resumed["test"] == uninterrupted["test"]


def test_nan_weights_are_refused_without_training(trainer_of):
    trainer = trainer_of({"optimisation.epochs": 0})
    with torch.no_grad():
        next(iter(trainer.engine.model.peft_model.get_base_model().lm_head.parameters()))[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"examples have a score that is NaN: .*download them again"):
        trainer.evaluator.evaluate("dev")


def test_loss_that_is_not_finite_names_the_remedy(run_plan, monkeypatch):
    plan = run_plan(CONSTANT)
    monkeypatch.setattr(
        "study.models.qwen2_audio.EmotionModel.losses",
        lambda self, batch: (self.scores(batch)[:, 0] * float("nan"), self.scores(batch)),
    )
    with pytest.raises(LossNotFinite, match=r"epoch 1: .*learning_rate"):
        train(plan, seed=0, report=ignore)


def test_batch_larger_than_the_corpus_names_the_setting(run_plan):
    with pytest.raises(ValueError, match=r"optimisation\.batch_size: 6400 is more than the \d+"):
        train(run_plan({"optimisation.batch_size": 6400}), seed=0, report=ignore)


def test_no_epochs_score_the_backbone_as_it_is(run_plan, trainer_of):
    overrides = {"optimisation.epochs": 0, "optimisation.batch_size": 6400}  # more than the training examples
    plan = run_plan(overrides)
    finished = train(plan, seed=0, report=ignore)
    assert finished["epoch"] == finished["epochs_run"] == 0
    assert plan.folder.read_jsonl("runs/abc/0/epochs.jsonl") == []
    assert not plan.folder.read_parquet("runs/abc/0/steps.parquet")["fairness_weight"].any()
    predictions = plan.folder.read_parquet("runs/abc/0/predictions.parquet")
    trainer = trainer_of(overrides, seed=1)
    for split in ("dev", "test"):
        with trainer.engine.model.peft_model.disable_adapter():
            scores, _ = trainer.evaluator.evaluate(split)
        stored = predictions.loc[predictions["split"] == split, list(SCORE_COLUMNS)].to_numpy()
        assert stored == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("trainable", [[], ["projector"]])
def test_run_on_the_cached_base_model_equals_the_first(run_plan, monkeypatch, trainable):
    plan = run_plan({"optimisation.epochs": 1, "backbone.trainable": trainable})
    monkeypatch.setattr(lora, "_cached_base_models", {})
    loads = []
    load = lora.load_base
    monkeypatch.setattr(lora, "load_base", lambda *args: loads.append(args) or load(*args))

    def predictions(seed):
        train(plan, seed, report=ignore)
        table = plan.folder.read_parquet(f"runs/abc/{seed}/predictions.parquet")
        plan.folder.remove(f"runs/abc/{seed}")
        return table

    first = predictions(1)
    predictions(2)
    pd.testing.assert_frame_equal(predictions(1), first, check_exact=True)
    assert len(loads) == (1 if not trainable else 3)  # a base model that was trained is loaded again
