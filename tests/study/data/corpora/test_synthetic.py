"""The synthetic corpus: its dialogues, its files and its planted gaps."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from study.common.groups import EMOTIONS, GENDERS, LANGUAGES
from study.config.settings import CorpusSettings
from study.data.corpora import CorpusError, load_corpus
from study.data.corpora.synthetic import corpus as synthetic
from study.data.corpora.synthetic.corpus import list_synthetic, write_corpus
from study.data.corpora.synthetic.dialogues import (
    EMOTION_SHIFT,
    GROUP_OFFSET,
    GROUP_SIGN,
    SMALL,
    VARIANTS,
    write_dialogues,
)
from study.data.corpora.synthetic.planted_gaps import PLANTED_GAP_NAMES, PLANTED_GAPS, select_gaps
from study.data.corpora.synthetic.sentences import CUE, PLAIN
from tests.study.data.corpora.builders import build

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is absent"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function from planted gaps to a folder with the small corpus, which is written once per module."""
    base = tmp_path_factory.mktemp("synthetic")
    roots: dict[tuple[str, ...], Path] = {}

    def get(*planted_gaps: str) -> Path:
        if planted_gaps not in roots:
            root = base / ("+".join(planted_gaps) or "no-gaps")
            write_corpus(root, planted_gaps, size=SMALL)
            roots[planted_gaps] = root
        return roots[planted_gaps]

    return get


def file_hashes(root: Path) -> dict[str, str]:
    """Return relative path -> hash of all files except corpus.json."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and path.name != "corpus.json"
    }


def group_of_clips(root: Path) -> dict[str, tuple[str, str, str]]:
    """Return relative path of a clip -> (language, gender, split), from the CSV files."""
    genders = pd.read_csv(root / "genders.csv").set_index("speaker")["gender"]
    groups = {}
    for pair, prefix, folder, language in (("ENG_DEU", "deu", "DEU", "de"), ("ENG_JPN", "jpn", "JPN", "ja")):
        for split, name in (("train", "train"), ("dev", "valid"), ("test", "test")):
            for row in pd.read_csv(root / pair / f"{prefix}_{name}.csv").itertuples():
                for side, spoken in (("ENG", "en"), (folder, language)):
                    clip = f"{pair}/{side}/{split}/{split}_{row.id}.wav"
                    groups[clip] = (spoken, genders[row.speaker], split)
    return groups


# Dialogues: no synthesis needed.


def test_full_size_has_350_test_utterances_per_gender():
    table = pd.DataFrame(
        [(u.character.split, u.character.gender, u.emotion, u.character.name, u.dialogue) for u in write_dialogues(0)],
        columns=["split", "gender", "emotion", "speaker", "dialogue"],
    )
    counts = table.groupby(["split", "gender"]).size().to_dict()
    assert counts == {(s, g): n for s, n in (("train", 560), ("dev", 350), ("test", 350)) for g in GENDERS}
    assert set(table.groupby(["split", "gender", "emotion"]).size()) == {80, 50}
    assert table.groupby(["split", "gender"])["speaker"].nunique().to_dict() == {
        (s, g): n for s, n in (("train", 20), ("dev", 10), ("test", 10)) for g in GENDERS
    }
    assert (table.groupby("speaker")["split"].nunique() == 1).all()
    dialogues = table.groupby("dialogue")  # the last ones of a split may have fewer
    assert dialogues["speaker"].nunique().isin([2, 3, 4]).mean() > 0.95
    assert dialogues.size().between(4, 8).mean() > 0.95
    assert dialogues.size().max() == 8
    assert (dialogues["split"].nunique() == 1).all()


def test_half_of_the_utterances_have_a_cue_word_and_genders_share_sentences():
    plain = {sentence for sentences in PLAIN.values() for sentence in sentences}
    table = pd.DataFrame(
        [
            (u.character.split, u.character.gender, u.emotion, u.sentence.en, u.sentence in plain)
            for u in write_dialogues(0)
        ],
        columns=["split", "gender", "emotion", "text", "plain"],
    )
    shares = table.groupby(["split", "gender", "emotion"])["plain"].mean()
    assert shares.between(0.49, 0.51).all()
    uses = table.groupby(["split", "emotion", "text", "gender"]).size().unstack(fill_value=0)
    assert (uses["female"] - uses["male"]).abs().max() <= 1


def test_splits_share_no_sentence_and_emotions_share_no_cue_sentence():
    sentences = [s for part in PLAIN.values() for s in part]
    sentences += [s for part in CUE.values() for of_emotion in part.values() for s in of_emotion]
    for language in ("en", "de", "ja"):
        texts = [getattr(sentence, language) for sentence in sentences]
        assert len(set(texts)) == len(texts) == 14 + 7 + 7 + 7 * (6 + 3 + 3)
    assert all(list(part) == list(EMOTIONS) for part in CUE.values())


def test_cue_words_of_dev_and_test_are_in_train():
    def words(sentences, language):
        return {w for s in sentences for w in re.findall(r"\w+", getattr(s, language).lower())}

    for language in ("en", "de"):
        plain = words([s for part in PLAIN.values() for s in part], language)
        for emotion in EMOTIONS:
            known = words(CUE["train"][emotion], language) - plain
            for split in ("dev", "test"):
                for sentence in CUE[split][emotion]:
                    assert known & words([sentence], language), sentence


def test_japanese_is_in_kana_only():
    kana = re.compile(r"[\u3040-\u30ff 、。]+")
    for split in PLAIN:
        for sentences in (PLAIN[split], *CUE[split].values()):
            assert all(kana.fullmatch(sentence.ja) for sentence in sentences)


def test_prosody_is_neutral_plus_group_offset_plus_scaled_emotion_shift():
    utterance = next(u for u in write_dialogues(0) if u.emotion == "sadness" and u.character.gender == "female")
    utterance = dataclasses.replace(utterance, jitter=0 * utterance.jitter)
    neutral = utterance.character.prosody
    assert GROUP_SIGN["en", "female"] == -1
    full, weak = (utterance.prosody("en", factor) for factor in (1.0, 0.5))
    assert full["pitch"] == round(neutral[0] - 14.0)
    assert weak["pitch"] == round(neutral[0] - 7.0)
    assert full["level"] == pytest.approx(neutral[3] - 1.5 - 4.0, abs=0.005)
    assert weak["level"] == pytest.approx(neutral[3] - 1.5 - 2.0, abs=0.005)


def test_no_gender_has_an_advantage_by_its_neutral_or_group_offset():
    utterances = write_dialogues(0)
    neutrals = {u.character.name: tuple(u.character.prosody) for u in utterances}
    assert all(neutrals[f"F{i:02d}"] == neutrals[f"M{i:02d}"] for i in range(1, 41))
    assert len({neutrals[f"F{i:02d}"] for i in range(1, 41)}) == 40
    assert abs(sum(GROUP_SIGN[language, "female"] for language in LANGUAGES)) == 1
    assert all(GROUP_SIGN[language, "female"] == -GROUP_SIGN[language, "male"] for language in LANGUAGES)
    assert GROUP_OFFSET[0] == GROUP_OFFSET[1] == 0  # groups do not differ in pitch and range
    assert set(EMOTION_SHIFT) == set(EMOTIONS)
    assert len(VARIANTS["female"]) == len(VARIANTS["male"]) == 10


def test_planted_gaps():
    assert PLANTED_GAP_NAMES == ("scarcity", "prior", "cue")
    assert [planted_gap.closable for planted_gap in PLANTED_GAPS] == [True, True, False]
    assert len({planted_gap.language for planted_gap in PLANTED_GAPS}) == 3
    assert [planted_gap.name for planted_gap in select_gaps(["cue", "scarcity"])] == ["scarcity", "cue"]
    with pytest.raises(CorpusError, match="unknown planted gap 'typo': use scarcity, prior, cue"):
        select_gaps(["typo"])


def test_planted_gaps_drop_no_english_utterance():
    """An utterance that both pairs omit would be missing in English too."""
    utterances = write_dialogues(0)
    dropped = synthetic._dropped_utterances(utterances, PLANTED_GAPS, seed=0)
    assert {language: len(rows) for language, rows in dropped.items()} == {"en": 0, "ja": 4 * 78, "de": 7 * 72}
    assert not dropped["de"] & dropped["ja"]
    assert {utterances[i].character.split for rows in dropped.values() for i in rows} == {"train"}


# The files.


@needs_espeak
def test_files_depend_only_on_the_seed(written, tmp_path):
    root = written()
    digest = write_corpus(tmp_path / "again", (), size=SMALL)
    assert file_hashes(root) == file_hashes(tmp_path / "again")
    about = json.loads((root / "corpus.json").read_text())
    assert about == {
        "version": synthetic.VERSION, "seed": 0, "planted_gaps": [],
        "size": {"characters": [2, 2, 2], "each": [2, 1, 1]},
        "sha256": digest,
    }  # fmt: skip
    assert write_corpus(tmp_path / "other", (), seed=1, size=SMALL) != digest


@needs_espeak
def test_layout_is_that_of_meld_st(written):
    root = written()
    table = pd.read_csv(root / "ENG_JPN" / "jpn_valid.csv")
    assert list(table.columns) == [
        "id", "dia_id", "utt_id", "emotion", "sentiment", "English", "Japanese", "season", "episode", "speaker",
        "English_begin_time", "English_end_time", "Japanese_begin_time", "Japanese_end_time",
    ]  # fmt: skip
    assert len(table) == 2 * 2 * 7  # characters per gender, genders, emotions
    names = file_hashes(root)
    listed = group_of_clips(root)
    absent = sorted(set(listed) - set(names))
    assert [name.rpartition("_")[0] for name in absent] == [
        "ENG_DEU/DEU/train/train",
        "ENG_DEU/ENG/test/test",
        "ENG_JPN/JPN/dev/dev",
    ]
    assert [listed[name][1] for name in absent] == ["female", "female", "male"]
    assert not set(names) - set(listed) - {"genders.csv"} - {n for n in names if n.endswith(".csv")}
    english = {name for name in listed if "/ENG/" in name} - set(absent)
    for name in english:
        other = name.replace("ENG_DEU", "ENG_JPN")
        assert names[name] == names[other]
    info = soundfile.info(root / "ENG_JPN/JPN/dev/dev_0.wav")
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
    row = table.set_index("id").loc[0]
    assert row["Japanese_end_time"] - row["Japanese_begin_time"] == pytest.approx(info.duration, abs=0.001)


@needs_espeak
@pytest.mark.parametrize("planted_gaps", [("scarcity",), ("prior",), ("cue",), PLANTED_GAP_NAMES])
def test_planted_gap_changes_only_its_group(written, planted_gaps):
    without_gaps, planted = file_hashes(written()), file_hashes(written(*planted_gaps))
    groups = group_of_clips(written())
    listed = group_of_clips(written(*planted_gaps))
    clips = {name for name in without_gaps if name.endswith(".wav")}
    changed = {groups[name] for name in clips & set(planted) if without_gaps[name] != planted[name]}
    assert changed == (
        {("en", "female", split) for split in ("train", "dev", "test")} if "cue" in planted_gaps else set()
    )
    assert not set(planted) - set(without_gaps)
    dropped = [groups[name] for name in set(groups) - set(listed) if "/ENG/" not in name]
    expected = []
    if (
        "scarcity" in planted_gaps
    ):  # two characters, twice each emotion: 4 of an emotion, of which 0.1 leaves at least 1
        expected += [("de", "male", "train")] * (7 * 3)
    if "prior" in planted_gaps:  # 0.03 of 4 leaves at least 1, for four of the emotions
        expected += [("ja", "female", "train")] * (4 * 3)
    assert sorted(dropped) == sorted(expected)
    for name in ("ENG_DEU/deu_valid.csv", "ENG_DEU/deu_test.csv", "ENG_JPN/jpn_valid.csv", "ENG_JPN/jpn_test.csv"):
        if "cue" not in planted_gaps:  # its clips have other lengths, and so other time stamps
            assert without_gaps[name] == planted[name]


@needs_espeak
def test_concurrent_callers_write_the_corpus_once(tmp_path, monkeypatch):
    calls = []
    original = synthetic.write_corpus
    monkeypatch.setattr(synthetic, "write_corpus", lambda *args: calls.append(args) or original(*args))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build(list_synthetic(tmp_path, PLANTED_GAP_NAMES, size=SMALL)), range(2))
    assert len(calls) == 1
    assert first.content_hash == second.content_hash
    pd.testing.assert_frame_equal(first.utterances, second.utterances)
    assert first.name == "synthetic"
    assert first.notes[0].startswith("Synthetic speech with planted gaps (German men have a tenth")
    assert first.notes[0].endswith("). It says nothing about people.")
    assert len(first.skipped) == 2
    assert first.notes[1:] == (f"2 of {len(first.utterances) + 2} utterances have no clip on disk and were skipped.",)
    counts = first.utterances.groupby(["language", "split"]).size()
    assert counts["en"].to_dict() == {"train": 56, "dev": 28, "test": 28}
    assert set(first.utterances["gender"]) == set(GENDERS)
    assert first.utterances["samples"].between(4_000, 48_000).all()


@needs_espeak
def test_full_disk_leaves_no_files_and_files_of_a_killed_writer_are_removed(tmp_path, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "synthesise", disk_full)
    with pytest.raises(CorpusError, match="No space left on device. Free some space"):
        list_synthetic(tmp_path, (), size=SMALL)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.undo()
    root = next(tmp_path.iterdir()).with_suffix("")
    (tmp_path / f"{root.name}.0123abcd.tmp" / "ENG_DEU").mkdir(parents=True)
    corpus = build(list_synthetic(tmp_path, (), size=SMALL))
    assert corpus.notes[0] == "Synthetic speech without planted gaps. It says nothing about people."
    assert sorted(path.name for path in tmp_path.iterdir()) == [root.name, f"{root.name}.lock"]
    (root / "ENG_DEU" / "deu_test.csv").unlink()
    with pytest.raises(CorpusError, match=rf"deu_test\.csv does not exist.*Or remove {root}"):
        list_synthetic(tmp_path, (), size=SMALL)


@needs_espeak
def test_failure_of_espeak_is_reported(tmp_path):
    from study.data.corpora.synthetic.espeak import synthesise

    job = {"voice": "xx", "text": "a", "pitch": 50, "range": 50, "rate": 175, "level": -30.0, "path": None}
    with pytest.raises(RuntimeError, match="espeak-ng has no voice xx") as caught:
        synthesise([job])
    assert "Traceback" not in str(caught.value)


@needs_espeak
def test_clip_has_the_requested_level(tmp_path):
    import numpy as np

    from study.data.corpora import read_audio
    from study.data.corpora.synthetic.espeak import synthesise

    path = str(tmp_path / "a.wav")
    job = {
        "voice": "de+f2",
        "text": "Der Laden ist zu.",
        "pitch": 50,
        "range": 50,
        "rate": 175,
        "level": -30.0,
        "path": path,
    }
    assert synthesise([{**job, "path": path}]) == [len(read_audio(path))]
    assert 20 * np.log10(np.sqrt(np.mean(read_audio(path) ** 2))) == pytest.approx(-30.0, abs=0.05)


def test_missing_espeak_is_reported_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=re.escape("pip install '.[synthetic]'")):
        load_corpus(CorpusSettings(planted_gaps=()), tmp_path)
