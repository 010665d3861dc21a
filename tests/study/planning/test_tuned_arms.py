"""Arms from finished searches: selected on dev, with equal budgets and equal settings."""

from __future__ import annotations

import pytest

from search_spaces import space_maker
from study.cli.ablation import make_arms
from study.common.errors import SettingsError
from study.config.presets import TINY
from study.config.settings import Settings
from study.planning.tuned_arms import choose, read_tuned_arms
from study.storage.study_folder import StudyFolder
from tests.analysis.studies import write_plan

SETTINGS = Settings().with_overrides(TINY)
LANGUAGES = ["en", "ja", "de"]


def study(path, space, proposals, failed=(), **changes):
    """A search: ERM with W-F1 0.50 and gap 0.08, then proposals of (W-F1, gap)."""
    hyperparameters = [
        hyperparameter.model_dump(mode="json")
        for hyperparameter in space_maker(space)(LANGUAGES, SETTINGS).hyperparameters
    ]
    plan = {"objectives": [["dev_w_f1", "max"], ["dev_gap", "min"]], "hyperparameters": hyperparameters, "space": space}
    folder = write_plan(path, **{"settings": SETTINGS.model_dump(mode="json"), **plan, **changes})
    for number, values in enumerate([(0.50, 0.08), *proposals]):
        record = {
            "number": number,
            "label": None if number else "ERM",
            "config_id": f"{path.name}{number}",
            "hyperparameters": {"loss.fairness_weight.initial": number / 10},
            "state": "failed" if number in failed else "finished",
            "values": list(values),
            "seconds": 1.0,
        }
        folder.write_json(f"trials/{number:05d}.json", record)
    return folder


def test_searches_are_cut_to_the_shortest_and_give_the_smallest_gap_near_erm(tmp_path):
    uniform = study(tmp_path / "u", "schedules", [(0.49, 0.06), (0.40, 0.01), (0.48, 0.02)])
    cells = study(tmp_path / "c", "schedules+coefficients_per_language", [(0.50, 0.07), (0.495, 0.05)], failed=(1,))
    # the second search has two finished trials, so two of the first count: its trial 1 is selected, not its trial 3
    one, two = read_tuned_arms([uniform, cells])
    assert one.baseline.label == "coefficients uniform (u, trial 1)"
    assert two.baseline.label == "coefficients per language (c, trial 2)"
    assert one.baseline.fixed == {"loss.fairness_weight.initial": 0.1}
    assert "first 2 finished trials" in one.baseline.note and "seeds 0" in one.baseline.note
    space = make_arms(LANGUAGES, SETTINGS, ("ERM", "minimax"), [one, two])
    assert [r.label for r in space.baselines] == ["ERM", "minimax", one.baseline.label, two.baseline.label]


def test_search_with_other_settings_is_refused(tmp_path):
    arms = read_tuned_arms([study(tmp_path / "u", "schedules", [(0.5, 0.06)])])
    with pytest.raises(
        SettingsError, match=r"--from .*: the search had control.fraction=0.0, this call has 0.5; use --set"
    ):
        make_arms(LANGUAGES, SETTINGS.with_overrides({"control.fraction": 0.5}), ("ERM",), arms)


@pytest.mark.parametrize("fixed", [{"loss.power": 1}, {"loss.estimator.kind": "ema"}])
def test_arm_includes_the_loss_that_its_search_started_from(tmp_path, fixed):
    """``--set`` cannot set the loss, since it would change every arm."""
    searched = SETTINGS.with_overrides(fixed)
    (tuned,) = read_tuned_arms(
        [study(tmp_path / "u", "schedules", [(0.5, 0.06)], settings=searched.model_dump(mode="json"))]
    )
    current = SETTINGS.with_overrides({"loss.power": 2})
    (_, arm) = make_arms(LANGUAGES, current, ("ERM",), [tuned]).baselines
    selected = {"loss.fairness_weight.initial": 0.1}
    assert tuned.errors(current) == []
    assert current.with_overrides(arm.fixed) == searched.with_overrides(selected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0, 1]}, "the budgets differ: 2 seeds per trial here, 1 in"),
        ({"backbone": {"spec": "tiny", "hash": "f00d"}}, "its backbone differs from that of"),
        ({"objectives": [["dev_uar", "max"], ["dev_gap", "min"]]}, "not dev W-F1"),
    ],
)
def test_searches_that_cannot_be_compared_are_refused(tmp_path, changes, message):
    one = study(tmp_path / "u", "schedules", [(0.5, 0.06)])
    two = study(tmp_path / "c", "coefficients_per_language", [(0.5, 0.06)], **changes)
    with pytest.raises(SettingsError, match=message):
        read_tuned_arms([one, two])


def test_most_accurate_proposal_is_taken_if_none_is_near_erm(tmp_path):
    (arm,) = read_tuned_arms([study(tmp_path / "u", "schedules", [(0.46, 0.01), (0.48, 0.02)])])
    assert arm.baseline.label == "coefficients uniform (u, trial 2)"
    assert "highest dev W-F1" in arm.baseline.note
    assert "since there is none whose dev W-F1 is at most 1 point below ERM's" in arm.baseline.note


def test_search_without_erm_or_proposals_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="there is no proposal among its first 1 finished"):
        read_tuned_arms([study(tmp_path / "u", "schedules", [])])
    with pytest.raises(SettingsError, match="there is no ERM among its first 0"):
        read_tuned_arms([study(tmp_path / "e", "schedules", [], failed=(0,))])


def test_ties_go_to_the_higher_w_f1():
    trials = [
        {"number": n, "label": "ERM" if n == 0 else None, "values": [w_f1, 0.05]}
        for n, w_f1 in enumerate((0.5, 0.5, 0.6))
    ]
    assert choose(trials)["number"] == 2


def test_no_searches_give_no_arms(tmp_path):
    assert read_tuned_arms([]) == [] and not StudyFolder(str(tmp_path)).exists("study.json")
