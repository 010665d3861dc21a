"""Settings: every fault at once, and identities that mean what they should."""

from __future__ import annotations

import pytest

from study.common.errors import SettingsError
from study.common.groups import cells
from study.config.config_id import config_id, differences
from study.config.presets import TINY, on_backbone
from study.config.settings import Parallelism, Settings
from study.planning.validation import context_errors

TINY_SETTINGS = Settings().with_overrides(TINY)


def test_every_fault_is_named_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings().with_overrides(
            {
                "loss.pwer": 2,
                "loss.power": 3,
                "loss.coefficients.languages.de": -1,
                "optimisation.epochs": -1,
            }
        )
    hyperparameters = {message.split(":")[0] for message in caught.value.errors}
    assert hyperparameters == {
        "loss.pwer", "loss.power", "loss.coefficients.languages.de", "optimisation.epochs",
    }  # fmt: skip


def test_context_names_absent_languages_and_too_many_workers():
    settings = TINY_SETTINGS.with_overrides({"loss.coefficients.languages.ja": 2.0})
    errors = context_errors(settings, Parallelism(num_workers=4), ["en", "de"], cores=2)
    assert len(errors) == 2
    assert "loss.coefficients.languages.ja" in errors[0] and "en, de" in errors[0]
    assert "--num-workers: 4" in errors[1] and "2" in errors[1]


def test_a_batch_too_small_for_the_groups_is_refused():
    settings = TINY_SETTINGS.with_overrides({"optimisation.batch_size": 8})
    assert any("batch_size" in message for message in context_errors(settings, Parallelism(), ["en", "ja", "de"], 2))


@pytest.mark.parametrize(
    "overrides",
    [
        {"loss.estimator.kind": "held_out"},
        {"loss.fairness_weight.split": "control"},
        {"loss.method": "v_rex", "loss.fairness_weight.schedule": "adaptive",
         "loss.fairness_weight.split": "control"},
    ],
)  # fmt: skip
def test_who_looks_at_a_control_split_needs_one(overrides):
    settings = TINY_SETTINGS.with_overrides(overrides)
    errors = context_errors(settings, Parallelism(), ["en", "de"], 2)
    assert len(errors) == 1 and "control.fraction" in errors[0]
    assert not context_errors(settings.with_overrides({"control.fraction": 0.5}), Parallelism(), ["en", "de"], 2)


def test_only_a_penalty_by_cell_can_have_a_weight_a_cell():
    per_cell = {"loss.fairness_weight.schedule": "adaptive", "loss.fairness_weight.per_cell": True}
    errors = context_errors(
        TINY_SETTINGS.with_overrides({"loss.method": "v_rex", **per_cell}), Parallelism(), ["en"], 2
    )
    assert len(errors) == 1 and "loss.fairness_weight.per_cell" in errors[0]
    assert not context_errors(TINY_SETTINGS.with_overrides(per_cell), Parallelism(), ["en"], 2)


def test_a_coefficient_of_a_cell_that_is_not_there_is_named():
    settings = TINY_SETTINGS.with_overrides({"loss.coefficients.cells": {"de/speech": 2.0}})
    (message,) = context_errors(settings, Parallelism(), ["de"], 2)
    assert "loss.coefficients.cells.de/speech" in message and "de/speech+text" in message


def test_a_replaced_method_and_estimator_forget_the_other_one():
    first = TINY_SETTINGS.with_overrides({"loss.power": 1, "loss.estimator.kind": "ema"})
    assert differences(first.with_overrides({"loss.estimator.kind": "held_out"}).loss, "loss.") == {
        "loss.method": "minmaxgap", "loss.power": 1, "loss.estimator.kind": "held_out",
    }  # fmt: skip
    rex = first.with_overrides({"loss.method": "v_rex"})
    assert rex.loss.fairness_weight.weight == 1.0  # its own default
    back = rex.with_overrides({"loss.method": "minmaxgap"})
    assert back == TINY_SETTINGS


def test_a_replaced_schedule_forgets_the_other_one():
    settings = TINY_SETTINGS.with_overrides(
        {"loss.fairness_weight.schedule": "linear", "loss.fairness_weight.weight": 0.5}
    )
    assert settings.loss.fairness_weight.model_dump() == {
        "schedule": "linear",
        "weight": 0.5,
        "ramp_fraction": 0.5,
    }


def identity(settings, corpus, backbone):
    return config_id(settings, cells(["en", "de"], ["speech"]), corpus, backbone)


def test_config_id_is_that_of_the_kappa():
    def of(**languages):
        return TINY_SETTINGS.with_overrides({"loss.coefficients.languages": languages})

    base = identity(TINY_SETTINGS, "c", "b")
    assert identity(of(en=1.0), "c", "b") == identity(of(en=2.0, de=2.0), "c", "b") == base
    assert identity(of(en=2.0), "c", "b") == identity(of(en=1.0, de=0.5), "c", "b") != base
    by_cell = TINY_SETTINGS.with_overrides({"loss.coefficients.cells": {"en/speech": 2.0}})
    assert identity(by_cell, "c", "b") == identity(of(en=2.0), "c", "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prompt.transcript", "no placeholder"),
        ("prompt.transcript", "{transcript} {x}"),
        ("prompt.question", "<|AUDIO|> again?"),
        ("prompt.question", "{which}?"),
        ("prompt.labels", "fr"),
        ("prompt.labels", ["a", "A", "c", "d", "e", "f", "g"]),
        ("prompt.labels", ["a", "b", "c", "d", "e", "f", " "]),
    ],
)
def test_prompts_that_would_break_or_mislead_are_refused(key, value):
    with pytest.raises(SettingsError, match="prompt"):
        TINY_SETTINGS.with_overrides({key: value})


def test_config_id_follows_what_decides_the_result_and_nothing_else():
    base = identity(TINY_SETTINGS, "corpus", "backbone")
    assert base == identity(TINY_SETTINGS, "corpus", "backbone")
    explicit = TINY_SETTINGS.with_overrides({"loss.power": 2})  # the default, said aloud
    assert identity(explicit, "corpus", "backbone") == base
    moved = TINY_SETTINGS.with_overrides({"corpus.spec": "meld-st:/elsewhere", "backbone.spec": "/a/copy"})
    assert identity(moved, "corpus", "backbone") == base
    others = {
        identity(TINY_SETTINGS.with_overrides({"loss.power": 1}), "corpus", "backbone"),
        identity(TINY_SETTINGS, "another corpus", "backbone"),
        identity(TINY_SETTINGS, "corpus", "another backbone"),
    }
    assert len(others | {base}) == 4


def test_what_has_no_effect_changes_no_id():
    erm = TINY_SETTINGS.with_overrides({"loss.method": "erm"})
    for base, overrides in (
        (TINY_SETTINGS, {"loss.sampling": "balanced"}),
        (TINY_SETTINGS, {"loss.temperature": 0.5}),
        (TINY_SETTINGS, {"control.source": "train"}),
        (erm, {"loss.sampling": "natural"}),
    ):
        assert identity(base.with_overrides(overrides), "c", "b") == identity(base, "c", "b")
    warm = {"loss.reduction": "softmax", "loss.temperature": 0.5}
    softmax = TINY_SETTINGS.with_overrides({"loss.reduction": "softmax"})
    assert identity(TINY_SETTINGS.with_overrides(warm), "c", "b") != identity(softmax, "c", "b")


def test_naming_the_schedule_that_it_is_keeps_what_was_set():
    fixed = TINY_SETTINGS.with_overrides({"loss.fairness_weight.tolerance": 0.3})
    trial = fixed.with_overrides({"loss.fairness_weight.schedule": "adaptive", "loss.method": "minmaxgap"})
    assert trial.loss.fairness_weight.tolerance == 0.3
    other = fixed.with_overrides({"loss.fairness_weight.schedule": "linear", "loss.fairness_weight.weight": 1})
    assert other.loss.fairness_weight.model_dump().keys() == {"schedule", "weight", "ramp_fraction"}


@pytest.mark.parametrize(
    ("overrides", "hyperparameter"),
    [
        ({"loss.method": ["erm"]}, "loss"),
        ({"optimisation.epochs.foo": 3}, "optimisation.epochs.foo"),
        ({"modalities.0": "speech"}, "modalities.0"),
        ({"loss.fairness_weight.initial": 20.0}, "loss.fairness_weight"),
        ({"loss.fairness_weight.schedule": "step", "loss.fairness_weight.weight": 1.0,
          "loss.fairness_weight.start_fraction": 1.0}, "loss.fairness_weight.start_fraction"),
        ({"loss.fairness_weight.per_cell": True, "loss.reduction": "mean"}, "loss"),
        ({"loss.estimator.kind": "ema", "loss.estimator.decay": 1.0}, "loss.estimator.decay"),
    ],
)  # fmt: skip
def test_choices_without_effect_or_out_of_range_are_named(overrides, hyperparameter):
    with pytest.raises(SettingsError) as caught:
        TINY_SETTINGS.with_overrides(overrides)
    assert [message.split(": ")[0] for message in caught.value.errors] == [hyperparameter]


def test_sampling_is_balanced_for_the_group_method_and_natural_for_erm():
    assert TINY_SETTINGS.loss.batch_sampling == "balanced"
    erm = TINY_SETTINGS.with_overrides({"loss.method": "erm"})
    assert erm.loss.batch_sampling == "natural"
    assert erm.with_overrides({"loss.sampling": "weighted"}).loss.batch_sampling == "weighted"


def test_label_words_of_a_language_stand_in_the_question():
    prompt = Settings().with_overrides({"prompt.labels": "de"}).prompt
    assert prompt.labels[1] == "Freude" and "Freude, Überraschung, Ärger" in prompt.asked()
    assert Settings().prompt.asked().endswith("neutral, joy, surprise, anger, sadness, disgust, fear.")


def test_on_another_backbone_the_preset_of_the_tiny_one_goes_and_what_was_chosen_stays():
    tiny = on_backbone(Settings(), "tiny")
    assert differences(tiny).items() >= TINY.items()
    chosen = {"optimisation.learning_rate": 1e-3, "loss.method": "erm"}
    large = on_backbone(tiny.with_overrides(chosen), "some/model")
    assert large == Settings().with_overrides({"backbone.spec": "some/model", **chosen})
    assert on_backbone(large, "tiny") == tiny.with_overrides(chosen)


def test_a_part_is_trained_once():
    with pytest.raises(SettingsError, match=r"backbone\.trainable: contains a value twice"):
        Settings().with_overrides({"backbone.trainable": ["audio_encoder", "audio_encoder"]})
