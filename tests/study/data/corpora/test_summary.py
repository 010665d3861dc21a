"""What ``python -m study.data.corpora check`` counts and names."""

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
from tests.study.data.corpora.builders import row, write_csv, write_pair, write_wav


@pytest.fixture
def leaky(tmp_path):
    """Two pairs of 30 utterances; ENG_JPN has a dialogue in train that ENG_DEU has in test."""
    train = [row(1, u, speaker=("Rachel", "Gunther", "Director")[u % 3]) for u in range(20)]
    write_pair(tmp_path, "ENG_DEU", {"train": train, "dev": [row(2, u) for u in range(5)], "test": [row(3, 0)]})
    write_pair(tmp_path, "ENG_JPN", {"train": [*train, row(3, 0)], "dev": [row(2, 0)], "test": [row(4, 0)]})
    (tmp_path / "ENG_DEU/DEU/train/train_4.wav").unlink()
    (tmp_path / "ENG_JPN/ENG/train/train_0.wav").unlink()  # its twin of the other pair is used
    return tmp_path


def summary(root, split="parallel"):
    return summarise_corpus(list_meld_st(root, split), CorpusSettings(spec=f"meld-st:{root}", split=split))


def test_the_census_counts_utterances_clips_and_speakers(leaky):
    found = summary(leaky)
    table = found.utterances
    assert table.loc[("en", "female", "joy")].tolist() == [7, 5, 2]
    assert table.loc[("de", "male", "joy")].tolist() == [6, 0, 0]  # one of seven is missing
    assert table.loc[("ja", "unknown", "joy")].tolist() == [6, 0, 0]
    assert [message.partition(": ")[2].removeprefix(f"{leaky}/") for message in found.missing] == [
        "ENG_DEU/DEU/train/train_4.wav: no such file",
        "ENG_JPN/ENG/train/train_0.wav: no such file",
    ]
    assert found.lengths.loc["en", ["clips", "over_30_s"]].tolist() == [27, 0]
    assert found.lengths.loc["en", "shortest"] == pytest.approx(0.1)
    assert found.lengths.loc["en", "level"] == pytest.approx(-20, abs=0.5)
    assert found.genders.loc["Gunther"].tolist() == ["male", "table", 28]
    assert found.genders.loc["Director"].tolist() == ["unknown", "nothing", 24]
    assert found.corpus is not None and found.refusal == ""


def test_leaks_of_the_authors_split_are_named_and_the_default_has_none(leaky):
    mended, official = summary(leaky), summary(leaky, "official")
    assert mended.leaks == ()
    assert mended.official == official.leaks == official.official
    assert official.leaks == (
        "the same en clip on several sides: train: ENG_JPN/ENG/train/train_20.wav; test: ENG_DEU/ENG/test/test_0.wav",
        "parallel utterances s2e7_d3_u0 (rachel) on different sides: train: en, ja; test: de, en",
    )


def test_the_same_sound_under_two_names_is_a_leak(leaky):
    write_wav(leaky / "ENG_JPN/ENG/test/test_0.wav", 1601, sound="Line 1 1.")
    assert summary(leaky).leaks == (
        "the same sound on several sides: train: ENG_DEU/ENG/train/train_1.wav, ENG_JPN/ENG/train/train_1.wav; "
        "test: ENG_JPN/ENG/test/test_0.wav",
    )


def test_a_corpus_that_would_be_refused_is_counted_all_the_same(leaky):
    for i in range(5):
        soundfile.write(leaky / f"ENG_DEU/ENG/dev/dev_{i}.wav", [0.0] * 1600, 16_000)
    found = summary(leaky)
    assert len(found.unusable) == 5 and all(message.endswith("silent") for message in found.unusable)
    assert found.corpus is None and "cannot be used, 1% or more" in found.refusal
    assert found.utterances.loc[("de", "female", "joy"), "dev"] == 5


def test_the_command_prints_all_of_it_and_says_by_its_status_whether_to_go_on(leaky, capsys):
    assert main(["check", str(leaky)]) == 1  # for its genders alone
    text = capsys.readouterr().out
    assert "no language has both genders in test" in text and "no language has both genders in train" not in text
    for line in (
        "Missing clips: 2",
        "  Gunther: male (table), 28 rows",
        "Unknown genders: 24 of 98 rows",
        "  Director: unknown (nothing), 24 rows",
        "Leaks of the authors' split: 2",
        "Leaks of the split in use (parallel): 0",
        "A study would use train 41, dev 11, test 5",
    ):
        assert line in text.splitlines()
    assert main(["check", str(leaky), "--split", "official"]) == 1
    assert (
        "  parallel utterances s2e7_d3_u0 (rachel) on different sides: train: en, ja; test: de, en"
        in capsys.readouterr().out
    )
    (leaky / "ENG_JPN/jpn_test.csv").unlink()
    assert main(["check", str(leaky)]) == 1
    assert "jpn_test.csv does not exist" in capsys.readouterr().err


def test_a_manifest_is_checked_as_a_module(tmp_path):
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
    assert done.stdout.count("parallel utterances a on different sides: train: de; dev: de; test: de") == 1
    write_csv(tmp_path / "whole.csv", [{**row, "dialogue": row["speaker"]} for row in rows])
    assert main(["check", str(tmp_path / "whole.csv")]) == 0
    assert main(["check", f"manifest:{tmp_path / 'whole.csv'}"]) == 0  # as --corpus says it


def manifest_census(root, rows):
    write_csv(root / "m.csv", rows)
    settings = CorpusSettings(spec=f"manifest:{root / 'm.csv'}")
    return summarise_corpus(list_manifest(root / "m.csv"), settings)


@pytest.fixture
def voices(tmp_path):
    """Rows of eight speakers with seven clips each, women and men in turn, split by the manifest."""
    rows = []
    for i in range(56):
        clip = {"path": f"{i}.wav", "emotion": "joy", "language": "de", "speaker": f"s{i // 7}"}
        write_wav(tmp_path / clip["path"])
        rows.append({**clip, "gender": "fm"[i // 7 % 2], "split": ("train", "dev", "test")[i % 3]})
    return rows


@pytest.mark.parametrize("where", [0, 3])
def test_one_row_of_unknown_gender_is_one(tmp_path, voices, where):
    """Whether or not it is the first of its speaker."""
    voices[where]["gender"] = ""
    found = manifest_census(tmp_path, voices)
    assert found.genders.loc["s0"].to_numpy().tolist() == [["female", "manifest", 6], ["unknown", "manifest", 1]]
    lines = as_text(found, "parallel").splitlines()
    assert lines[lines.index("Unknown genders: 1 of 56 rows") + 1] == "  s0: unknown (manifest), 1 rows"
    assert "  manifest: 1 unknown speakers, 1 rows" in lines and "  manifest: 4 female speakers, 27 rows" in lines


def test_clips_over_30_s_are_named(tmp_path, voices):
    write_wav(tmp_path / "4.wav", 90 * 16_000)
    found = manifest_census(tmp_path, voices)
    told = f"{tmp_path / 'm.csv'}, row 6: {tmp_path / '4.wav'}: 90.00 s long, only the first 30 s are heard"
    assert found.shortened == found.corpus.shortened == (told,)
    lines = as_text(found, "parallel").splitlines()
    assert lines[lines.index("Clips longer than 30 s: 1") + 1] == f"  {told}"
    many = as_text(replace(found, shortened=(told,) * 21), "parallel")
    assert many.count(told) == 20 and "\n  and 1 more\n" in many


def test_a_folder_may_have_a_dot_in_its_name(leaky, capsys):
    main(["check", str(leaky.rename(leaky.with_name("MELD-ST.v1")))])
    assert "Missing clips: 2" in capsys.readouterr().out


def test_a_corpus_without_any_clip_is_still_counted(leaky):
    for path in leaky.rglob("*.wav"):
        path.unlink()
    found = summary(leaky)
    assert len(found.missing) == 98 and "76 of 76 clips are missing" in found.refusal
    assert "Missing clips: 98" in as_text(found, "parallel")
