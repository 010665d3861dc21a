"""Answers to the research questions on the page and on the command line, and why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.loading.study import GAP_OF_MEANS_NOTE, load_study
from analysis.report.html import Table
from analysis.report.questions_section import (
    COEFFICIENTS,
    TRANSCRIPT,
    VERDICT_NOTE,
    confirmation_sections,
    question_sections,
)
from tests.analysis import studies
from tests.analysis.contexts import report_context

COEFFICIENT = {"name": "loss.coefficients.languages.de", "reason": "-", "default": 1.0, "low": 0.25, "high": 4.0}


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A search of two trials and ERM on speech and on speech with text, with a confirmation."""
    folder = studies.write_whole_study(
        tmp_path_factory.mktemp("made") / "s", per_cell=15, configurations=3, modalities=("speech", "speech+text")
    )
    folder.write_json("study.json", {**folder.read_json("study.json"), "hyperparameters": [COEFFICIENT]})
    again = studies.write_whole_study(
        Path(folder.uri) / "confirm", per_cell=15, configurations=2, seeds=(7, 8), modalities=("speech", "speech+text")
    )
    assert again.exists("study.json")
    return folder.uri


def test_each_question_with_data_has_a_section(both_ways: str, tmp_path: Path) -> None:
    study = load_study(both_ways)
    context = report_context(study, confirmation=load_study(f"{both_ways}/confirm"), resamples=30)
    coefficients, transcript = question_sections(context)
    assert coefficients.title == COEFFICIENTS and not coefficients.blocks
    assert "No answer for languages: " in coefficients.text
    (table,) = transcript.blocks
    assert transcript.title == TRANSCRIPT and isinstance(table, Table)
    rows = table.frame[(table.frame["quantity"] == "W-F1") & (table.frame["of"] == "de")]
    cells = study.cells[(study.cells["split"] == "test") & (study.cells["language"] == "de")]
    for modality in ("speech", "speech+text"):
        of_erm = cells[
            (cells["modality"] == modality) & (cells["config_id"] == study.configuration("ERM")["config_id"])
        ]
        shown = rows.loc[rows["configuration"] == "ERM", modality].iloc[0]
        assert shown == pytest.approx(100 * of_erm["w_f1"].mean())
    (fresh,) = confirmation_sections(context)
    (confirmed,) = fresh.blocks
    assert isinstance(confirmed, Table) and set(confirmed.frame["seeds"]) == {"1 → 2"}
    plain = report_context(load_study(studies.write_whole_study(tmp_path / "s", 15, configurations=2)))
    assert question_sections(plain) == [] == confirmation_sections(plain)


def test_tuned_arms_are_compared_with_the_plain_arm(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30, speakers=10, seeds=(0, 1), configurations=5)
    labels = {2: "coefficients uniform (plain, trial 4)", 3: "coefficients per language (lang, trial 7)"}
    for number, label in {**labels, 4: "coefficients per cell (cells, trial 3)"}.items():
        name = f"trials/{number:05d}.json"
        folder.write_json(name, {**folder.read_json(name), "label": label})
    notes = [{"label": label, "note": "the smallest dev gap of 20 trials"} for label in labels.values()]
    folder.write_json("study.json", {**folder.read_json("study.json"), "hyperparameters": [], "references": notes})
    study = load_study(folder)

    (section,) = question_sections(report_context(study, resamples=30))

    assert section.title == COEFFICIENTS
    assert "coefficients per language (lang, trial 7): the smallest dev gap of 20 trials." in section.text
    arms = section.blocks[0].frame
    assert arms["", "configuration"].tolist() == [labels[2], labels[3], "coefficients per cell (cells, trial 3)"]
    below = section.blocks[1].frame  # the same arms cell by cell, and over all cells with the same p
    over_all = below[(below["quantity"] == "W-F1") & (below["of"] == "multilingual/speech+text")]
    assert over_all["Holm"].tolist() == arms["W-F1", "Holm"].tolist()[1:]
    means = study.configurations.set_index("name")["test_w_f1"]
    differences = arms["W-F1", "difference"].tolist()
    assert differences[1] == pytest.approx(100 * (means[labels[3]] - means[labels[2]]))
    assert main(["questions", folder.uri, "--resamples", "30"]) == 0
    assert f"The choices of finished searches, compared with {labels[2]}." in capsys.readouterr().out

    folder.remove("trials/00002.json")  # without the plain arm there is nothing to earn over
    assert question_sections(report_context(load_study(folder))) == []


def test_command_prints_answers_or_reasons(both_ways: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["questions", both_ways, "--resamples", "30"]) == 0
    out = capsys.readouterr().out
    assert f"{COEFFICIENTS} No answer for languages: " in out and "speech+text" in out
    assert VERDICT_NOTE in out and f"· {studies.NOTE}" in out and GAP_OF_MEANS_NOTE not in out
    assert main(["questions", both_ways, "--resamples", "30", "--class-average", "gap_of_means"]) == 0
    of_means = capsys.readouterr().out
    assert f"· {GAP_OF_MEANS_NOTE}" in of_means and of_means.splitlines()[:20] != out.splitlines()[:20]
    other = studies.write_whole_study(tmp_path / "s", per_cell=15, configurations=2).uri
    assert main(["questions", other, "--resamples", "30"]) == 0
    assert f"{TRANSCRIPT} No answer: the study has no predictions from speech." in capsys.readouterr().out
    assert main(["questions", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
