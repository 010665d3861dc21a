"""Settings: every fault at once, and identities that mean what they should."""

from __future__ import annotations

import pytest

from study.common.errors import SettingsError
from study.common.groups import cells
from study.config.config_id import config_id, differences
from study.config.presets import TINY, on_backbone
from study.config.settings import Placement, Settings
from study.planning.validation import context_faults

TINY_SETTINGS = Settings().with_overrides(TINY)


def test_every_fault_is_named_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings().with_overrides(
            {
                "objective.pwer": 2,
                "objective.power": 3,
                "objective.coefficients.languages.de": -1,
                "optimisation.epochs": -1,
            }
        )
    knobs = {fault.split(":")[0] for fault in caught.value.faults}
    assert knobs == {
        "objective.pwer", "objective.power", "objective.coefficients.languages.de", "optimisation.epochs",
    }  # fmt: skip


def test_context_names_absent_languages_and_too_many_workers():
    settings = TINY_SETTINGS.with_overrides({"objective.coefficients.languages.ja": 2.0})
    faults = context_faults(settings, Placement(ranks=4), ["en", "de"], cores=2)
    assert len(faults) == 2
    assert "objective.coefficients.languages.ja" in faults[0] and "en, de" in faults[0]
    assert "--ranks: 4" in faults[1] and "2" in faults[1]


def test_a_batch_too_small_for_the_groups_is_refused():
    settings = TINY_SETTINGS.with_overrides({"optimisation.batch_size": 8})
    assert any("batch_size" in fault for fault in context_faults(settings, Placement(), ["en", "ja", "de"], 2))


@pytest.mark.parametrize(
    "overrides",
    [
        {"objective.estimator.kind": "held_out"},
        {"objective.fairness_weight.split": "control"},
        {"objective.method": "v_rex", "objective.fairness_weight.schedule": "adaptive",
         "objective.fairness_weight.split": "control"},
    ],
)  # fmt: skip
def test_who_looks_at_a_control_split_needs_one(overrides):
    settings = TINY_SETTINGS.with_overrides(overrides)
    faults = context_faults(settings, Placement(), ["en", "de"], 2)
    assert len(faults) == 1 and "control.fraction" in faults[0]
    assert not context_faults(settings.with_overrides({"control.fraction": 0.5}), Placement(), ["en", "de"], 2)


def test_only_a_penalty_by_cell_can_have_a_weight_a_cell():
    per_cell = {"objective.fairness_weight.schedule": "adaptive", "objective.fairness_weight.per_cell": True}
    faults = context_faults(
        TINY_SETTINGS.with_overrides({"objective.method": "v_rex", **per_cell}), Placement(), ["en"], 2
    )
    assert len(faults) == 1 and "objective.fairness_weight.per_cell" in faults[0]
    assert not context_faults(TINY_SETTINGS.with_overrides(per_cell), Placement(), ["en"], 2)


def test_a_coefficient_of_a_cell_that_is_not_there_is_named():
    settings = TINY_SETTINGS.with_overrides({"objective.coefficients.cells": {"de/speech": 2.0}})
    (fault,) = context_faults(settings, Placement(), ["de"], 2)
    assert "objective.coefficients.cells.de/speech" in fault and "de/speech+text" in fault


def test_a_replaced_method_and_estimator_forget_the_other_one():
    first = TINY_SETTINGS.with_overrides({"objective.power": 1, "objective.estimator.kind": "ema"})
    assert differences(first.with_overrides({"objective.estimator.kind": "held_out"}).objective, "objective.") == {
        "objective.method": "minmaxgap", "objective.power": 1, "objective.estimator.kind": "held_out",
    }  # fmt: skip
    rex = first.with_overrides({"objective.method": "v_rex"})
    assert rex.objective.fairness_weight.weight == 1.0  # its own default
    back = rex.with_overrides({"objective.method": "minmaxgap"})
    assert back == TINY_SETTINGS


def test_a_replaced_schedule_forgets_the_other_one():
    settings = TINY_SETTINGS.with_overrides(
        {"objective.fairness_weight.schedule": "linear", "objective.fairness_weight.weight": 0.5}
    )
    assert settings.objective.fairness_weight.model_dump() == {
        "schedule": "linear",
        "weight": 0.5,
        "ramp_fraction": 0.5,
    }


def identity(settings, corpus, backbone):
    return config_id(settings, cells(["en", "de"], ["speech"]), corpus, backbone)


def test_config_id_is_that_of_the_kappa():
    def of(**languages):
        return TINY_SETTINGS.with_overrides({"objective.coefficients.languages": languages})

    base = identity(TINY_SETTINGS, "c", "b")
    assert identity(of(en=1.0), "c", "b") == identity(of(en=2.0, de=2.0), "c", "b") == base
    assert identity(of(en=2.0), "c", "b") == identity(of(en=1.0, de=0.5), "c", "b") != base
    by_cell = TINY_SETTINGS.with_overrides({"objective.coefficients.cells": {"en/speech": 2.0}})
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
    explicit = TINY_SETTINGS.with_overrides({"objective.power": 2})  # the default, said aloud
    assert identity(explicit, "corpus", "backbone") == base
    moved = TINY_SETTINGS.with_overrides({"corpus.spec": "meld-st:/elsewhere", "backbone.spec": "/a/copy"})
    assert identity(moved, "corpus", "backbone") == base
    others = {
        identity(TINY_SETTINGS.with_overrides({"objective.power": 1}), "corpus", "backbone"),
        identity(TINY_SETTINGS, "another corpus", "backbone"),
        identity(TINY_SETTINGS, "corpus", "another backbone"),
    }
    assert len(others | {base}) == 4


def test_what_has_no_effect_changes_no_id():
    erm = TINY_SETTINGS.with_overrides({"objective.method": "erm"})
    for base, overrides in (
        (TINY_SETTINGS, {"objective.sampling": "balanced"}),
        (TINY_SETTINGS, {"objective.temperature": 0.5}),
        (TINY_SETTINGS, {"control.source": "train"}),
        (erm, {"objective.sampling": "natural"}),
    ):
        assert identity(base.with_overrides(overrides), "c", "b") == identity(base, "c", "b")
    warm = {"objective.reduction": "softmax", "objective.temperature": 0.5}
    softmax = TINY_SETTINGS.with_overrides({"objective.reduction": "softmax"})
    assert identity(TINY_SETTINGS.with_overrides(warm), "c", "b") != identity(softmax, "c", "b")


def test_naming_the_schedule_that_it_is_keeps_what_was_set():
    fixed = TINY_SETTINGS.with_overrides({"objective.fairness_weight.tolerance": 0.3})
    trial = fixed.with_overrides({"objective.fairness_weight.schedule": "adaptive", "objective.method": "minmaxgap"})
    assert trial.objective.fairness_weight.tolerance == 0.3
    other = fixed.with_overrides(
        {"objective.fairness_weight.schedule": "linear", "objective.fairness_weight.weight": 1}
    )
    assert other.objective.fairness_weight.model_dump().keys() == {"schedule", "weight", "ramp_fraction"}


@pytest.mark.parametrize(
    ("overrides", "knob"),
    [
        ({"objective.method": ["erm"]}, "objective"),
        ({"optimisation.epochs.foo": 3}, "optimisation.epochs.foo"),
        ({"modalities.0": "speech"}, "modalities.0"),
        ({"objective.fairness_weight.initial": 20.0}, "objective.fairness_weight"),
        ({"objective.fairness_weight.schedule": "step", "objective.fairness_weight.weight": 1.0,
          "objective.fairness_weight.start_fraction": 1.0}, "objective.fairness_weight.start_fraction"),
        ({"objective.fairness_weight.per_cell": True, "objective.reduction": "mean"}, "objective"),
        ({"objective.estimator.kind": "ema", "objective.estimator.decay": 1.0}, "objective.estimator.decay"),
    ],
)  # fmt: skip
def test_choices_without_effect_or_out_of_range_are_named(overrides, knob):
    with pytest.raises(SettingsError) as caught:
        TINY_SETTINGS.with_overrides(overrides)
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [knob]


def test_sampling_is_balanced_for_the_group_method_and_natural_for_erm():
    assert TINY_SETTINGS.objective.sampled() == "balanced"
    erm = TINY_SETTINGS.with_overrides({"objective.method": "erm"})
    assert erm.objective.sampled() == "natural"
    assert erm.with_overrides({"objective.sampling": "weighted"}).objective.sampled() == "weighted"


def test_label_words_of_a_language_stand_in_the_question():
    prompt = Settings().with_overrides({"prompt.labels": "de"}).prompt
    assert prompt.labels[1] == "Freude" and "Freude, Überraschung, Ärger" in prompt.asked()
    assert Settings().prompt.asked().endswith("neutral, joy, surprise, anger, sadness, disgust, fear.")


def test_on_another_backbone_the_preset_of_the_tiny_one_goes_and_what_was_chosen_stays():
    tiny = on_backbone(Settings(), "tiny")
    assert differences(tiny).items() >= TINY.items()
    chosen = {"optimisation.learning_rate": 1e-3, "objective.method": "erm"}
    large = on_backbone(tiny.with_overrides(chosen), "some/model")
    assert large == Settings().with_overrides({"backbone.spec": "some/model", **chosen})
    assert on_backbone(large, "tiny") == tiny.with_overrides(chosen)


def test_a_part_is_trained_once():
    with pytest.raises(SettingsError, match=r"backbone\.trainable: a part is named twice"):
        Settings().with_overrides({"backbone.trainable": ["tower", "tower"]})
