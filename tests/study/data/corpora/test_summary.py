"""The summary that ``python -m study.data.corpora check`` prints."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import soundfile

from study.cli.corpus import main
from study.config.settings import CorpusSettings
from study.data.corpora.manifest import list_manifest
from study.data.corpora.meld_st import list_meld_st
from study.data.corpora.summary import as_text, summarise_corpus
from tests import REPO
from tests.study.data.corpora.builders import meld_row, write_csv, write_pair, write_wav


@pytest.fixture
def leaky(tmp_path):
    """Write two pairs in which a dialogue is in train of ENG_JPN and in test of ENG_DEU, and two clips are missing."""
    train = [meld_row(1, u, speaker=("Rachel", "Gunther", "Director")[u % 3]) for u in range(20)]
    write_pair(
        tmp_path, "ENG_DEU", {"train": train, "dev": [meld_row(2, u) for u in range(5)], "test": [meld_row(3, 0)]}
    )
    write_pair(
        tmp_path, "ENG_JPN", {"train": [*train, meld_row(3, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(4, 0)]}
    )
    (tmp_path / "ENG_DEU/DEU/train/train_4.wav").unlink()
    (tmp_path / "ENG_JPN/ENG/train/train_0.wav").unlink()  # the same clip of the other pair is used
    return tmp_path


def summarise(root, split="parallel"):
    return summarise_corpus(list_meld_st(root, split), CorpusSettings(spec=f"meld-st:{root}", split=split))


def test_summary_counts_utterances_clips_and_speakers(leaky):
    summary = summarise(leaky)
    table = summary.utterances
    assert table.loc[("en", "female", "joy")].tolist() == [7, 5, 2]
    assert table.loc[("de", "male", "joy")].tolist() == [6, 0, 0]  # one of seven is missing
    assert table.loc[("ja", "unknown", "joy")].tolist() == [6, 0, 0]
    assert [message.partition(": ")[2].removeprefix(f"{leaky}/") for message in summary.missing] == [
        "ENG_DEU/DEU/train/train_4.wav: no such file",
        "ENG_JPN/ENG/train/train_0.wav: no such file",
    ]
    assert summary.lengths.loc["en", ["clips", "over_30_s"]].tolist() == [27, 0]
    assert summary.lengths.loc["en", "shortest"] == pytest.approx(0.1)
    assert summary.lengths.loc["en", "level"] == pytest.approx(-20, abs=0.5)
    assert summary.genders.loc["Gunther"].tolist() == ["male", "table", 28]
    assert summary.genders.loc["Director"].tolist() == ["unknown", "none", 24]
    assert summary.corpus is not None and summary.refusal == ""


def test_official_split_leaks_and_the_default_does_not(leaky):
    corrected, official = summarise(leaky), summarise(leaky, "official")
    assert corrected.leaks == ()
    assert corrected.official_leaks == official.leaks == official.official_leaks
    assert official.leaks == (
        "the same en clip in several splits: train: ENG_JPN/ENG/train/train_20.wav; test: ENG_DEU/ENG/test/test_0.wav",
        "parallel utterances s2e7_d3_u0 (rachel) in several splits: train: en, ja; test: de, en",
    )


def test_same_sound_under_two_names_is_a_leak(leaky):
    write_wav(leaky / "ENG_JPN/ENG/test/test_0.wav", 1601, sound="Line 1 1.")
    assert summarise(leaky).leaks == (
        "the same sound in several splits: train: ENG_DEU/ENG/train/train_1.wav, ENG_JPN/ENG/train/train_1.wav; "
        "test: ENG_JPN/ENG/test/test_0.wav",
    )


def test_refused_corpus_is_still_summarised(leaky):
    for i in range(5):
        soundfile.write(leaky / f"ENG_DEU/ENG/dev/dev_{i}.wav", [0.0] * 1600, 16_000)
    summary = summarise(leaky)
    assert len(summary.unusable) == 5 and all(message.endswith("silent") for message in summary.unusable)
    assert summary.corpus is None and "clips are unusable; the limit is 1%" in summary.refusal
    assert summary.utterances.loc[("de", "female", "joy"), "dev"] == 5


def test_command_prints_the_summary_and_exits_with_1_for_a_leaky_corpus(leaky, capsys):
    assert main(["check", str(leaky)]) == 1  # test has one gender
    text = capsys.readouterr().out
    assert "no language has both genders in test" in text and "no language has both genders in train" not in text
    for line in (
        "Missing clips: 2",
        "  Gunther: male (table), 28 rows",
        "Unknown genders: 24 of 98 rows",
        "  Director: unknown (none), 24 rows",
        "Leaks of the authors' split: 2",
        "Leaks of the split in use (parallel): 0",
        "A study would use train 41, dev 11, test 5",
    ):
        assert line in text.splitlines()
    assert main(["check", str(leaky), "--split", "official"]) == 1
    assert (
        "  parallel utterances s2e7_d3_u0 (rachel) in several splits: train: en, ja; test: de, en"
        in capsys.readouterr().out
    )
    (leaky / "ENG_JPN/jpn_test.csv").unlink()
    assert main(["check", str(leaky)]) == 1
    assert "jpn_test.csv does not exist" in capsys.readouterr().err


def test_manifest_is_checked_from_the_command_line(tmp_path):
    rows = []
    for i in range(12):
        clip = {"path": f"{i}.wav", "emotion": "joy", "language": "de", "speaker": i, "gender": "fm"[i % 2]}
        write_wav(tmp_path / clip["path"])
        rows.append({**clip, "split": ("train", "dev", "test")[i % 3], "dialogue": ("a", "a", i, i)[i % 4]})
    write_csv(tmp_path / "m.csv", rows)
    done = subprocess.run(
        [sys.executable, "-m", "study.data.corpora", "check", str(tmp_path / "m.csv")],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("parallel utterances a in several splits: train: de; dev: de; test: de") == 1
    write_csv(tmp_path / "whole.csv", [{**row, "dialogue": row["speaker"]} for row in rows])
    assert main(["check", str(tmp_path / "whole.csv")]) == 0
    assert main(["check", f"manifest:{tmp_path / 'whole.csv'}"]) == 0  # as --corpus takes it


def summarise_manifest(root, rows):
    write_csv(root / "m.csv", rows)
    settings = CorpusSettings(spec=f"manifest:{root / 'm.csv'}")
    return summarise_corpus(list_manifest(root / "m.csv"), settings)


@pytest.fixture
def eight_speakers(tmp_path):
    """Return rows of eight speakers, women and men in turn, with seven clips each and a split column."""
    rows = []
    for i in range(56):
        clip = {"path": f"{i}.wav", "emotion": "joy", "language": "de", "speaker": f"s{i // 7}"}
        write_wav(tmp_path / clip["path"])
        rows.append({**clip, "gender": "fm"[i // 7 % 2], "split": ("train", "dev", "test")[i % 3]})
    return rows


@pytest.mark.parametrize("index", [0, 3])
def test_one_row_of_unknown_gender_counts_once(tmp_path, eight_speakers, index):
    """The row may or may not be the first of its speaker."""
    eight_speakers[index]["gender"] = ""
    summary = summarise_manifest(tmp_path, eight_speakers)
    assert summary.genders.loc["s0"].to_numpy().tolist() == [["female", "manifest", 6], ["unknown", "manifest", 1]]
    lines = as_text(summary, "parallel").splitlines()
    assert lines[lines.index("Unknown genders: 1 of 56 rows") + 1] == "  s0: unknown (manifest), 1 rows"
    assert "  manifest: 1 unknown speakers, 1 rows" in lines and "  manifest: 4 female speakers, 27 rows" in lines


def test_clips_over_30_s_are_listed(tmp_path, eight_speakers):
    write_wav(tmp_path / "4.wav", 90 * 16_000)
    summary = summarise_manifest(tmp_path, eight_speakers)
    message = f"{tmp_path / 'm.csv'}, row 6: {tmp_path / '4.wav'}: 90.00 s long, only the first 30 s are used"
    assert summary.shortened == summary.corpus.shortened == (message,)
    lines = as_text(summary, "parallel").splitlines()
    assert lines[lines.index("Clips longer than 30 s: 1") + 1] == f"  {message}"
    many = as_text(replace(summary, shortened=(message,) * 21), "parallel")
    assert many.count(message) == 20 and "\n  and 1 more\n" in many


def test_folder_with_a_dot_in_its_name_is_not_a_file(leaky, capsys):
    main(["check", str(leaky.rename(leaky.with_name("MELD-ST.v1")))])
    assert "Missing clips: 2" in capsys.readouterr().out


def test_corpus_without_any_clip_is_still_summarised(leaky):
    for path in leaky.rglob("*.wav"):
        path.unlink()
    summary = summarise(leaky)
    assert len(summary.missing) == 98 and "76 of 76 clips are missing" in summary.refusal
    assert "Missing clips: 98" in as_text(summary, "parallel")
