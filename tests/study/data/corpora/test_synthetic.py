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
from study.data.corpora.synthetic.corpus import list_synthetic, write
from study.data.corpora.synthetic.dialogues import FULL, HABIT, HABIT_SIGN, SHIFT, SMALL, VARIANTS, write_dialogues
from study.data.corpora.synthetic.planted_gaps import PLANTED_GAP_NAMES, PLANTED_GAPS, chosen
from study.data.corpora.synthetic.sentences import CUE, PLAIN
from tests.study.data.corpora.builders import built

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeakng-loader is absent"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of the small corpus with the given plants, written once a module."""
    base = tmp_path_factory.mktemp("synthetic")
    roots: dict[tuple[str, ...], Path] = {}

    def get(*planted_gaps: str) -> Path:
        if planted_gaps not in roots:
            root = base / ("+".join(planted_gaps) or "twin")
            write(root, planted_gaps, size=SMALL)
            roots[planted_gaps] = root
        return roots[planted_gaps]

    return get


def files(root: Path) -> dict[str, str]:
    """Relative name -> hash, of everything but corpus.json."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and path.name != "corpus.json"
    }


def group_of_clips(root: Path) -> dict[str, tuple[str, str, str]]:
    """Relative name of a clip -> (language, gender, split), from the CSV files."""
    genders = pd.read_csv(root / "genders.csv").set_index("speaker")["gender"]
    groups = {}
    for pair, prefix, folder, language in (("ENG_DEU", "deu", "DEU", "de"), ("ENG_JPN", "jpn", "JPN", "ja")):
        for split, name in (("train", "train"), ("dev", "valid"), ("test", "test")):
            for row in pd.read_csv(root / pair / f"{prefix}_{name}.csv").itertuples():
                for side, spoken in (("ENG", "en"), (folder, language)):
                    clip = f"{pair}/{side}/{split}/{split}_{row.id}.wav"
                    groups[clip] = (spoken, genders[row.speaker], split)
    return groups


# The text and the cast: no synthesis needed.


def test_the_full_size_is_the_one_that_resolves_a_gap():
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
    dialogues = table.groupby("dialogue")  # the last ones of a split may be smaller
    assert dialogues["speaker"].nunique().isin([2, 3, 4]).mean() > 0.95
    assert dialogues.size().between(4, 8).mean() > 0.95
    assert dialogues.size().max() == 8
    assert (dialogues["split"].nunique() == 1).all()


def test_half_of_the_utterances_have_a_cue_word_and_both_genders_the_same_sentences():
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


def test_no_sentence_is_in_two_splits_and_no_cue_sentence_is_in_two_emotions():
    everything = [s for part in PLAIN.values() for s in part]
    everything += [s for part in CUE.values() for sentences in part.values() for s in sentences]
    for language in ("en", "de", "ja"):
        texts = [getattr(sentence, language) for sentence in everything]
        assert len(set(texts)) == len(texts) == 14 + 7 + 7 + 7 * (6 + 3 + 3)
    assert all(list(part) == list(EMOTIONS) for part in CUE.values())


def test_the_words_of_held_out_cues_were_heard_in_training():
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


def test_prosody_is_neutral_plus_habit_plus_cue_plus_jitter():
    utterance = next(u for u in write_dialogues(0) if u.emotion == "sadness" and u.character.gender == "female")
    utterance = dataclasses.replace(utterance, jitter=0 * utterance.jitter)
    neutral = utterance.character.prosody
    assert HABIT_SIGN["en", "female"] == -1
    full, weak = (utterance.prosody("en", cue) for cue in (1.0, 0.5))
    assert full["pitch"] == round(neutral[0] - 14.0)
    assert weak["pitch"] == round(neutral[0] - 7.0)
    assert full["level"] == pytest.approx(neutral[3] - 1.5 - 4.0, abs=0.005)
    assert weak["level"] == pytest.approx(neutral[3] - 1.5 - 2.0, abs=0.005)


def test_genders_share_their_neutrals_and_no_gender_has_the_habit_more_often():
    scenes = write_dialogues(0)
    neutrals = {u.character.name: tuple(u.character.prosody) for u in scenes}
    assert all(neutrals[f"F{i:02d}"] == neutrals[f"M{i:02d}"] for i in range(1, 41))
    assert len({neutrals[f"F{i:02d}"] for i in range(1, 41)}) == 40
    assert abs(sum(HABIT_SIGN[language, "female"] for language in LANGUAGES)) == 1
    assert all(HABIT_SIGN[language, "female"] == -HABIT_SIGN[language, "male"] for language in LANGUAGES)
    assert HABIT[0] == HABIT[1] == 0  # pitch and range carry no habit
    assert set(SHIFT) == set(EMOTIONS)
    assert len(VARIANTS["female"]) == len(VARIANTS["male"]) == 10


def test_the_table_of_plants():
    assert PLANTED_GAP_NAMES == ("scarcity", "prior", "cue")
    assert [planted_gap.closable for planted_gap in PLANTED_GAPS] == [True, True, False]
    assert len({planted_gap.language for planted_gap in PLANTED_GAPS}) == 3
    assert [planted_gap.name for planted_gap in chosen(["cue", "scarcity"])] == ["scarcity", "cue"]
    with pytest.raises(CorpusError, match="planted gap 'typo' is not known: use scarcity, prior, cue"):
        chosen(["typo"])


def test_no_plant_takes_an_english_utterance_away():
    """An utterance that both pairs left out would be gone from English too."""
    scenes = write_dialogues(0)
    dropped = synthetic._dropped(scenes, PLANTED_GAPS, seed=0)
    assert {language: len(rows) for language, rows in dropped.items()} == {"en": 0, "ja": 4 * 78, "de": 7 * 72}
    assert not dropped["de"] & dropped["ja"]
    assert {scenes[i].character.split for rows in dropped.values() for i in rows} == {"train"}


# The files.


@needs_espeak
def test_two_writes_agree_byte_for_byte_and_another_seed_does_not(written, tmp_path):
    root = written()
    again = write(tmp_path / "again", (), size=SMALL)
    assert files(root) == files(tmp_path / "again")
    about = json.loads((root / "corpus.json").read_text())
    assert about == {
        "version": synthetic.VERSION, "seed": 0, "planted_gaps": [],
        "size": {"characters": [2, 2, 2], "each": [2, 1, 1]},
        "sha256": again,
    }  # fmt: skip
    assert write(tmp_path / "other", (), seed=1, size=SMALL) != again


@needs_espeak
def test_the_layout_is_that_of_meld_st(written):
    root = written()
    table = pd.read_csv(root / "ENG_JPN" / "jpn_valid.csv")
    assert list(table.columns) == [
        "id", "dia_id", "utt_id", "emotion", "sentiment", "English", "Japanese", "season", "episode", "speaker",
        "English_begin_time", "English_end_time", "Japanese_begin_time", "Japanese_end_time",
    ]  # fmt: skip
    assert len(table) == 2 * 2 * 7  # characters, of two genders, once each emotion
    names = files(root)
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
def test_a_plant_changes_its_group_and_nothing_else(written, planted_gaps):
    twin, planted = files(written()), files(written(*planted_gaps))
    groups = group_of_clips(written())
    kept = group_of_clips(written(*planted_gaps))
    clips = {name for name in twin if name.endswith(".wav")}
    changed = {groups[name] for name in clips & set(planted) if twin[name] != planted[name]}
    assert changed == (
        {("en", "female", split) for split in ("train", "dev", "test")} if "cue" in planted_gaps else set()
    )
    assert not set(planted) - set(twin)
    gone = [groups[name] for name in set(groups) - set(kept) if "/ENG/" not in name]
    expected = []
    if (
        "scarcity" in planted_gaps
    ):  # two characters, twice each emotion: 4 of an emotion, of which 0.1 leaves at least 1
        expected += [("de", "male", "train")] * (7 * 3)
    if "prior" in planted_gaps:  # 0.03 of 4 leaves at least 1, for four of the emotions
        expected += [("ja", "female", "train")] * (4 * 3)
    assert sorted(gone) == sorted(expected)
    for name in ("ENG_DEU/deu_valid.csv", "ENG_DEU/deu_test.csv", "ENG_JPN/jpn_valid.csv", "ENG_JPN/jpn_test.csv"):
        if "cue" not in planted_gaps:  # whose clips have other lengths, which the time stamps show
            assert twin[name] == planted[name]


@needs_espeak
def test_it_is_written_once_by_callers_at_the_same_time_and_read_by_the_meld_st_reader(tmp_path, monkeypatch):
    calls = []
    real = synthetic.write
    monkeypatch.setattr(synthetic, "write", lambda *args: calls.append(args) or real(*args))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: built(list_synthetic(tmp_path, PLANTED_GAP_NAMES, size=SMALL)), range(2))
    assert len(calls) == 1
    assert first.content_hash == second.content_hash
    pd.testing.assert_frame_equal(first.utterances, second.utterances)
    assert first.name == "synthetic"
    assert first.notes[0].startswith("Synthetic speech with planted gaps (German men have a tenth")
    assert first.notes[0].endswith("): no evidence about people.")
    assert len(first.skipped) == 2
    assert first.notes[1:] == (f"2 of {len(first.utterances) + 2} utterances have no clip on disk and were skipped.",)
    counts = first.utterances.groupby(["language", "split"]).size()
    assert counts["en"].to_dict() == {"train": 56, "dev": 28, "test": 28}
    assert set(first.utterances["gender"]) == set(GENDERS)
    assert first.utterances["samples"].between(4_000, 48_000).all()


@needs_espeak
def test_a_full_disk_leaves_nothing_behind_and_a_killed_writer_is_cleaned_up_after(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic, "synthesise", full)
    with pytest.raises(CorpusError, match="No space left on device. Free some space"):
        list_synthetic(tmp_path, (), size=SMALL)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    monkeypatch.undo()
    root = next(tmp_path.iterdir()).with_suffix("")
    (tmp_path / f"{root.name}.0123abcd.tmp" / "ENG_DEU").mkdir(parents=True)
    corpus = built(list_synthetic(tmp_path, (), size=SMALL))
    assert corpus.notes[0] == "Synthetic speech without planted gaps: no evidence about people."
    assert sorted(path.name for path in tmp_path.iterdir()) == [root.name, f"{root.name}.lock"]
    (root / "ENG_DEU" / "deu_test.csv").unlink()
    with pytest.raises(CorpusError, match=rf"deu_test\.csv does not exist.*Or remove {root}"):
        list_synthetic(tmp_path, (), size=SMALL)


@needs_espeak
def test_a_synthesiser_that_fails_says_why(tmp_path):
    from study.data.corpora.synthetic.espeak import synthesise

    job = {"voice": "xx", "text": "a", "pitch": 50, "range": 50, "rate": 175, "level": -30.0, "path": None}
    with pytest.raises(RuntimeError, match="espeak-ng has no voice xx") as caught:
        synthesise([job])
    assert "Traceback" not in str(caught.value)


@needs_espeak
def test_a_clip_has_the_level_asked_for(tmp_path):
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


def test_without_the_synthesiser_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorpusError, match=re.escape("pip install '.[synthetic]'")):
        load_corpus(CorpusSettings(planted_gaps=()), tmp_path)


def test_the_full_size_is_the_default():
    assert FULL.characters == (20, 10, 10)
    assert FULL.each == (4, 5, 5)
