"""study/ablation.py: arms by name, added later, and compared with ERM."""

from __future__ import annotations

import re
from functools import partial
from types import SimpleNamespace

import pytest
from rich.console import Console

from analysis.comparison.arms import adjusted
from analysis.comparison.paired import compare
from analysis.formatting import format_p
from analysis.loading.study import load_study
from search_spaces.ablation_arms import ARMS, FAMILIES, MODALITY_ARMS, arms_of
from study.cli.ablation import choose_arms, main, show
from study.common.errors import SettingsError
from study.config.settings import Settings, flatten
from study.storage.records import read_study
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis.studies import write_whole_study


def test_arms_are_chosen_by_label_and_include_erm():
    assert choose_arms("V-REx; ERM, balanced") == ("ERM", "ERM, balanced", "V-REx")
    assert choose_arms(None) == tuple(arm.label for arm in ARMS)
    with pytest.raises(
        SettingsError, match=r"--arms: there is no 'group dro'; choose from: leave-one-out; .*group DRO"
    ):
        choose_arms("group dro")


def test_family_is_replaced_by_its_arms():
    both = ("speech", "speech+text")
    assert set(choose_arms("leave-one-out; V-REx")) == {"ERM", "V-REx", *FAMILIES["leave-one-out"]}
    for family, labels in FAMILIES.items():
        assert set(labels) <= {arm.label for arm in arms_of(both)}, family
    assert set(choose_arms("modalities", both)) == {"ERM", "paper's setting", *(arm.label for arm in MODALITY_ARMS)}
    assert len(choose_arms(None, both)) == len(ARMS) + 4
    with pytest.raises(SettingsError, match="'ERM, speech only' needs --modalities speech,speech.text"):
        choose_arms("modalities")


def test_leave_one_out_and_add_one_in_differ_in_one_part():
    parts = {"sampling": "loss.sampling", "schedule": "loss.fairness_weight.schedule"}
    parts |= {"power": "loss.power", "reduction": "loss.reduction"}
    by_label = {arm.label: Settings().with_overrides(arm.fixed) for arm in ARMS}

    def parts_of(label):
        flat = flatten(by_label[label].model_dump(mode="json"))
        return {name: flat[key] or by_label[label].loss.batch_sampling for name, key in parts.items()}

    def changed(label, base):
        return {name: value for name, value in parts_of(label).items() if value != parts_of(base)[name]}

    left_out = [changed(label, "paper's setting") for label in FAMILIES["leave-one-out"] if "ERM" not in label]
    assert left_out == [
        {},
        {"sampling": "natural"},
        {"schedule": "constant"},
        {"power": 1},
        {"reduction": "mean"},
    ]
    added = [changed(label, "plain penalty") for label in FAMILIES["add-one-in"] if "plain" in label]
    assert added == [{}, {"sampling": "balanced"}, {"schedule": "adaptive"}, {"power": 2}, {"reduction": "max"}]


def test_arm_without_its_control_split_is_an_error(small_corpus, tmp_path, capsys):
    flags = ["--corpus", f"meld-st:{small_corpus}", "--storage", str(tmp_path), "--num-workers", "1"]
    flags += ["--set", "optimisation.batch_size=24", "--set", "control.fraction=0", "--arms", "held-out gaps"]
    assert main([*flags, "--dry-run"]) == 2
    assert "held-out gaps: loss.estimator.kind: needs a control split" in capsys.readouterr().err


@pytest.mark.parametrize("fixed", ["loss.power=1", 'loss={"method": "erm"}'])
def test_loss_setting_for_all_arms_is_an_error(small_corpus, tmp_path, capsys, fixed):
    flags = ["--corpus", f"meld-st:{small_corpus}", "--storage", str(tmp_path), "--set", fixed]
    assert main([*flags, "--dry-run"]) == 2
    assert f"--set {fixed.partition('=')[0]}: the arms define the loss" in capsys.readouterr().err


def test_comparison_table_uses_holm_adjusted_p_values(tmp_path, monkeypatch, capsys):
    quick = partial(compare, resamples=40)
    monkeypatch.setattr("study.cli.ablation.compare", quick)
    folder = write_whole_study(tmp_path / "s", per_cell=24, speakers=12, seeds=(0, 1), configurations=4)
    assert show(Console(width=300), SimpleNamespace(folder=folder), StudyState(folder), write=False) == 0
    arms = adjusted(quick(load_study(folder)))
    table = arms.table[(arms.table["scope"] == arms.overall) & arms.table["quantity"].isin(["w_f1", "avg"])]
    lines = [line for line in capsys.readouterr().out.splitlines() if arms.overall in line]
    for line, row in zip(lines, table.to_dict("records"), strict=True):
        *_, holm, verdict = re.split(" {2,}", line.strip())
        assert (holm, verdict) == (format_p(row["p_holm"]), row["verdict"])


@pytest.mark.slow
def test_arms_are_trained_compared_and_can_be_added(run_here):
    folder = StudyFolder.at(str(run_here.storage), "arms")

    def run(arms: str) -> str:
        done = run_here(main, "--study", "arms", "--num-workers", "1", "--seeds", "0,1", "--arms", arms)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    out = run("minimax")
    assert "minimax" in out and "AVG gap" in out and "95 % interval" in out
    before = StudyState(folder).trials
    assert {trial["label"] for trial in before.values()} == {"ERM", "minimax"}
    assert read_study(folder)["settings"]["control"]["fraction"] == 0.5
    run("V-REx; minimax")
    after = StudyState(folder).trials
    assert {n: trial for n, trial in after.items() if n in before} == before  # no arm is trained again
    assert [trial["label"] for n, trial in after.items() if n not in before] == ["V-REx"]
    study = load_study(folder)
    assert set(study.configurations["n_seeds"]) == {2}
    assert "V-REx" in run("V-REx")  # the study is complete, so it is shown
