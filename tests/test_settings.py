"""Settings: every fault at once, and identities that mean what they should."""

from __future__ import annotations

import pytest

from study.groups import cells
from study.settings import TINY, Coefficients, Placement, Settings, SettingsError, config_id, context_faults

TINY_SETTINGS = Settings().with_overrides(TINY)


def test_every_fault_is_named_at_once():
    with pytest.raises(SettingsError) as caught:
        Settings().with_overrides(
            {
                "objective.pwer": 2,
                "objective.power": 3,
                "objective.coefficients.languages.de": -1,
                "optimisation.epochs": 0,
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


def test_kappa_is_the_product_with_mean_one():
    in_use = cells(["en", "de"], ["speech", "speech+text"])
    kappa = Coefficients(languages={"de": 3.0}, modalities={"speech": 0.5}).kappa(in_use)
    # raw: en/speech 0.5, de/speech 1.5, en/speech+text 1, de/speech+text 3; mean 1.5
    assert kappa == pytest.approx((1 / 3, 1.0, 2 / 3, 2.0))
    assert Coefficients().kappa(in_use) == (1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="every coefficient is 0"):
        Coefficients(languages={"en": 0, "de": 0}).kappa(in_use)


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


def test_config_id_is_that_of_the_kappa_and_under_erm_of_nothing_of_the_penalty():
    def of(**languages):
        return TINY_SETTINGS.with_overrides({"objective.coefficients.languages": languages})

    base = identity(TINY_SETTINGS, "c", "b")
    assert identity(of(en=1.0), "c", "b") == identity(of(en=2.0, de=2.0), "c", "b") == base
    assert identity(of(en=2.0), "c", "b") == identity(of(en=1.0, de=0.5), "c", "b") != base
    erm = TINY_SETTINGS.with_overrides({"objective.method": "erm"})
    weighted = erm.with_overrides({"objective.fairness_weight.initial": 0.7, "objective.power": 1})
    assert identity(weighted, "c", "b") == identity(erm, "c", "b") != base


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prompt.transcript", "no placeholder"),
        ("prompt.transcript", "{transcript} {x}"),
        ("prompt.question", "<|AUDIO|> again?"),
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


def test_sampling_is_balanced_for_the_group_method_and_natural_for_erm():
    assert TINY_SETTINGS.objective.balanced()
    assert not TINY_SETTINGS.with_overrides({"objective.method": "erm"}).objective.balanced()
    assert TINY_SETTINGS.with_overrides(
        {"objective.method": "erm", "objective.sampling": "balanced"}
    ).objective.balanced()
