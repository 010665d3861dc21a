"""The page about a study, and what it says when there is little to say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.loading.study import load_study
from analysis.pareto.front import front
from analysis.pareto.uncertainty import Uncertainty, uncertainty_of
from analysis.report.build import write_report
from analysis.report.headline import answer, warnings_of
from analysis.stats.permutation import NoiseFloor
from study.common.errors import RecordError
from tests.analysis import studies


def test_the_report_stands_alone_and_says_what_it_must(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30)
    studies.write_trial(folder, 8, "failed0", reason="loss is not <finite>")

    paths = write_report(folder, permutations=40, resamples=40)

    page = Path(paths.html).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "<script src" not in page
    for expected in (
        "configurations are on the front",
        studies.NOTE,
        "One seed each",
        "noise floor",
        "Trial 8 failed and is left out: loss is not &lt;finite&gt;",
        "paper&#39;s setting",
        "torch 2.13.0",
        "python study/sweep.py",
        "learning_rate",
        "only 5 speakers",
        "“Reduced (sign of the remaining gap uncertain)”: ",
    ):
        assert expected in page, expected
    order = [
        "on the front",
        "Before you read",
        "Pareto front<",
        "The front<",
        "Against ERM",
        "All conf",
        "By lang",
        "Training",
        "How it",
    ]
    places = [page.index(heading) for heading in order]
    assert places == sorted(places)
    assert sorted(p.name for p in (tmp_path / "s" / "report").iterdir()) == [
        "arms.csv",
        "arms.tex",
        "benchmark.csv",
        "benchmark.tex",
        "comparison.csv",
        "front.csv",
        "pareto.png",
        "pareto.svg",
        "report.html",
    ]
    again = write_report(folder, permutations=40, resamples=40)
    assert Path(again.html).read_text() == page


def made(path: Path, *rows: tuple[str | None, float, float | None], seeds: tuple[int, ...] = (0,)):
    folder = studies.write_plan(path, seeds, trials=len(rows))
    for number, (label, w_f1, gap) in enumerate(rows):
        studies.write_trial(folder, number, f"c{number}", label)
        studies.write_run(folder, f"c{number}", 0, studies.figures(w_f1, gap), studies.figures(w_f1, gap))
    return load_study(folder)


def test_the_answer_in_one_sentence(tmp_path: Path) -> None:
    two = made(tmp_path / "two", ("ERM", 0.6, 0.1), (None, 0.5, 0.05), (None, 0.4, 0.2))
    assert answer(front(two.configurations)) == (
        "2 of 3 configurations are on the front: from W-F1 60.0 at a gender gap of 10.0 points (ERM) to a gap of 5.0 "
        "at W-F1 50.0 (trial 1), on dev."
    )
    one = made(tmp_path / "one", ("ERM", 0.6, 0.1), (None, 0.5, 0.2))
    assert answer(front(one.configurations)).startswith("One of 2 configurations beats all others on both: ERM")
    none = made(tmp_path / "none", ("ERM", 0.6, None))
    assert "no front" in answer(front(none.configurations))


def test_warnings_name_gaps_at_the_floor_and_what_is_incomplete(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=60, speakers=12, configurations=3)
    plan = folder.read_json("study.json")
    plan["corpus"]["skipped"] = 4
    folder.write_json("study.json", plan | {"seeds": [0, 1]})
    study = load_study(folder)

    said = "\n".join(warnings_of(study, front(study.configurations), uncertainty_of(study, 40, 40)))

    assert "(en, speech+text) has 60 utterances of women and 60 of men on dev" in said
    assert "noise floor, from ERM" in said
    assert "4 clips were missing or unreadable" in said
    assert "Incomplete, so kept out of the front: ERM; paper's setting; trial 2" in said
    assert "8 trials were planned, 3 are here" in said
    assert "One seed each" not in said and "only" not in said


def test_few_clusters_allow_no_claim_with_a_floor_or_without(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=20, speakers=2, configurations=1)
    utterances = folder.read_parquet("utterances.parquet")
    for known, has_floor in ((utterances, True), (utterances.assign(speaker="one"), False)):  # one cannot be dealt
        folder.write_parquet("utterances.parquet", known)
        study = load_study(folder)
        uncertainty = uncertainty_of(study, 20, 20)
        said = "\n".join(warnings_of(study, front(study.configurations), uncertainty))
        assert (uncertainty.floor is not None) == has_floor
        assert f"only {uncertainty.fewest_clusters} speakers on dev: no claim about a population of speakers" in said
    assert uncertainty.fewest_clusters == 1


def test_clusters_are_counted_where_both_genders_are(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30, speakers=12, configurations=1)
    utterances = folder.read_parquet("utterances.parquet")
    english_men = (utterances["language"] == "en") & (utterances["gender"] == "male")
    utterances.loc[english_men & ~utterances["speaker"].str.endswith(("m0", "m1")), "gender"] = "unknown"
    utterances.loc[(utterances["language"] == "de") & (utterances["gender"] == "male"), "gender"] = "unknown"
    folder.write_parquet("utterances.parquet", utterances)
    assert uncertainty_of(load_study(folder), 20, 20).fewest_clusters == 2  # not 0, of German men

    folder.write_parquet("utterances.parquet", utterances.assign(gender="unknown"))
    assert uncertainty_of(load_study(folder), 20, 20).fewest_clusters == 0


def test_a_collapsed_model_and_one_of_other_cells_are_named(tmp_path: Path) -> None:
    study = made(tmp_path / "s", ("ERM", 0.6, 0.1), ("minimax", 0.2, 0.02), ("V-REx", 0.31, 0.05))
    uncertainty = Uncertainty("ERM", "speaker", NoiseFloor(0.04, 0.02, 0.07, 20, 0, 0.5), {}, {}, 20)
    said = "\n".join(warnings_of(study, front(study.configurations), uncertainty))
    assert "On the front with less than half of its best W-F1: minimax. A model" in said
    assert "modalities only" not in said

    folder = study.folder
    folder.write_json("study.json", folder.read_json("study.json") | {"modalities": ["speech", "speech+text"]})
    speech = studies.figures(0.6, 0.1)
    speech["cells"]["en/speech"] = speech["cells"]["en/speech+text"]
    studies.write_run(folder, "c0", 0, speech, speech)
    study = load_study(folder)
    said = "\n".join(warnings_of(study, front(study.configurations), uncertainty))
    assert "modalities only, so kept out of the front: minimax; V-REx." in said and "Incomplete" not in said


def test_a_corpus_of_one_gender_still_gets_a_report(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=10, configurations=1)
    utterances = folder.read_parquet("utterances.parquet")
    folder.write_parquet("utterances.parquet", utterances.assign(gender="unknown"))
    nothing = studies.figures(0.5, None)
    studies.write_run(folder, "00abcdefabcd", 0, nothing, nothing)

    page = Path(write_report(folder, 20, 20).html).read_text()

    assert "No cell has both genders" in page and "there is no front" in page


def test_another_class_average_is_used_and_said(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30, configurations=3)
    files = ("report.html", "benchmark.tex", "arms.tex")
    pages = []
    for average in ("mean_of_gaps", "gap_of_means"):
        assert (
            main(["report", folder.uri, "--permutations", "20", "--resamples", "20", "--class-average", average]) == 0
        )
        study = load_study(folder, average)
        expected = study.configurations.set_index("config_id")["test_gap"]
        front = pd.read_csv(folder.path("report", "front.csv")).set_index("config_id")
        assert front["test_gap_points"].to_dict() == pytest.approx((100 * expected[front.index]).to_dict(), abs=0.006)
        texts = [Path(folder.path("report", name)).read_text() for name in files]
        assert [" ".join(text.split()).count("of opposite sign cancel (--class-average") > 0 for text in texts] == [
            average == "gap_of_means"
        ] * 3
        pages.append(texts[0])
    assert pages[0] != pages[1]


def test_no_study_and_no_finished_run_are_clear_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "no study at" in capsys.readouterr().err

    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 0, "aa", reason="out of memory")
    with pytest.raises(RecordError, match="no finished run yet(.|\n)*trial 0 failed: out of memory"):
        write_report(folder)


def test_the_command_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=20)
    code = (
        "import sys; from analysis.__main__ import main; status = main(['report', *sys.argv[1:]]);"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, folder.uri], capture_output=True, text=True, timeout=600
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert f"{folder.uri}/report/report.html" in done.stdout
