from __future__ import annotations

import shutil

import pytest

from study.corpora import UTTERANCE, CorpusError, load_corpus
from study.corpora.meld_st import read_meld_st
from tests.corpora.builders import row, write_pair, write_wav


def both_pairs(root, n=1):
    """Dialogues 1, 2, 3 in train, dev, test of both pairs, with n utterances each."""
    splits = {s: [row(d, u) for u in range(n)] for d, s in ((1, "train"), (2, "dev"), (3, "test"))}
    write_pair(root, "ENG_DEU", splits)
    write_pair(root, "ENG_JPN", splits)
    return root


def test_english_of_both_pairs_is_one_utterance(tmp_path):
    corpus = load_corpus(f"meld-st:{both_pairs(tmp_path)}", (), tmp_path)
    table = corpus.utterances
    assert tuple(table.columns) == UTTERANCE
    assert table["utterance_id"].tolist() == sorted(
        f"{language}_s2e7_d{d}_u0" for language in ("en", "de", "ja") for d in (1, 2, 3)
    )
    assert corpus.name == "meld-st"
    assert corpus.notes == corpus.skipped == ()
    first = table.set_index("utterance_id").loc["ja_s2e7_d2_u0"]
    assert first["path"] == str(tmp_path / "ENG_JPN" / "JPN" / "dev" / "dev_0.wav")
    assert first["transcript"] == "Japanese of Line 2 0."
    assert (first["gender"], first["split"], first["dialogue"]) == ("female", "dev", "s2e7_d2")
    assert (first["samples"], first["sample_rate"]) == (100, 16_000)


def test_english_with_another_text_is_another_utterance(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0, "Another  text.")]})
    table = read_meld_st(tmp_path).utterances
    english = table[(table["language"] == "en") & (table["dialogue"] == "s2e7_d1")]
    assert sorted(english["transcript"]) == ["Another text.", "Line 1 0."]
    assert english["utterance_id"].str.fullmatch("en_s2e7_d1_u0_[0-9a-f]{6}").all()


def test_blanks_and_number_formats_do_not_make_another_utterance(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0, "Line  1 0. ", season="2.0")]})
    assert len(read_meld_st(tmp_path).utterances) == 9


def test_a_dialogue_goes_to_its_most_evaluated_side_in_all_languages(tmp_path):
    write_pair(
        tmp_path, "ENG_DEU", {"train": [row(1, 0), row(1, 1), row(4, 0)], "dev": [row(2, 0)], "test": [row(3, 0)]}
    )
    write_pair(
        tmp_path, "ENG_JPN", {"train": [row(4, 0), row(2, 1)], "dev": [row(2, 2)], "test": [row(1, 2), row(3, 0)]}
    )
    corpus = read_meld_st(tmp_path)
    sides = corpus.utterances.groupby("dialogue")["split"].unique().map(list).to_dict()
    assert sides == {"s2e7_d1": ["test"], "s2e7_d2": ["dev"], "s2e7_d3": ["test"], "s2e7_d4": ["train"]}
    # from train: two utterances of dialogue 1 and one of dialogue 2, in two languages each
    assert corpus.notes == ("6 of 20 rows were moved so that a dialogue is on one side of the split in all languages.",)


def test_the_same_numbers_in_another_episode_are_another_dialogue(tmp_path):
    splits = {"train": [row(1, 0)], "dev": [row(1, 0, episode=8)], "test": [row(1, 0, season=3)]}
    write_pair(tmp_path, "ENG_DEU", splits)
    corpus = read_meld_st(tmp_path)
    assert corpus.utterances["dialogue"].nunique() == 3
    assert corpus.notes == ()


def test_missing_clips_are_counted_and_english_is_taken_from_the_other_pair(tmp_path):
    both_pairs(tmp_path, n=10)  # 90 utterances
    (tmp_path / "ENG_DEU/ENG/train/train_4.wav").unlink()
    gone = [tmp_path / "ENG_DEU/DEU/dev/dev_3.wav", tmp_path / "ENG_JPN/JPN/test/test_0.wav"]
    for path in gone:
        path.unlink()
    corpus = read_meld_st(tmp_path)
    assert corpus.skipped == tuple(f"{path}: no such file" for path in gone)
    assert corpus.notes == ("2 of 90 utterances have no clip on disk and were skipped.",)
    table = corpus.utterances.set_index("utterance_id")
    assert len(table) == 88
    assert table.loc["en_s2e7_d1_u4", "path"] == str(tmp_path / "ENG_JPN/ENG/train/train_4.wav")
    assert table.loc["en_s2e7_d1_u5", "path"] == str(tmp_path / "ENG_DEU/ENG/train/train_5.wav")


def test_more_than_one_in_twenty_missing_is_an_error(tmp_path):
    both_pairs(tmp_path, n=10)
    for i in range(5):  # 5 of 90
        (tmp_path / f"ENG_DEU/DEU/dev/dev_{i}.wav").unlink()
    with pytest.raises(CorpusError, match=r"5 of 90 clips are missing, more than 5%.*dev_0\.wav"):
        read_meld_st(tmp_path)


def test_one_pair_alone_is_read(tmp_path):
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0)], "dev": [row(2, 0)], "test": [row(3, 0)]})
    assert sorted(read_meld_st(tmp_path).utterances["language"].unique()) == ["en", "ja"]


def test_repeated_rows_are_left_out_and_counted(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0), row(1, 0)]})
    corpus = read_meld_st(tmp_path)
    assert len(corpus.utterances) == 9
    assert corpus.notes == ("2 rows that repeat another row of the same language were left out.",)


def test_unknown_genders_are_noted(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0, speaker="Director")]})
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0, speaker="Director")]})
    assert read_meld_st(tmp_path).notes == ("3 of 9 utterances have no known gender and enter no gap.",)
    (tmp_path / "genders.csv").write_text("speaker,gender\nDirector,male\n")
    corpus = read_meld_st(tmp_path)
    assert corpus.notes == ()
    assert corpus.utterances["gender"].value_counts().to_dict() == {"female": 6, "male": 3}


def test_the_hash_follows_the_content_and_not_the_place(tmp_path):
    here = both_pairs(tmp_path / "here")
    there = shutil.copytree(here, tmp_path / "there")
    first = read_meld_st(here).content_hash
    assert len(first) == 12
    assert read_meld_st(there).content_hash == first
    write_wav(there / "ENG_DEU/DEU/dev/dev_0.wav", 101)
    longer = read_meld_st(there).content_hash
    write_pair(there, "ENG_DEU", {"dev": [row(2, 0, emotion="anger")]})
    assert len({first, longer, read_meld_st(there).content_hash}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"emotion": "bored"},
            r"deu_train\.csv, row 3: emotion 'bored' is none of neutral, joy, surprise, anger,",
        ),
        ({"id": 0}, r"deu_train\.csv, row 3: id '0' occurs twice"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, changes, message):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0), row(1, 1, **changes)]})
    with pytest.raises(CorpusError, match=message):
        read_meld_st(tmp_path)


def test_a_faulty_folder_is_named(tmp_path):
    with pytest.raises(CorpusError, match="absent is not a folder"):
        read_meld_st(tmp_path / "absent")
    with pytest.raises(CorpusError, match="neither ENG_DEU nor ENG_JPN"):
        read_meld_st(tmp_path)
    both_pairs(tmp_path)
    csv = tmp_path / "ENG_JPN" / "jpn_valid.csv"
    text = csv.read_text()
    for content, message in (
        (text.replace("speaker", "who").replace("season", "year"), "lacks the columns season, speaker"),
        (text.splitlines()[0], "has no rows"),
        ("", "cannot be read as a UTF-8 CSV"),
        ('a,b\n"open', "cannot be read as a UTF-8 CSV"),
    ):
        csv.write_text(content)
        with pytest.raises(CorpusError, match=rf"jpn_valid\.csv {message}"):
            read_meld_st(tmp_path)
    csv.unlink()
    with pytest.raises(CorpusError, match=r"jpn_valid\.csv does not exist"):
        read_meld_st(tmp_path)


def test_a_split_that_moving_emptied_is_an_error(tmp_path):
    splits = {"train": [row(1, 0)], "dev": [row(1, 1)], "test": [row(3, 0)]}
    write_pair(tmp_path, "ENG_DEU", splits)
    with pytest.raises(CorpusError, match="the train split of language de is empty"):
        read_meld_st(tmp_path)


def test_an_unknown_corpus_is_an_error(tmp_path):
    for spec in ("meld", "meld-st:", "manifest", "embedded:x"):
        with pytest.raises(CorpusError, match="use embedded, meld-st:DIR or manifest:FILE"):
            load_corpus(spec, (), tmp_path)
