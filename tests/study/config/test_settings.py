"""Settings report every error at once, and config_id depends only on what changes a result."""

from __future__ import annotations

import pytest

from study.common.errors import SettingsError
from study.common.groups import cells
from study.config.config_id import config_id, differences
from study.config.presets import TINY, on_backbone
from study.config.settings import Parallelism, Settings
from study.planning.validation import context_errors

TINY_SETTINGS = Settings().with_overrides(TINY)


def test_every_error_is_reported_at_once():
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


def test_absent_language_and_too_many_workers_are_errors():
    settings = TINY_SETTINGS.with_overrides({"loss.coefficients.languages.ja": 2.0})
    errors = context_errors(settings, Parallelism(num_workers=4), ["en", "de"], cores=2)
    assert len(errors) == 2
    assert "loss.coefficients.languages.ja" in errors[0] and "en, de" in errors[0]
    assert "--num-workers: 4" in errors[1] and "2" in errors[1]


def test_batch_too_small_for_the_groups_is_an_error():
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
def test_settings_that_use_a_control_split_need_one(overrides):
    settings = TINY_SETTINGS.with_overrides(overrides)
    errors = context_errors(settings, Parallelism(), ["en", "de"], 2)
    assert len(errors) == 1 and "control.fraction" in errors[0]
    assert not context_errors(settings.with_overrides({"control.fraction": 0.5}), Parallelism(), ["en", "de"], 2)


def test_weight_per_cell_needs_a_penalty_per_cell():
    per_cell = {"loss.fairness_weight.schedule": "adaptive", "loss.fairness_weight.per_cell": True}
    errors = context_errors(
        TINY_SETTINGS.with_overrides({"loss.method": "v_rex", **per_cell}), Parallelism(), ["en"], 2
    )
    assert len(errors) == 1 and "loss.fairness_weight.per_cell" in errors[0]
    assert not context_errors(TINY_SETTINGS.with_overrides(per_cell), Parallelism(), ["en"], 2)


def test_coefficient_of_an_absent_cell_is_an_error():
    settings = TINY_SETTINGS.with_overrides({"loss.coefficients.cells": {"de/speech": 2.0}})
    (message,) = context_errors(settings, Parallelism(), ["de"], 2)
    assert "loss.coefficients.cells.de/speech" in message and "de/speech+text" in message


def test_new_method_or_estimator_starts_from_its_defaults():
    first = TINY_SETTINGS.with_overrides({"loss.power": 1, "loss.estimator.kind": "ema"})
    assert differences(first.with_overrides({"loss.estimator.kind": "held_out"}).loss, "loss.") == {
        "loss.method": "minmaxgap", "loss.power": 1, "loss.estimator.kind": "held_out",
    }  # fmt: skip
    rex = first.with_overrides({"loss.method": "v_rex"})
    assert rex.loss.fairness_weight.weight == 1.0  # the default of v_rex
    back = rex.with_overrides({"loss.method": "minmaxgap"})
    assert back == TINY_SETTINGS


def test_new_schedule_starts_from_its_defaults():
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


def test_config_id_depends_on_kappa_not_on_coefficients():
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
def test_unusable_prompt_is_an_error(key, value):
    with pytest.raises(SettingsError, match="prompt"):
        TINY_SETTINGS.with_overrides({key: value})


def test_config_id_depends_on_settings_corpus_and_backbone_content():
    base = identity(TINY_SETTINGS, "corpus", "backbone")
    assert base == identity(TINY_SETTINGS, "corpus", "backbone")
    explicit = TINY_SETTINGS.with_overrides({"loss.power": 2})  # the default
    assert identity(explicit, "corpus", "backbone") == base
    moved = TINY_SETTINGS.with_overrides({"corpus.spec": "meld-st:/elsewhere", "backbone.spec": "/a/copy"})
    assert identity(moved, "corpus", "backbone") == base
    others = {
        identity(TINY_SETTINGS.with_overrides({"loss.power": 1}), "corpus", "backbone"),
        identity(TINY_SETTINGS, "another corpus", "backbone"),
        identity(TINY_SETTINGS, "corpus", "another backbone"),
    }
    assert len(others | {base}) == 4


def test_settings_without_effect_do_not_change_the_config_id():
    erm = TINY_SETTINGS.with_overrides({"loss.method": "erm"})
    for base, overrides in (
        (TINY_SETTINGS, {"loss.sampling": "balanced"}),
        (TINY_SETTINGS, {"loss.temperature": 0.5}),
        (TINY_SETTINGS, {"control.source": "train"}),
        (erm, {"loss.sampling": "natural"}),
    ):
        assert identity(base.with_overrides(overrides), "c", "b") == identity(base, "c", "b")
    tempered = {"loss.reduction": "softmax", "loss.temperature": 0.5}
    softmax = TINY_SETTINGS.with_overrides({"loss.reduction": "softmax"})
    assert identity(TINY_SETTINGS.with_overrides(tempered), "c", "b") != identity(softmax, "c", "b")


def test_choosing_the_current_schedule_keeps_its_settings():
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
def test_invalid_setting_is_named(overrides, hyperparameter):
    with pytest.raises(SettingsError) as caught:
        TINY_SETTINGS.with_overrides(overrides)
    assert [message.split(": ")[0] for message in caught.value.errors] == [hyperparameter]


def test_default_sampling_is_balanced_for_group_losses_and_natural_for_erm():
    assert TINY_SETTINGS.loss.batch_sampling == "balanced"
    erm = TINY_SETTINGS.with_overrides({"loss.method": "erm"})
    assert erm.loss.batch_sampling == "natural"
    assert erm.with_overrides({"loss.sampling": "weighted"}).loss.batch_sampling == "weighted"


def test_question_contains_the_label_words_of_a_language():
    prompt = Settings().with_overrides({"prompt.labels": "de"}).prompt
    assert prompt.labels[1] == "Freude" and "Freude, Überraschung, Ärger" in prompt.question_with_labels()
    assert Settings().prompt.question_with_labels().endswith("neutral, joy, surprise, anger, sadness, disgust, fear.")


def test_changing_the_backbone_changes_preset_values_only():
    tiny = on_backbone(Settings(), "tiny")
    assert differences(tiny).items() >= TINY.items()
    chosen = {"optimisation.learning_rate": 1e-3, "loss.method": "erm"}
    large = on_backbone(tiny.with_overrides(chosen), "some/model")
    assert large == Settings().with_overrides({"backbone.spec": "some/model", **chosen})
    assert on_backbone(large, "tiny") == tiny.with_overrides(chosen)


def test_duplicate_module_is_an_error():
    with pytest.raises(SettingsError, match=r"backbone\.trainable: contains a value twice"):
        Settings().with_overrides({"backbone.trainable": ["audio_encoder", "audio_encoder"]})


def test_long_value_is_not_shown_in_an_error():
    with pytest.raises(SettingsError) as caught:
        Settings().with_overrides(
            {"loss": {"method": "minimax", **{f"unknown_{i}": 0 for i in range(20)}}, "prompt": [0] * 99}
        )
    assert all("{" not in message and "[" not in message for message in caught.value.errors)
    with pytest.raises(SettingsError, match=r"optimisation\.epochs: .* \(given: -1\)"):
        Settings().with_overrides({"optimisation.epochs": -1})
