"""Selection rules on hand-made points; no rule uses test figures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.loading.study import ERM, GAP_OF_MEANS_NOTE, Study, load_study
from analysis.pareto.front import eligible, front
from analysis.pareto.selection import (
    RULES,
    HypervolumeContribution,
    Knee,
    NoChoice,
    WithinAccuracy,
    WithinGap,
    choose,
)
from tests.analysis import studies


def dev(*rows: tuple[float, float], erm: int | None = 0) -> pd.DataFrame:
    """Return configurations c0, c1 … with these (W-F1, gap)."""
    table = pd.DataFrame(rows, columns=["dev_w_f1", "dev_gap"]).astype(float)
    table.insert(0, "config_id", [f"c{i}" for i in range(len(rows))])
    return table.assign(
        number=range(len(rows)),
        label=[ERM if i == erm else None for i in range(len(rows))],
        name=table["config_id"],
        schedule="constant",
        complete=True,
    )


POINTS = ((0.60, 0.10), (0.59, 0.06), (0.57, 0.04), (0.30, 0.01), (0.58, 0.12))


def test_best_w_f1_within_a_gap() -> None:
    assert WithinGap(0.06).pick(dev(*POINTS)) == "c1"  # the limit itself is within
    assert WithinGap(0.2).pick(dev(*POINTS)) == "c0"
    assert WithinGap(0.06).pick(dev((0.5, 0.05), (0.5, 0.04), (0.5, 0.04))) == "c1"  # ties: fairer, then earlier
    with pytest.raises(NoChoice, match="smallest dev gap is 1.0 points"):
        WithinGap(0.005).pick(dev(*POINTS))


def test_smallest_gap_within_a_w_f1_loss() -> None:
    assert WithinAccuracy(0.02).pick(dev(*POINTS)) == "c1"
    assert WithinAccuracy(0.04).pick(dev(*POINTS)) == "c2"
    assert WithinAccuracy(0.0).pick(dev(*POINTS)) == "c0"  # ERM itself
    with pytest.raises(NoChoice, match="ERM has not finished"):
        WithinAccuracy().pick(dev(*POINTS, erm=None))


def test_knee() -> None:
    # scaled along the front: c3 (0, 0), c2 (0.9, 1/3), c1 (0.967, 5/9), c0 (1, 1): distances 0, 0.567, 0.411, 0
    assert Knee().pick(dev(*POINTS)) == "c2"
    with pytest.raises(NoChoice, match="fewer than three"):
        Knee().pick(dev((0.6, 0.1), (0.5, 0.05), (0.5, 0.05)))
    with pytest.raises(NoChoice, match="above the line"):
        Knee().pick(dev((0.6, 0.3), (0.5, 0.2), (0.4, 0.1)))


def test_largest_contribution_to_the_hypervolume() -> None:
    # up to (0, 0.5): alone in 0.1 x 0.4 = 0.04, and in 0.5 x 0.05 = 0.025
    assert HypervolumeContribution().pick(dev((0.6, 0.1), (0.5, 0.05), (0.4, 0.3))) == "c0"
    assert (
        HypervolumeContribution().pick(dev((0.6, 0.1), (0.5, 0.0), (0.5, 0.0))) == "c1"
    )  # identical points count once
    with pytest.raises(NoChoice, match="above 50 points"):
        HypervolumeContribution().pick(dev((0.6, 0.6)))


FRACTION = st.floats(0, 0.45).map(lambda x: round(x, 3))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(FRACTION, FRACTION), min_size=1, max_size=12))
def test_every_choice_is_on_the_front(rows: list[tuple[float, float]]) -> None:
    table = dev(*rows)
    on_front = set(front(table).query("on_front")["config_id"])
    best = table.set_index("config_id")
    for rule in RULES:
        try:
            chosen = rule.pick(table)
        except NoChoice:
            continue
        assert chosen in on_front, rule.description
        if isinstance(rule, WithinGap):
            fits = table[table["dev_gap"] <= rule.limit]
            assert best.loc[chosen, "dev_w_f1"] == fits["dev_w_f1"].max()


def made_study(path: Path, test: list[tuple[float, float]]) -> Study:
    folder = studies.write_plan(path, seeds=(0, 1))
    for number, ((w_f1, gap), of_test) in enumerate(zip(POINTS, test, strict=True)):
        studies.write_trial(folder, number, f"c{number}", ERM if number == 0 else None)
        for seed in (0, 1):
            studies.write_run(folder, f"c{number}", seed, studies.figures(w_f1, gap), studies.figures(*of_test))
    studies.write_trial(folder, 5, "incomplete")  # best of all, but incomplete
    studies.write_run(folder, "incomplete", 0, studies.figures(0.99, 0.0), studies.figures(0.99, 0.0))
    studies.write_trial(folder, 6, "gapless")
    for seed in (0, 1):
        studies.write_run(folder, "gapless", seed, studies.figures(0.98, None), studies.figures(0.98, None))
    return load_study(folder)


def test_choices_do_not_depend_on_test_figures(tmp_path: Path) -> None:
    test = [(0.5 - 0.1 * i, 0.02 * i) for i in range(len(POINTS))]
    tables = [choose(made_study(tmp_path / str(i), [*test[i:], *test[:i]])) for i in range(len(POINTS))]

    for table in tables[1:]:
        assert table["config_id"].tolist() == tables[0]["config_id"].tolist()
        assert table["test_w_f1"].tolist() != tables[0]["test_w_f1"].tolist()
    # c3 alone adds 0.30 x 0.03 = 0.009, c2 0.27 x 0.02, c1 0.02 x 0.04, c0 0.01 x 0.4
    assert tables[0]["config_id"].tolist() == ["c2", "c1", "c2", "c3"]


def test_rules_receive_no_test_figures(tmp_path: Path) -> None:
    seen: list[pd.DataFrame] = []

    class Spy:
        description = "spy"

        def pick(self, dev: pd.DataFrame) -> str:
            seen.append(dev)
            return "c1"

    choose(made_study(tmp_path / "s", list(POINTS)), [Spy()])
    assert not [column for column in seen[0] if "test" in column]
    assert seen[0]["config_id"].tolist() == [
        "c0",
        "c1",
        "c2",
        "c3",
        "c4",
    ]  # without the incomplete one and the one without a gap


def test_optimism_is_dev_minus_test(tmp_path: Path) -> None:
    table = choose(made_study(tmp_path / "s", [(0.5, 0.2)] * 5), [WithinAccuracy(0.02), WithinGap(0.001)])

    row = table.iloc[0]
    assert (row["name"], row["dev_w_f1"], row["test_gap"]) == ("trial 1", 0.59, 0.2)
    assert row["optimism_w_f1"] == pytest.approx(0.09) and row["optimism_gap"] == pytest.approx(-0.14)
    assert row["reason"] is None
    none = table.iloc[1]
    assert none["config_id"] is None and pd.isna(none["dev_w_f1"]) and "smallest dev gap" in none["reason"]


def test_study_without_eligible_configurations_has_reasons(tmp_path: Path) -> None:
    table = choose(load_study(studies.write_plan(tmp_path / "s")))
    assert table["reason"].tolist() == ["no configuration has finished every seed with a gender gap"] * len(RULES)
    assert eligible(load_study(studies.write_plan(tmp_path / "s")).configurations).empty


def test_command_prints_a_row_per_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = made_study(tmp_path / "s", list(POINTS))
    assert main(["select", study.folder.uri, "--within-gap", "0.1", "--within-accuracy", "0.04"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("best W-F1 with a gap of at most 10.0 points") and "ERM" in lines[1]
    assert "at most 4.0 points below ERM" in lines[2] and "trial 2" in lines[2]
    assert any(studies.NOTE in line for line in lines)
    assert main(["select", str(tmp_path)]) == 2 and "no study at" in capsys.readouterr().err


def test_command_notes_another_class_average(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=15, configurations=2)
    assert main(["select", folder.uri, "--class-average", "gap_of_means"]) == 0
    assert f"· {GAP_OF_MEANS_NOTE}" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--within-gap", "--within-accuracy"])
@pytest.mark.parametrize("value", ["5", "-0.1", "nan", "much"])
def test_limits_must_be_fractions(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["select", "nowhere", f"{flag}={value}"])
    assert stop.value.code == 2
    assert f"argument {flag}: {value!r} is not a fraction from 0 to 1; 0.05 is 5 points" in capsys.readouterr().err
