"""The manifest reader: columns, labels, splits, file formats and errors."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from study.config.settings import CorpusSettings
from study.data.corpora import CorpusError, load_corpus
from study.data.corpora.manifest import list_manifest
from tests.study.data.corpora.builders import build, write_csv, write_wav


def write_manifest(root, women=5, men=5, clips=2, **columns):
    """Write a manifest of German speakers w0.., m0..; ``columns`` are set in every row. Return its rows."""
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


def read_manifest(file, split="parallel", seed=0, **settings):
    return build(list_manifest(file, split, seed), **settings)


def rewrite(root, rows, split="parallel", **settings):
    write_csv(root / "manifest.csv", rows)
    return read_manifest(root / "manifest.csv", split, **settings)


def test_five_speakers_per_gender_are_split_3_1_1(tmp_path):
    write_manifest(tmp_path)
    corpus = load_corpus(CorpusSettings(spec=f"manifest:{tmp_path / 'manifest.csv'}"), tmp_path)
    table = corpus.utterances
    assert table.groupby(["gender", "split"])["speaker"].nunique().to_dict() == {
        ("female", "dev"): 1, ("female", "test"): 1, ("female", "train"): 3,
        ("male", "dev"): 1, ("male", "test"): 1, ("male", "train"): 3,
    }  # fmt: skip
    assert (table.groupby("speaker")["split"].nunique() == 1).all()
    assert corpus.name == "manifest"
    assert corpus.notes == ("The manifest's speakers were divided into train, dev and test.",)
    first = table.iloc[0]
    assert (first["utterance_id"], first["dialogue"], first["emotion"]) == ("audio/m0_0.wav", "audio/m0_0.wav", "joy")
    assert (first["samples"], first["sample_rate"]) == (1600, 16_000)


def test_split_by_speaker_depends_only_on_its_seed(tmp_path):
    write_manifest(tmp_path, 20, 20, 1)
    splits = [read_manifest(tmp_path / "manifest.csv", seed=seed).utterances["split"].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert [splits[0].count(split) for split in ("train", "dev", "test")] == [24, 8, 8]


def test_speaker_of_two_languages_is_in_one_split(tmp_path):
    rows = write_manifest(tmp_path, clips=3)
    for row in rows[2::3]:
        row["language"] = "en"
    table = rewrite(tmp_path, rows).utterances
    assert (table.groupby("speaker")["split"].nunique() == 1).all()


def test_too_few_speakers_ask_for_a_split_column(tmp_path):
    rows = write_manifest(tmp_path, men=2)
    with pytest.raises(CorpusError, match=r"2 male speaker\(s\) of de are too few.*Add a split column"):
        read_manifest(tmp_path / "manifest.csv")
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "test")[i % 3]
        row["dialogue"] = "d1"
    corpus = rewrite(tmp_path, rows)
    assert corpus.utterances["split"].value_counts().to_dict() == {"train": 5, "dev": 5, "test": 4}
    assert set(corpus.utterances["dialogue"]) == {"d1"}
    assert corpus.notes == (
        "7 speakers are in several splits of the manifest.",
        "1 clips or parallel utterances are in several splits, so dev and test figures are too good: "
        "python -m study.data.corpora check lists them.",
    )


def test_split_column_or_split_by_speaker(tmp_path):
    rows = write_manifest(tmp_path)
    with pytest.raises(CorpusError, match=r"manifest\.csv has no split column"):
        read_manifest(tmp_path / "manifest.csv", "official")
    for i, row in enumerate(rows):
        row["split"] = ("train", "validation", "test")[i % 3]
    from_column = rewrite(tmp_path, rows)
    assert from_column.utterances["split"].value_counts().to_dict() == {"train": 7, "dev": 7, "test": 6}
    assert rewrite(tmp_path, rows, "official").content_hash == from_column.content_hash
    held_out = rewrite(tmp_path, rows, "speaker").utterances
    assert (held_out.groupby("speaker")["split"].nunique() == 1).all()


def test_speakers_with_the_fewest_clips_are_held_out(tmp_path):
    rows = write_manifest(tmp_path, clips=10)
    for speaker in ("w1", "w3", "m0", "m2"):
        rows = [row for row in rows if row["speaker"] != speaker or row["path"] <= f"audio/{speaker}_5.wav"]
    table = rewrite(tmp_path, rows).utterances
    assert set(table.loc[table["split"] != "train", "speaker"]) == {"w1", "w3", "m0", "m2"}


def test_few_speakers_of_unknown_gender_are_in_train(tmp_path):
    rows = write_manifest(tmp_path)
    write_wav(tmp_path / "audio/x.wav")
    rows.append({**rows[0], "path": "audio/x.wav", "speaker": "x", "gender": ""})
    corpus = rewrite(tmp_path, rows, unknown_gender="train")
    assert corpus.utterances.set_index("utterance_id").loc["audio/x.wav", ["split", "gender"]].tolist() == [
        "train", "unknown",
    ]  # fmt: skip
    assert corpus.notes[1] == "1 of 21 utterances have no known gender and count in no gap."
    assert len(rewrite(tmp_path, rows).utterances) == 20


def test_labels_of_other_corpora_are_translated(tmp_path):
    rows = write_manifest(tmp_path)
    labels = [("happy", "German"), ("FEARFUL", "deu"), ("ang", "de-AT"), ("sad", "DE_de")]
    for row, (emotion, language) in zip(rows, labels, strict=False):
        row |= {"emotion": emotion, "language": language, "gender": "F"}
    table = rewrite(tmp_path, rows).utterances.set_index("utterance_id")
    assert table.loc[[f"audio/{clip}.wav" for clip in ("w0_0", "w0_1", "w1_0", "w1_1")], "emotion"].tolist() == [
        "joy", "fear", "anger", "sadness",
    ]  # fmt: skip
    assert set(table["language"]) == {"de"}
    assert table.loc["audio/w0_0.wav", "gender"] == "female"


def test_every_file_format_gives_the_same_table(tmp_path):
    rows = write_manifest(tmp_path, split="train")
    for i, row in enumerate(rows):
        row |= {"split": ("train", "dev", "test")[i % 3], "speaker": 100 + i // 2, "transcript": 'Ja; "so", ähm.'}
    expected = rewrite(tmp_path, rows).utterances
    text = (tmp_path / "manifest.csv").read_text()
    frame = pd.DataFrame(rows)
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + text.encode().replace(b"\r\n", b"\n"))
    frame.to_csv(tmp_path / "semicolons.csv", sep=";", index=False, lineterminator="\r\n")
    frame.to_csv(tmp_path / "tabs.tsv", sep="\t", index=False)
    (tmp_path / "lines.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    frame.to_parquet(tmp_path / "table.parquet")
    (tmp_path / "excel.csv").write_text("sep=;\n" + frame.to_csv(sep=";", index=False))
    frame.rename(columns=str.upper).to_csv(tmp_path / "upper.csv", index=False)
    floats = [{**row, "speaker": float(row["speaker"])} for row in rows]
    (tmp_path / "floats.jsonl").write_text("\n".join(json.dumps(row) for row in floats))
    csvs = ("bom.csv", "semicolons.csv", "tabs.tsv", "excel.csv", "upper.csv")
    for name in (*csvs, "lines.jsonl", "floats.jsonl", "table.parquet"):
        pd.testing.assert_frame_equal(read_manifest(tmp_path / name).utterances, expected)


def test_same_name_with_another_extension_is_another_clip(tmp_path):
    rows = write_manifest(tmp_path)
    rows.append({**rows[0], "path": "audio/w0_0.flac"})
    soundfile.write(tmp_path / "audio/w0_0.flac", np.random.default_rng(0).normal(0, 0.1, 1600), 16_000)
    assert len(rewrite(tmp_path, rows).utterances) == 21


def test_nan_is_an_empty_cell(tmp_path):
    rows = write_manifest(tmp_path, transcript=float("nan"))
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert set(read_manifest(tmp_path / "m.jsonl").utterances["transcript"]) == {""}


def test_labels_file_maps_own_labels(tmp_path):
    rows = write_manifest(tmp_path, emotion="W", language="Bairisch")
    write_csv(tmp_path / "labels.csv", [
        {"column": "emotion", "label": "W", "name": "anger"}, {"column": "Language", "label": "bairisch", "name": "de"},
    ])  # fmt: skip
    table = rewrite(tmp_path, rows).utterances
    assert set(table["emotion"]) == {"anger"} and set(table["language"]) == {"de"}
    write_csv(tmp_path / "labels.csv", [
        {"column": "mood", "label": "W", "name": "anger"}, {"column": "emotion", "label": "W", "name": "rage"},
        {"column": "emotion", "label": "A", "name": "fear"}, {"column": "emotion", "label": "a", "name": "joy"},
    ])  # fmt: skip
    with pytest.raises(
        CorpusError,
        match=r"(?s)row 2: unknown column 'mood'.*row 3: unknown emotion 'rage'.*row 5: the label 'a' has two names",
    ):
        rewrite(tmp_path, rows)


def test_split_none_puts_everything_into_test(tmp_path):
    rows = write_manifest(tmp_path, women=1, men=1)
    assert set(list_manifest(tmp_path / "manifest.csv", "none").rows["split"]) == {"test"}
    spec = CorpusSettings(spec=f"manifest:{tmp_path / 'manifest.csv'}", split="none")
    assert len(load_corpus(spec, tmp_path, required_splits=("test",)).utterances) == len(rows)
    with pytest.raises(CorpusError, match="the train split of language de is empty"):
        load_corpus(spec, tmp_path)


def test_transcripts_are_optional(tmp_path):
    rows = write_manifest(tmp_path)
    for row in rows:
        del row["transcript"]
    assert set(rewrite(tmp_path, rows).utterances["transcript"]) == {""}
    some = rewrite(tmp_path, [{**row, "transcript": "Ja."[: 3 * (i > 4)]} for i, row in enumerate(rows)])
    assert some.notes[1:] == ("5 of 20 utterances have no transcript.",)


def test_every_faulty_row_is_named(tmp_path):
    rows = write_manifest(tmp_path)
    changes = {
        1: {"emotion": "calm"}, 2: {"gender": "x"}, 3: {"language": "fr"}, 4: {"speaker": " "},
        5: {"path": rows[0]["path"]}, 6: {"path": ""}, 7: {"split": "holdout"},
    }  # fmt: skip
    for i, row in enumerate(rows):
        row |= {"split": "train", **changes.get(i, {})}
    with pytest.raises(CorpusError) as caught:
        rewrite(tmp_path, rows)
    title, *errors = str(caught.value).splitlines()
    assert title == "7 errors:"
    messages = {message.removeprefix(f"{tmp_path / 'manifest.csv'}, ").partition(". ")[0] for message in errors}
    assert messages == {
        "row 3: unknown emotion 'calm'; use one of neutral, joy, surprise, anger, sadness, disgust, fear",
        "row 4: unknown gender 'x'; use one of female, male, unknown",
        "row 5: unknown language 'fr'; use one of en, ja, de",
        "row 6: the speaker is empty",
        "row 7: audio/w0_0.wav is in row 2 too",
        "row 8: the path is empty",
        "row 9: unknown split 'holdout'; use one of train, dev, test",
    }


def test_long_list_of_errors_is_capped_and_counted(tmp_path):
    write_manifest(tmp_path, 10, 10, emotion="calm")
    with pytest.raises(CorpusError) as caught:
        read_manifest(tmp_path / "manifest.csv")
    lines = str(caught.value).splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("40 errors:", 22, "and 20 more")


def test_speaker_with_two_genders_is_refused(tmp_path):
    rows = write_manifest(tmp_path)
    rows[1]["gender"] = "male"
    with pytest.raises(
        CorpusError,
        match=r"speaker 'w0' has rows of several genders .*female: .*row 2; male: .*row 3.*give each a name",
    ):
        rewrite(tmp_path, rows)
    rows[1]["gender"] = ""
    with pytest.raises(CorpusError, match=r"female: .*row 2; unknown: .*row 3.*Fill in the gender of every row"):
        rewrite(tmp_path, rows)


def test_speaker_with_two_genders_is_refused_for_every_split(tmp_path):
    rows = write_manifest(tmp_path, clips=24)
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "test")[i % 3]
    rows[2]["gender"] = "male"  # of w0, rows 2 to 25
    rows[25]["gender"] = ""  # of w1; an unknown gender does not conflict
    rows[30]["speaker"] = ""
    female = ", ".join(f"row {n}" for n in (2, 3, *range(5, 23)))
    for split in ("parallel", "official", "none"):
        with pytest.raises(CorpusError) as caught:
            rewrite(tmp_path, rows, split)
        title, empty, conflicting = str(caught.value).splitlines()
        assert title == "2 errors:" and "row 32: the speaker is empty" in empty
        assert conflicting == (
            f"{tmp_path / 'manifest.csv'}: speaker 'w0' has rows of several genders (male: row 4; female: {female}, "
            "and 3 more). Correct the wrong rows; if these are two people, give each a name."
        )
    rows[2]["gender"], rows[30]["speaker"] = "female", "w1"
    assert rewrite(tmp_path, rows).notes[1:] == ("1 of 240 utterances have no known gender and count in no gap.",)


def test_too_long_and_unstorable_transcripts_are_refused(tmp_path):
    rows = write_manifest(tmp_path)
    rows[3]["transcript"] = "word " * 1_001
    with pytest.raises(CorpusError, match=r"row 5: the transcript has 5004 characters"):
        rewrite(tmp_path, rows)
    rows[3]["transcript"] = "a\ud800"
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(CorpusError, match=r"m\.jsonl, row 4: contains a lone surrogate"):
        read_manifest(tmp_path / "m.jsonl")


def test_train_split_of_unknown_genders_names_the_setting(tmp_path):
    rows = write_manifest(tmp_path)
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "test")[i % 3]
        row["gender"] = "" if row["split"] == "train" else row["gender"]
    with pytest.raises(
        CorpusError, match=r"(?s)train split of language de is empty.*7 utterances of train have no known"
    ):
        rewrite(tmp_path, rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,emotion\na.wav,joy\n", "lacks the columns language, speaker, gender"),
        ("a.csv", "path,emotion\na.wav,joy,de\nb.wav\n", "row 2: 3 cells, but the header has 2(?s:.*)row 3: 1 cells"),
        ("a.csv", "path,path\na.wav,b.wav\n", "the column 'path' occurs twice"),
        ("a.csv", "path,Path\na.wav,b.wav\n", "has the columns path and Path, which mean the same"),
        (
            "a.csv",
            'path,emotion\na.wav,joy\n"b.wav,joy\nc.wav,joy\n',
            "row 3: unexpected end of data.*Close every quote",
        ),
        ("a.csv", b"path,emotion\r\na,joy\r\n\xe4.wav,joy\r\n", "line 3: the byte 0xe4 is not UTF-8. Save .* as UTF-8"),
        ("a.csv", "path,emotion\na.wav,joy\n".encode("utf-16"), "line 1: the byte 0xff is not UTF-8"),
        ("a.jsonl", b'\xef\xbb\xbf{"path": "a"}\n{"path": "\xfc"}\n', "line 2: the byte 0xfc is not UTF-8"),
        ("a.jsonl", '{"path": "a.wav"}\n{"path": \n[1]\n', "row 2: not JSON(?s:.*)row 3: list instead of an object"),
        ("a.jsonl", '{"path": "a.wav"}\n', "lacks the columns emotion, language, speaker, gender"),
        ("a.parquet", "not parquet", "cannot be read as a Parquet file"),
    ],
)
def test_faulty_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=rf"{name}.*{message}"):
        list_manifest(tmp_path / name)


def test_folder_instead_of_a_manifest_is_refused(tmp_path):
    write_manifest(tmp_path / "data.v1")
    with pytest.raises(
        CorpusError, match=r"data\.v1 is a folder\. Name the CSV, .* itself\. A manifest has the columns"
    ):
        list_manifest(tmp_path / "data.v1")


def test_empty_split_is_refused(tmp_path):
    write_manifest(tmp_path, split="train")
    with pytest.raises(CorpusError, match="the dev split of language de is empty(?s:.*)the test split of language de"):
        read_manifest(tmp_path / "manifest.csv")


def test_fewer_than_1_percent_unusable_clips_are_skipped(tmp_path):
    rows = write_manifest(tmp_path, 10, 10, 10)  # 200 clips
    row = 2 + next(i for i, row in enumerate(rows) if row["path"] == "audio/w3_1.wav")
    path = tmp_path / "audio/w3_1.wav"
    path.write_bytes(path.read_bytes()[:1_000])
    corpus = read_manifest(tmp_path / "manifest.csv")
    assert len(corpus.utterances) == 199
    assert corpus.skipped == (f"{tmp_path / 'manifest.csv'}, row {row}: {path}: truncated after 478 samples",)
    assert corpus.notes[1:] == ("1 of 200 clips are unusable and were skipped.",)
    write_wav(tmp_path / "audio/m3_1.wav", samples=320)
    with pytest.raises(
        CorpusError, match=r"2 of 200 clips are unusable(?s:.*)w3_1\.wav: truncated(?s:.*)m3_1\.wav: 0\.020 s"
    ):
        read_manifest(tmp_path / "manifest.csv")


def test_long_clips_and_level_differences_are_noted(tmp_path):
    rows = write_manifest(tmp_path, clips=3)
    write_wav(tmp_path / rows[0]["path"], 31 * 16_000)
    for row in rows[2::3]:
        row["language"] = "en"
        write_wav(tmp_path / row["path"], level=0.01)  # 20 dB less
    corpus = rewrite(tmp_path, rows)
    assert corpus.notes[1:] == (
        "1 clips are longer than 30 s; only their first 30 s are used.",
        "de is 20 dB louder than en; --set corpus.loudness=rms removes the difference.",
    )
    normalised = rewrite(tmp_path, rows, loudness="rms")
    assert normalised.notes[1:] == corpus.notes[1:2]
    where = f"{tmp_path / 'manifest.csv'}, row 2: {tmp_path / rows[0]['path']}"
    message = f"{where}: 31.00 s long, only the first 30 s are used"
    assert corpus.shortened == (message,)
    assert corpus.clip_messages() == [f"shortened  {message}"]
    assert normalised.content_hash != corpus.content_hash


def test_refused_manifest_leaves_no_files(tmp_path):
    rows = write_manifest(tmp_path / "data", emotion="calm")
    with pytest.raises(CorpusError):
        load_corpus(CorpusSettings(spec=f"manifest:{tmp_path / 'data/manifest.csv'}"), tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert len(list((tmp_path / "data").rglob("*"))) == len(rows) + 2
