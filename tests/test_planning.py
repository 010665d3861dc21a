"""What the flags make of a corpus, and what of it is refused before anything is written."""

from __future__ import annotations

import argparse

import pytest

from study.planning import add_search_flags, add_study_flags, complete, read_flags
from study.settings import SettingsError
from tests.corpora.builders import write_csv, write_wav


@pytest.fixture
def manifest(tmp_path):
    """A function that writes a manifest of ten German speakers without a surprised clip and returns its flag."""

    def write(**columns):
        rows = []
        for i in range(20):
            row = {"path": f"{i}.wav", "emotion": "joy" if i % 2 else "sad", "language": "de", "speaker": i // 2}
            rows.append({**row, "gender": "female" if i < 10 else "male", **columns})
            write_wav(tmp_path / f"{i}.wav")
        write_csv(tmp_path / "m.csv", rows)
        return f"manifest:{tmp_path / 'm.csv'}"

    return write


def plan(tmp_path, *flags):
    parser = argparse.ArgumentParser()
    add_study_flags(parser)
    add_search_flags(parser)
    given = ["--storage", str(tmp_path / "results"), "--fix", "optimisation.batch_size=8", "--ranks", "1", *flags]
    return complete(read_flags(parser.parse_args(given), cores=2))


def test_a_corpus_without_text_can_be_heard_but_not_read(tmp_path, manifest):
    spec = manifest()
    found = plan(tmp_path, "--corpus", spec, "--modalities", "speech")
    assert found.counts() == {"train": 12, "dev": 4, "test": 4}
    assert found.languages == ("de",)
    with pytest.raises(SettingsError, match=r"--modalities speech\+text: the corpus has no transcripts of language de"):
        plan(tmp_path, "--corpus", spec, "--modalities", "speech,speech+text")
    assert plan(tmp_path, "--corpus", manifest(transcript="Ja."), "--modalities", "speech+text")


def test_the_split_is_that_of_the_flag(tmp_path, manifest):
    spec = manifest(transcript="Ja.")
    with pytest.raises(SettingsError, match="no split column to follow"):
        plan(tmp_path, "--corpus", spec, "--split", "official")
    with pytest.raises(SettingsError, match=r"corpus\.split: .*'parallel', 'official' or 'speaker'"):
        plan(tmp_path, "--corpus", spec, "--split", "random")
    assert plan(tmp_path, "--corpus", spec, "--split", "speaker").draft.settings.corpus.split == "speaker"


def test_a_study_at_another_loudness_is_another_one(tmp_path, manifest):
    spec = manifest(transcript="Ja.")
    recorded, level = (
        plan(tmp_path, "--corpus", spec, "--fix", f"corpus.loudness={how}") for how in ("as_recorded", "rms")
    )
    assert recorded.corpus.content_hash != level.corpus.content_hash


def test_every_faulty_row_is_shown_and_nothing_is_written(tmp_path, manifest):
    spec = manifest(transcript="Ja.", gender="x")
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, "--corpus", spec)
    assert "20 faults:" in str(caught.value) and "m.csv, row 21: gender 'x'" in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_rule_of_early_stopping_needs_a_rung_before_the_last_epoch(tmp_path, manifest):
    flags = ("--corpus", manifest(), "--modalities", "speech", "--early-stopping")
    assert plan(tmp_path, *flags, "mo-asha:grace=2").draft.early_stopping.rungs(3) == (2,)
    assert plan(tmp_path, *flags, "none").draft.early_stopping is None
    with pytest.raises(SettingsError, match="--early-stopping: nothing to stop, grace 3 is not before the last of 3"):
        plan(tmp_path, *flags, "mo-asha:grace=3")
    with pytest.raises(SettingsError, match="--early-stopping: eta: "):
        plan(tmp_path, *flags, "mo-asha:eta=1")
