"""The page about a study, its headline and its caveats."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.comparison.verdict import SIGN_UNCERTAIN_NOTE
from analysis.loading.study import Study, load_study
from analysis.pareto.front import front
from analysis.pareto.uncertainty import Uncertainty, uncertainty_of
from analysis.report.build import write_report
from analysis.report.headline import caveats, front_headline
from analysis.stats.permutation import NoiseFloor
from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState
from tests.analysis import studies
from tests.analysis.contexts import report_context


def test_report_is_self_contained_and_complete(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30)
    studies.write_trial(folder, 8, "failed0", reason="loss is not <finite>")

    paths = write_report(load_study(folder), permutations=40, resamples=40)

    page = Path(paths.html).read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "<script src" not in page
    for expected in (
        "configurations are on the Pareto front",
        studies.NOTE,
        "trained with one seed",
        "noise floor",
        "Trial 8 failed and is not in the report: loss is not &lt;finite&gt;",
        "paper&#39;s setting",
        "torch 2.13.0",
        "python study/sweep.py",
        "learning_rate",
        "only 5 speakers",
        SIGN_UNCERTAIN_NOTE,
    ):
        assert expected in page, expected
    order = [
        "on the Pareto front.",
        "Caveats",
        "Pareto front<",
        "Configurations on the front<",
        "Comparison with ERM on test<",
        "All configurations<",
        "Results by language and modality<",
        "Training curves<",
        "How the study was run<",
    ]
    positions = [page.index(heading) for heading in order]
    assert positions == sorted(positions)
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
    again = write_report(load_study(folder), permutations=40, resamples=40)
    assert Path(again.html).read_text() == page


@pytest.mark.parametrize("class_average", ["mean_of_gaps", "gap_of_means"])
def test_report_reads_each_file_at_most_once(
    class_average: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = studies.write_whole_study(tmp_path / "s", 12, 4, seeds=(0, 1), modalities=("speech", "speech+text"))
    studies.write_whole_study(tmp_path / "s" / "confirm", 12, 4, (2,), 2, modalities=("speech", "speech+text"))
    reads: Counter[str] = Counter()
    read_bytes = StudyFolder.read_bytes

    def count(self: StudyFolder, name: str) -> bytes:
        reads[self.path(name)] += 1
        return read_bytes(self, name)

    monkeypatch.setattr(StudyFolder, "read_bytes", count)
    options = ["--permutations", "20", "--resamples", "20", "--class-average", class_average]
    assert main(["report", folder.uri, *options]) == 0

    assert max(reads.values()) == 1
    runs = [f"runs/{number:02d}abcdefabcd/{seed}" for number in range(8) for seed in (0, 1)]
    needed = [f"{run}/{name}" for run in runs for name in ("finished.json", "predictions.parquet", "epochs.jsonl")]
    assert {folder.path(name) for name in (*needed, "study.json", "utterances.parquet")} <= set(reads)


def test_report_of_records_already_read_reads_none_of_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StudyState(studies.write_whole_study(tmp_path / "s", 12, 4, configurations=2))
    load_study(state)
    read_bytes = StudyFolder.read_bytes

    def refuse_records(self: StudyFolder, name: str) -> bytes:
        assert not name.endswith(".json"), name
        return read_bytes(self, name)

    monkeypatch.setattr(StudyFolder, "read_bytes", refuse_records)
    write_report(load_study(state), 20, 20)


def made(path: Path, *rows: tuple[str | None, float, float | None], seeds: tuple[int, ...] = (0,)) -> Study:
    """A study of configurations with these labels, W-F1 and gaps, on dev and test alike."""
    folder = studies.write_plan(path, seeds, trials=len(rows))
    for number, (label, w_f1, gap) in enumerate(rows):
        studies.write_trial(folder, number, f"c{number}", label)
        studies.write_run(folder, f"c{number}", 0, studies.figures(w_f1, gap), studies.figures(w_f1, gap))
    return load_study(folder)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [("ERM", 0.6, 0.1), (None, 0.5, 0.05), (None, 0.4, 0.2)],
            "2 of 3 configurations are on the Pareto front. On dev they range from W-F1 60.0 and a gender gap of 10.0 "
            "points (ERM) to W-F1 50.0 and a gender gap of 5.0 points (trial 1).",
        ),
        (
            [("ERM", 0.6, 0.05), (None, 0.5, 0.2)],
            "ERM is the best of 2 configurations on both objectives: W-F1 60.0 and a gender gap of 5.0 points, on dev.",
        ),
        (
            [("ERM", 0.6, 0.05), (None, 0.6, 0.05), (None, 0.5, 0.2)],
            "2 of 3 configurations are on the Pareto front, all with W-F1 60.0 and a gender gap of 5.0 points on dev: "
            "ERM; trial 1.",
        ),
        (
            [("ERM", 0.6001, 0.0502), (None, 0.6, 0.0501), (None, 0.5, 0.2)],
            "2 of 3 configurations are on the Pareto front, all with W-F1 60.0 and a gender gap of 5.0 points on dev: "
            "ERM; trial 1.",
        ),
        (
            [("ERM", 0.6, 0.05)],
            "The only configuration, ERM, has W-F1 60.0 and a gender gap of 5.0 points on dev.",
        ),
        (
            [("ERM", 0.6, None)],
            "There is no Pareto front: no configuration has finished every seed with a defined gender gap.",
        ),
    ],
)
def test_headline(rows: list[tuple[str | None, float, float | None]], expected: str, tmp_path: Path) -> None:
    assert front_headline(front(made(tmp_path / "s", *rows).configurations)) == expected


def test_caveats_name_gaps_within_the_floor_and_what_is_incomplete(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=60, speakers=12, configurations=3)
    plan = folder.read_json("study.json")
    plan["corpus"]["skipped"] = 4
    folder.write_json("study.json", plan | {"seeds": [0, 1]})
    study = load_study(folder)

    text = "\n".join(caveats(report_context(study, uncertainty=uncertainty_of(study, 40, 40))))

    assert "(en, speech+text) has 60 utterances by women and 60 by men" in text
    assert "This noise floor uses the predictions of ERM" in text
    assert "4 clips were missing or unreadable" in text
    assert "because some seeds have not finished: ERM; paper's setting; trial 2" in text
    assert "3 of 8 planned trials have ended" in text
    assert "one seed" not in text and "only" not in text


def test_few_clusters_are_a_caveat_with_and_without_a_floor(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=20, speakers=2, configurations=1)
    utterances = folder.read_parquet("utterances.parquet")
    # a single speaker cannot swap genders with another
    for known, has_floor in (
        (utterances, True),
        (utterances.assign(speaker="one"), False),
    ):
        folder.write_parquet("utterances.parquet", known)
        study = load_study(folder)
        uncertainty = uncertainty_of(study, 20, 20)
        text = "\n".join(caveats(report_context(study, uncertainty=uncertainty)))
        assert (uncertainty.floor is not None) == has_floor
        assert f"only {uncertainty.fewest_clusters} speakers on dev. The report makes no claim about other" in text
    assert uncertainty.fewest_clusters == 1


def test_clusters_are_counted_in_cells_with_both_genders(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=30, speakers=12, configurations=1)
    utterances = folder.read_parquet("utterances.parquet")
    english_men = (utterances["language"] == "en") & (utterances["gender"] == "male")
    utterances.loc[english_men & ~utterances["speaker"].str.endswith(("m0", "m1")), "gender"] = "unknown"
    utterances.loc[(utterances["language"] == "de") & (utterances["gender"] == "male"), "gender"] = "unknown"
    folder.write_parquet("utterances.parquet", utterances)
    assert uncertainty_of(load_study(folder), 20, 20).fewest_clusters == 2  # not 0, of German men

    folder.write_parquet("utterances.parquet", utterances.assign(gender="unknown"))
    assert uncertainty_of(load_study(folder), 20, 20).fewest_clusters == 0


FLOOR = Uncertainty("ERM", "speaker", NoiseFloor(0.04, 0.02, 0.07, 20, 0, 0.5), {}, {}, 20)


def test_configurations_at_chance_level_are_named_even_if_it_is_erm(tmp_path: Path) -> None:
    study = made(tmp_path / "s", ("ERM", 0.3, 0.02), ("minimax", 0.319, 0.01), ("V-REx", 0.33, 0.05))
    text = "\n".join(caveats(report_context(study, uncertainty=FLOOR, chance={"en": 0.3, "de": 0.9})))
    assert "at most 2 points above chance level. In en (chance level 30.0): ERM; minimax. Chance" in text
    text = "\n".join(caveats(report_context(study, uncertainty=FLOOR, chance={"en": 0.27})))
    assert "chance level" not in text


def test_model_that_always_answers_neutral_is_at_chance_level(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=40, speakers=12, configurations=2)
    known = folder.read_parquet("utterances.parquet")
    emotions = known["emotion"].where(known.index % 3 == 0, "neutral")
    known = known.assign(emotion=emotions)
    folder.write_parquet("utterances.parquet", known)
    constant = studies.predict(known.assign(emotion="neutral"), accuracy=1.0)
    for config_id, predictions in (("00abcdefabcd", constant), ("01abcdefabcd", studies.predict(known, 0.8))):
        studies.write_predictions(folder, known, config_id, 0, predictions)
    page = Path(write_report(load_study(folder), 20, 20).html).read_text()
    languages = ", ".join(rf"{language} \(chance level \d\d\.\d\)" for language in ("de", "en", "ja"))
    assert re.search(rf"above chance level\. In {languages}: ERM\. Chance", page)


def test_configurations_of_one_modality_are_named(tmp_path: Path) -> None:
    study = made(tmp_path / "s", ("ERM", 0.6, 0.1), ("minimax", 0.2, 0.02), ("V-REx", 0.31, 0.05))
    assert "modalities" not in "\n".join(caveats(report_context(study, uncertainty=FLOOR)))

    folder = study.folder
    folder.write_json("study.json", folder.read_json("study.json") | {"modalities": ["speech", "speech+text"]})
    both = studies.figures(0.6, 0.1)
    both["cells"]["en/speech"] = both["cells"]["en/speech+text"]
    studies.write_run(folder, "c0", 0, both, both)
    text = "\n".join(caveats(report_context(load_study(folder), uncertainty=FLOOR)))
    assert "only some of the study's modalities: minimax; V-REx." in text and "seeds have not finished" not in text


def test_corpus_of_one_gender_has_a_report(tmp_path: Path) -> None:
    folder = studies.write_whole_study(tmp_path / "s", per_cell=10, configurations=1)
    utterances = folder.read_parquet("utterances.parquet")
    folder.write_parquet("utterances.parquet", utterances.assign(gender="unknown"))
    nothing = studies.figures(0.5, None)
    studies.write_run(folder, "00abcdefabcd", 0, nothing, nothing)

    page = Path(write_report(load_study(folder), 20, 20).html).read_text()

    assert "No cell has utterances by both genders" in page and "There is no Pareto front" in page


def test_another_class_average_is_used_and_noted(tmp_path: Path) -> None:
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


def test_missing_study_and_missing_runs_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "no study at" in capsys.readouterr().err

    folder = studies.write_plan(tmp_path / "s")
    studies.write_trial(folder, 0, "aa", reason="out of memory")
    with pytest.raises(RecordError, match="no finished run yet(.|\n)*trial 0 failed: out of memory"):
        write_report(load_study(folder))


def test_report_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
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
