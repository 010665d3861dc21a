from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from study.config.settings import CorpusSettings
from study.data.corpora import CorpusError, load_corpus
from study.data.corpora.manifest import list_manifest
from tests.study.data.corpora.builders import built, write_csv, write_wav


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


def read_manifest(file, split="parallel", seed=0, **settings):
    return built(list_manifest(file, split, seed), **settings)


def rewrite(root, rows, split="parallel", **settings):
    write_csv(root / "manifest.csv", rows)
    return read_manifest(root / "manifest.csv", split, **settings)


def test_five_speakers_a_gender_are_divided_three_one_one(tmp_path):
    manifest(tmp_path)
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


def test_the_division_repeats_with_its_seed(tmp_path):
    manifest(tmp_path, 20, 20, 1)
    splits = [read_manifest(tmp_path / "manifest.csv", seed=seed).utterances["split"].tolist() for seed in (0, 0, 1)]
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
    with pytest.raises(CorpusError, match=r"2 male speaker\(s\) of de leave no voice.*Add a split column"):
        read_manifest(tmp_path / "manifest.csv")
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "test")[i % 3]
        row["dialogue"] = "d1"
    corpus = rewrite(tmp_path, rows)
    assert corpus.utterances["split"].value_counts().to_dict() == {"train": 5, "dev": 5, "test": 4}
    assert set(corpus.utterances["dialogue"]) == {"d1"}
    assert corpus.notes == (
        "7 speakers stand on several sides of the manifest's own split.",
        "The split lets 1 clips or parallel utterances stand on several sides, so dev and test flatter: "
        "python -m study.data.corpora check lists them.",
    )


def test_the_splits_of_a_manifest(tmp_path):
    rows = manifest(tmp_path)
    with pytest.raises(CorpusError, match=r"manifest\.csv has no split column to follow"):
        read_manifest(tmp_path / "manifest.csv", "official")
    for i, row in enumerate(rows):
        row["split"] = ("train", "validation", "test")[i % 3]
    own = rewrite(tmp_path, rows)
    assert own.utterances["split"].value_counts().to_dict() == {"train": 7, "dev": 7, "test": 6}
    assert rewrite(tmp_path, rows, "official").content_hash == own.content_hash
    held_out = rewrite(tmp_path, rows, "speaker").utterances
    assert (held_out.groupby("speaker")["split"].nunique() == 1).all()


def test_the_voices_with_the_fewest_clips_are_held_out(tmp_path):
    rows = manifest(tmp_path, clips=10)
    for speaker in ("w1", "w3", "m0", "m2"):
        rows = [row for row in rows if row["speaker"] != speaker or row["path"] <= f"audio/{speaker}_5.wav"]
    table = rewrite(tmp_path, rows).utterances
    assert set(table.loc[table["split"] != "train", "speaker"]) == {"w1", "w3", "m0", "m2"}


def test_few_speakers_of_unknown_gender_stay_in_train(tmp_path):
    rows = manifest(tmp_path)
    write_wav(tmp_path / "audio/x.wav")
    rows.append({**rows[0], "path": "audio/x.wav", "speaker": "x", "gender": ""})
    corpus = rewrite(tmp_path, rows, unknown_gender="train")
    assert corpus.utterances.set_index("utterance_id").loc["audio/x.wav", ["split", "gender"]].tolist() == [
        "train", "unknown",
    ]  # fmt: skip
    assert corpus.notes[1] == "1 of 21 utterances have no known gender and enter no gap."
    assert len(rewrite(tmp_path, rows).utterances) == 20


def test_words_of_other_corpora_are_understood(tmp_path):
    rows = manifest(tmp_path)
    words = [("happy", "German"), ("FEARFUL", "deu"), ("ang", "de-AT"), ("sad", "DE_de")]
    for row, (emotion, language) in zip(rows, words, strict=False):
        row |= {"emotion": emotion, "language": language, "gender": "F"}
    table = rewrite(tmp_path, rows).utterances.set_index("utterance_id")
    assert table.loc[[f"audio/{clip}.wav" for clip in ("w0_0", "w0_1", "w1_0", "w1_1")], "emotion"].tolist() == [
        "joy", "fear", "anger", "sadness",
    ]  # fmt: skip
    assert set(table["language"]) == {"de"}
    assert table.loc["audio/w0_0.wav", "gender"] == "female"


def test_a_manifest_reads_the_same_in_every_kind_of_file(tmp_path):
    rows = manifest(tmp_path, split="train")
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


def test_the_same_name_with_another_ending_is_another_clip(tmp_path):
    rows = manifest(tmp_path)
    rows.append({**rows[0], "path": "audio/w0_0.flac"})
    soundfile.write(tmp_path / "audio/w0_0.flac", np.random.default_rng(0).normal(0, 0.1, 1600), 16_000)
    assert len(rewrite(tmp_path, rows).utterances) == 21


def test_nan_in_a_row_is_an_empty_cell(tmp_path):
    rows = manifest(tmp_path, transcript=float("nan"))
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert set(read_manifest(tmp_path / "m.jsonl").utterances["transcript"]) == {""}


def test_words_of_its_own_are_explained_by_a_table(tmp_path):
    rows = manifest(tmp_path, emotion="W", language="Bairisch")
    write_csv(tmp_path / "words.csv", [
        {"what": "emotion", "word": "W", "name": "anger"}, {"what": "Language", "word": "bairisch", "name": "de"},
    ])  # fmt: skip
    table = rewrite(tmp_path, rows).utterances
    assert set(table["emotion"]) == {"anger"} and set(table["language"]) == {"de"}
    write_csv(tmp_path / "words.csv", [
        {"what": "mood", "word": "W", "name": "anger"}, {"what": "emotion", "word": "W", "name": "rage"},
        {"what": "emotion", "word": "A", "name": "fear"}, {"what": "emotion", "word": "a", "name": "joy"},
    ])  # fmt: skip
    with pytest.raises(CorpusError, match=r"(?s)row 2: what is 'mood'.*row 3: there is no emotion 'rage'.*row 5: 'a'"):
        rewrite(tmp_path, rows)


def test_without_a_split_everything_is_test(tmp_path):
    rows = manifest(tmp_path, women=1, men=1)
    assert set(list_manifest(tmp_path / "manifest.csv", "none").rows["split"]) == {"test"}
    spec = CorpusSettings(spec=f"manifest:{tmp_path / 'manifest.csv'}", split="none")
    assert len(load_corpus(spec, tmp_path, parts=("test",)).utterances) == len(rows)
    with pytest.raises(CorpusError, match="the train split of language de is empty"):
        load_corpus(spec, tmp_path)


def test_transcripts_may_be_absent(tmp_path):
    rows = manifest(tmp_path)
    for row in rows:
        del row["transcript"]
    assert set(rewrite(tmp_path, rows).utterances["transcript"]) == {""}
    some = rewrite(tmp_path, [{**row, "transcript": "Ja."[: 3 * (i > 4)]} for i, row in enumerate(rows)])
    assert some.notes[1:] == ("5 of 20 utterances have no transcript.",)


def test_every_faulty_row_is_named_at_once(tmp_path):
    rows = manifest(tmp_path)
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
    said = {message.removeprefix(f"{tmp_path / 'manifest.csv'}, ").partition(". ")[0] for message in errors}
    assert said == {
        "row 3: emotion 'calm' is none of neutral, joy, surprise, anger, sadness, disgust, fear",
        "row 4: gender 'x' is none of female, male, unknown",
        "row 5: language 'fr' is none of en, ja, de",
        "row 6: the speaker is empty",
        "row 7: audio/w0_0.wav stands in row 2 too",
        "row 8: the path is empty",
        "row 9: split 'holdout' is none of train, dev, test",
    }


def test_very_many_faults_are_capped_and_counted(tmp_path):
    manifest(tmp_path, 10, 10, emotion="calm")
    with pytest.raises(CorpusError) as caught:
        read_manifest(tmp_path / "manifest.csv")
    lines = str(caught.value).splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("40 errors:", 22, "and 20 more")


def test_a_speaker_of_two_genders_is_named(tmp_path):
    rows = manifest(tmp_path)
    rows[1]["gender"] = "male"
    with pytest.raises(
        CorpusError,
        match=r"speaker 'w0' has rows of several genders .*female: .*row 2; male: .*row 3.*a name of its own",
    ):
        rewrite(tmp_path, rows)
    rows[1]["gender"] = ""
    with pytest.raises(CorpusError, match=r"female: .*row 2; unknown: .*row 3.*Fill the gender of every row"):
        rewrite(tmp_path, rows)


def test_a_speaker_of_two_genders_is_named_whatever_the_split_with_the_rows_of_each(tmp_path):
    rows = manifest(tmp_path, clips=24)
    for i, row in enumerate(rows):
        row["split"] = ("train", "dev", "test")[i % 3]
    rows[2]["gender"] = "male"  # of w0, rows 2 to 25
    rows[25]["gender"] = ""  # of w1, of whom nothing else is said
    rows[30]["speaker"] = ""
    female = ", ".join(f"row {n}" for n in (2, 3, *range(5, 23)))
    for split in ("parallel", "official", "none"):
        with pytest.raises(CorpusError) as caught:
            rewrite(tmp_path, rows, split)
        title, empty, torn = str(caught.value).splitlines()
        assert title == "2 errors:" and "row 32: the speaker is empty" in empty
        assert torn == (
            f"{tmp_path / 'manifest.csv'}: speaker 'w0' has rows of several genders (male: row 4; female: {female}, "
            "and 3 more). Correct the rows that are wrong; if they are two voices, give each a name of its own."
        )
    rows[2]["gender"], rows[30]["speaker"] = "female", "w1"
    assert rewrite(tmp_path, rows).notes[1:] == ("1 of 240 utterances have no known gender and enter no gap.",)


def test_texts_that_cannot_be_said_or_kept_are_named(tmp_path):
    rows = manifest(tmp_path)
    rows[3]["transcript"] = "word " * 1_001
    with pytest.raises(CorpusError, match=r"row 5: a transcript of 5004 characters"):
        rewrite(tmp_path, rows)
    rows[3]["transcript"] = "a\ud800"
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(CorpusError, match=r"m\.jsonl, row 4: holds half a character"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_train_split_of_unknown_genders_says_so(tmp_path):
    rows = manifest(tmp_path)
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
        ("a.csv", "path,emotion\na.wav,joy,de\nb.wav\n", "row 2: 3 cells under a header of 2(?s:.*)row 3: 1 cells"),
        ("a.csv", "path,path\na.wav,b.wav\n", "the column 'path' stands there twice"),
        ("a.csv", "path,Path\na.wav,b.wav\n", "has the columns path and Path, which are one"),
        (
            "a.csv",
            'path,emotion\na.wav,joy\n"b.wav,joy\nc.wav,joy\n',
            "row 3: unexpected end of data.*Close every quote",
        ),
        ("a.csv", b"path,emotion\r\na,joy\r\n\xe4.wav,joy\r\n", "line 3: the byte 0xe4 is no UTF-8. Save .* as UTF-8"),
        ("a.csv", "path,emotion\na.wav,joy\n".encode("utf-16"), "line 1: the byte 0xff is no UTF-8"),
        ("a.jsonl", b'\xef\xbb\xbf{"path": "a"}\n{"path": "\xfc"}\n', "line 2: the byte 0xfc is no UTF-8"),
        ("a.jsonl", '{"path": "a.wav"}\n{"path": \n[1]\n', "row 2: no JSON(?s:.*)row 3: list instead of an object"),
        ("a.jsonl", '{"path": "a.wav"}\n', "lacks the columns emotion, language, speaker, gender"),
        ("a.parquet", "no parquet", "cannot be read as a Parquet file"),
    ],
)
def test_a_faulty_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=rf"{name}.*{message}"):
        list_manifest(tmp_path / name)


def test_a_folder_is_no_manifest(tmp_path):
    manifest(tmp_path / "data.v1")
    with pytest.raises(
        CorpusError, match=r"data\.v1 is a folder\. Name the CSV, .* itself\. A manifest has the columns"
    ):
        list_manifest(tmp_path / "data.v1")


def test_an_empty_split_is_named(tmp_path):
    manifest(tmp_path, split="train")
    with pytest.raises(CorpusError, match="the dev split of language de is empty(?s:.*)the test split of language de"):
        read_manifest(tmp_path / "manifest.csv")


def test_under_one_percent_unusable_is_skipped_and_one_percent_is_an_error(tmp_path):
    rows = manifest(tmp_path, 10, 10, 10)  # 200 clips
    row = 2 + next(i for i, row in enumerate(rows) if row["path"] == "audio/w3_1.wav")
    path = tmp_path / "audio/w3_1.wav"
    path.write_bytes(path.read_bytes()[:1_000])
    corpus = read_manifest(tmp_path / "manifest.csv")
    assert len(corpus.utterances) == 199
    assert corpus.skipped == (f"{tmp_path / 'manifest.csv'}, row {row}: {path}: cut short behind 478 samples",)
    assert corpus.notes[1:] == ("1 of 200 clips cannot be used and were skipped.",)
    write_wav(tmp_path / "audio/m3_1.wav", samples=320)
    with pytest.raises(
        CorpusError, match=r"2 of 200 clips cannot be used(?s:.*)w3_1\.wav: cut(?s:.*)m3_1\.wav: 0\.020 s"
    ):
        read_manifest(tmp_path / "manifest.csv")


def test_long_clips_and_levels_far_apart_are_noted(tmp_path):
    rows = manifest(tmp_path, clips=3)
    write_wav(tmp_path / rows[0]["path"], 31 * 16_000)
    for row in rows[2::3]:
        row["language"] = "en"
        write_wav(tmp_path / row["path"], level=0.01)  # 20 dB less
    corpus = rewrite(tmp_path, rows)
    assert corpus.notes[1:] == (
        "1 clips are longer than 30 s; only their first 30 s are heard.",
        "de is 20 dB louder than en; --set corpus.loudness=rms takes loudness out.",
    )
    level = rewrite(tmp_path, rows, loudness="rms")
    assert level.notes[1:] == corpus.notes[1:2]
    where = f"{tmp_path / 'manifest.csv'}, row 2: {tmp_path / rows[0]['path']}"
    told = f"{where}: 31.00 s long, only the first 30 s are heard"
    assert corpus.shortened == (told,)
    assert corpus.clips_in_words() == [f"shortened  {told}"]
    assert level.content_hash != corpus.content_hash


def test_a_refused_manifest_leaves_nothing_behind(tmp_path):
    rows = manifest(tmp_path / "data", emotion="calm")
    with pytest.raises(CorpusError):
        load_corpus(CorpusSettings(spec=f"manifest:{tmp_path / 'data/manifest.csv'}"), tmp_path / "cache")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert len(list((tmp_path / "data").rglob("*"))) == len(rows) + 2
