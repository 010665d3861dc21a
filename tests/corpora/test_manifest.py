from __future__ import annotations

import pytest

from study.corpora import CorpusError, load_corpus
from study.corpora.manifest import read_manifest
from tests.corpora.builders import write_csv, write_wav


def manifest(root, women=5, men=5, clips=2, **columns):
    """A manifest of German speakers w0.., m0..; ``columns`` are set in every row."""
    rows = [
        {
            "path": f"audio/{speaker}_{i}.wav", "transcript": "Guten Tag.", "emotion": "Joy", "language": "de",
            "speaker": speaker, "gender": gender, **columns,
        }
        for gender, count in (("female", women), ("male", men))
        for speaker in (f"{'w' if gender == 'female' else 'm'}{n}" for n in range(count))
        for i in range(clips)
    ]  # fmt: skip
    for row in rows:
        write_wav(root / row["path"])
    write_csv(root / "manifest.csv", rows)
    return rows


def rewrite(root, rows):
    write_csv(root / "manifest.csv", rows)
    return read_manifest(root / "manifest.csv")


def test_five_speakers_a_gender_are_divided_three_one_one(tmp_path):
    manifest(tmp_path)
    corpus = load_corpus(f"manifest:{tmp_path / 'manifest.csv'}", (), tmp_path)
    table = corpus.utterances
    assert table.groupby(["gender", "split"])["speaker"].nunique().to_dict() == {
        ("female", "dev"): 1, ("female", "test"): 1, ("female", "train"): 3,
        ("male", "dev"): 1, ("male", "test"): 1, ("male", "train"): 3,
    }  # fmt: skip
    assert (table.groupby("speaker")["split"].nunique() == 1).all()
    assert corpus.name == "manifest"
    assert corpus.notes == ("The manifest has no split: its speakers were divided into train, dev and test.",)
    first = table.iloc[0]
    assert (first["utterance_id"], first["dialogue"], first["emotion"]) == ("audio/m0_0", "audio/m0_0", "joy")
    assert (first["samples"], first["sample_rate"]) == (160, 16_000)


def test_the_division_repeats_with_its_seed(tmp_path):
    manifest(tmp_path, 20, 20, 1)
    splits = [read_manifest(tmp_path / "manifest.csv", seed).utterances["split"].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert [splits[0].count(split) for split in ("train", "dev", "test")] == [24, 8, 8]


def test_a_speaker_of_two_languages_stays_on_one_side(tmp_path):
    rows = manifest(tmp_path, clips=3)
    for row in rows[2::3]:
        row["language"] = "en"
    table = rewrite(tmp_path, rows).utterances
    assert (table.groupby("speaker")["split"].nunique() == 1).all()


def test_too_few_speakers_ask_for_a_split_column(tmp_path):
    rows = manifest(tmp_path, men=2)
    with pytest.raises(CorpusError, match=r"2 male speaker\(s\) of de.*Add a split column"):
        read_manifest(tmp_path / "manifest.csv")
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "test")[i % 3]
        row["dialogue"] = "d1"
    corpus = rewrite(tmp_path, rows)
    assert corpus.utterances["split"].value_counts().to_dict() == {"train": 5, "dev": 5, "test": 4}
    assert set(corpus.utterances["dialogue"]) == {"d1"}
    assert corpus.notes == ("7 speakers stand on several sides of the manifest's own split.",)


def test_few_speakers_of_unknown_gender_are_trained_on(tmp_path):
    rows = manifest(tmp_path)
    write_wav(tmp_path / "audio/x.wav")
    corpus = rewrite(tmp_path, [*rows, {**rows[0], "path": "audio/x.wav", "speaker": "x", "gender": "unknown"}])
    assert corpus.utterances.set_index("utterance_id").loc["audio/x", "split"] == "train"
    assert corpus.notes[1] == "1 of 21 utterances have no known gender and enter no gap."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emotion": "calm"}, "row 3: emotion 'calm' is none of neutral, joy, surprise, anger, sadness, disgust, fear"),
        ({"gender": "f"}, "row 3: gender 'f' is none of female, male, unknown"),
        ({"language": "fr"}, "row 3: language 'fr' is none of en, ja, de"),
        ({"speaker": " "}, "row 3: the speaker is empty"),
        ({"gender": "male"}, "speaker 'w0' has rows of several genders"),
        ({"path": "audio/w0_0.wav"}, "utterances occur twice: audio/w0_0"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, changes, message):
    rows = manifest(tmp_path)
    rows[1] |= changes
    with pytest.raises(CorpusError, match=message):
        rewrite(tmp_path, rows)


def test_a_faulty_split_and_missing_columns_are_named(tmp_path):
    manifest(tmp_path, split="validation")
    with pytest.raises(CorpusError, match="row 2: split 'validation' is none of train, dev, test"):
        read_manifest(tmp_path / "manifest.csv")
    manifest(tmp_path, split="train")
    with pytest.raises(CorpusError, match="the dev split of language de is empty"):
        read_manifest(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text("path,emotion\na.wav,joy\n")
    with pytest.raises(CorpusError, match="lacks the columns transcript, language, speaker, gender"):
        read_manifest(tmp_path / "manifest.csv")


def test_under_one_percent_unreadable_is_skipped_and_one_percent_is_an_error(tmp_path):
    manifest(tmp_path, 10, 10, 10)  # 200 clips
    (tmp_path / "audio/w3_1.wav").write_bytes(b"")
    corpus = read_manifest(tmp_path / "manifest.csv")
    assert len(corpus.utterances) == 199
    assert len(corpus.skipped) == 1
    assert corpus.skipped[0].startswith(f"{tmp_path / 'audio/w3_1.wav'}: empty file")
    write_wav(tmp_path / "audio/m3_1.wav", samples=0)
    with pytest.raises(CorpusError, match=r"2 of 200 clips cannot be used.*w3_1\.wav: empty file.*m3_1\.wav: holds no"):
        read_manifest(tmp_path / "manifest.csv")
