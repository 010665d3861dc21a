from __future__ import annotations

import shutil

import pytest

from study.config.settings import CorpusSettings
from study.data.corpora import UTTERANCE, CorpusError, load_corpus
from study.data.corpora.meld_st import list_meld_st
from study.data.corpora.splits import leaks
from tests.study.data.corpora.builders import built, row, write_pair, write_wav

GUESSED = (
    "The genders of 1 characters (9 of 9 utterances) come from their names; python -m study.data.corpora check lists "
    "them, "
    "and a genders.csv overrides them."
)


def read_meld_st(root, split="parallel", **settings):
    return built(list_meld_st(root, split), **settings)


def both_pairs(root, n=1):
    """Dialogues 1, 2, 3 in train, dev, test of both pairs, with n utterances each."""
    splits = {s: [row(d, u) for u in range(n)] for d, s in ((1, "train"), (2, "dev"), (3, "test"))}
    write_pair(root, "ENG_DEU", splits)
    write_pair(root, "ENG_JPN", splits)
    return root


def test_english_of_both_pairs_is_one_utterance(tmp_path):
    corpus = load_corpus(CorpusSettings(spec=f"meld-st:{both_pairs(tmp_path)}"), tmp_path)
    table = corpus.utterances
    assert tuple(table.columns) == UTTERANCE
    assert table["utterance_id"].tolist() == sorted(
        f"{language}_s2e7_d{d}_u0" for language in ("en", "de", "ja") for d in (1, 2, 3)
    )
    assert corpus.name == "meld-st"
    assert (corpus.notes, corpus.skipped) == ((GUESSED,), ())
    first = table.set_index("utterance_id").loc["ja_s2e7_d2_u0"]
    assert first["path"] == str(tmp_path / "ENG_JPN" / "JPN" / "dev" / "dev_0.wav")
    assert first["transcript"] == "Japanese of Line 2 0."
    assert (first["gender"], first["split"], first["dialogue"]) == ("female", "dev", "s2e7_d2")
    assert (first["samples"], first["sample_rate"]) == (1600, 16_000)


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


def test_parallel_utterances_go_to_their_most_evaluated_side_and_whole_dialogues_stay_whole(tmp_path):
    write_pair(
        tmp_path, "ENG_DEU", {"train": [row(1, 0), row(1, 1), row(4, 0)], "dev": [row(2, 0)], "test": [row(3, 0)]}
    )
    write_pair(
        tmp_path,
        "ENG_JPN",
        {"train": [row(4, 0), row(2, 1), row(2, 0)], "dev": [row(2, 2)], "test": [row(1, 2), row(3, 0)]},
    )
    corpus = read_meld_st(tmp_path)
    sides = corpus.utterances.groupby(["dialogue", "language"])["split"].unique().map(list).to_dict()
    # dialogue 1 is whole in either pair; ENG_JPN tears dialogue 2, of which only utterance 0 is in both pairs
    assert sides["s2e7_d1", "en"] == sides["s2e7_d1", "de"] == sides["s2e7_d1", "ja"] == ["test"]
    assert sides["s2e7_d4", "ja"] == ["train"]
    ids = corpus.utterances.set_index("utterance_id")["split"]
    assert [ids[f"ja_s2e7_d2_u{u}"] for u in range(3)] == ["dev", "train", "dev"]
    # from train: two utterances of dialogue 1 and one of dialogue 2, in two languages each
    assert corpus.notes[0] == "6 of 22 rows were moved so that parallel utterances are on one side of the split."


def test_the_authors_split_is_kept_with_its_leaks_on_request(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0), row(3, 0)], "dev": [row(2, 0)], "test": [row(3, 1)]})
    listing = list_meld_st(tmp_path, "official")
    assert (listing.rows["split"] == listing.rows["official"]).all()
    corpus = built(listing)
    ids = corpus.utterances.set_index("utterance_id")["split"]
    assert ids["en_s2e7_d3_u0_train"] == "train" and ids["en_s2e7_d3_u0_test"] == "test"
    assert ids["en_s2e7_d1_u0"] == "train"  # in train of both pairs, so it is deduplicated as ever
    # the English clip, and the parallel utterances of which it is one
    assert corpus.notes[1].startswith("The split lets 2 clips or parallel utterances stand on several sides")
    assert not leaks(list_meld_st(tmp_path).rows.assign(digest=""))


def test_every_leak_is_named(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0), row(3, 0)], "dev": [row(2, 0)], "test": [row(3, 1)]})
    found = leaks(list_meld_st(tmp_path, "official").rows.assign(digest=""))
    assert found == [
        f"the same en clip on several sides: train: {tmp_path}/ENG_JPN/ENG/train/train_1.wav; "
        f"test: {tmp_path}/ENG_DEU/ENG/test/test_0.wav",
        "parallel utterances s2e7_d3_u0 (rachel) on different sides: train: en, ja; test: de, en",
    ]


def speakers_of_a_series():
    """Six leads with ten lines each and eight guests with one; the leads are in every split."""
    leads = ("Rachel", "Monica", "Phoebe", "Ross", "Joey", "Chandler")
    guests = ("Janice", "Mona", "Emily", "Carol", "Gunther", "Tag", "Pete", "Doug")
    lines = [(speaker, split) for speaker in leads for split in ("train", "dev", "test") for _ in range(4)]
    lines += [(speaker, "train") for speaker in guests for _ in range(2)]
    splits = {"train": [], "dev": [], "test": []}
    for number, (speaker, split) in enumerate(lines):
        splits[split].append(row(number, 0, speaker=speaker))
    return splits


def test_speakers_are_held_out_in_all_languages(tmp_path):
    splits = speakers_of_a_series()
    splits["train"] += [row(900, 0, speaker="Rachel and Monica"), row(901, 0, speaker="Ross/Waiter")]
    splits["train"] += [row(902, 0, speaker="Rachel and Janice")]
    for pair in ("ENG_DEU", "ENG_JPN"):
        write_pair(tmp_path, pair, splits)
    corpus = read_meld_st(tmp_path, "speaker")
    table = corpus.utterances
    sides = table.groupby("speaker")["split"].unique().map(list)
    assert sides.map(len).max() == 1
    # a woman who leads has 12 of 44 lines, more than the 20 % of a side; the four guests with 2 each fit in
    assert (sides[["Rachel", "Joey", "Rachel and Monica", "Ross/Waiter"]].map(lambda side: side[0]) == "train").all()
    held = table[(table["split"] != "train") & (table["gender"] == "female")]
    assert held.groupby("split")["speaker"].nunique().to_dict() == {"dev": 2, "test": 2}
    assert "Rachel and Janice" not in sides.index
    assert corpus.notes[:2] == (
        "The speakers were divided into train, dev and test; the authors' split was not used.",
        "4 rows in which voices of several sides speak together were left out.",
    )


def test_the_same_numbers_in_another_episode_are_another_dialogue(tmp_path):
    splits = {"train": [row(1, 0)], "dev": [row(1, 0, episode=8)], "test": [row(1, 0, season=3)]}
    write_pair(tmp_path, "ENG_DEU", splits)
    corpus = read_meld_st(tmp_path)
    assert corpus.utterances["dialogue"].nunique() == 3
    assert not any("moved" in note for note in corpus.notes)


def test_missing_clips_are_counted_and_english_is_taken_from_the_other_pair(tmp_path):
    both_pairs(tmp_path, n=10)  # 90 utterances
    (tmp_path / "ENG_DEU/ENG/train/train_4.wav").unlink()
    gone = [tmp_path / "ENG_DEU/DEU/dev/dev_3.wav", tmp_path / "ENG_JPN/JPN/test/test_0.wav"]
    for path in gone:
        path.unlink()
    corpus = read_meld_st(tmp_path)
    csvs = (tmp_path / "ENG_DEU/deu_valid.csv", tmp_path / "ENG_JPN/jpn_test.csv")
    assert corpus.skipped == (
        f"{csvs[0]}, row 5: {gone[0]}: no such file",
        f"{csvs[1]}, row 2: {gone[1]}: no such file",
    )
    assert corpus.notes[1:] == ("2 of 90 utterances have no clip on disk and were skipped.",)
    table = corpus.utterances.set_index("utterance_id")
    assert len(table) == 88
    assert table.loc["en_s2e7_d1_u4", "path"] == str(tmp_path / "ENG_JPN/ENG/train/train_4.wav")
    assert table.loc["en_s2e7_d1_u5", "path"] == str(tmp_path / "ENG_DEU/ENG/train/train_5.wav")


def test_more_than_one_in_twenty_missing_is_an_error(tmp_path):
    both_pairs(tmp_path, n=10)
    for i in range(5):  # 5 of 90
        (tmp_path / f"ENG_DEU/DEU/dev/dev_{i}.wav").unlink()
    with pytest.raises(CorpusError, match=r"(?s)5 of 90 clips are missing, more than 5%.*row 2: .*dev_0\.wav"):
        read_meld_st(tmp_path)


def test_one_pair_alone_is_read(tmp_path):
    write_pair(tmp_path, "ENG_JPN", {"train": [row(1, 0)], "dev": [row(2, 0)], "test": [row(3, 0)]})
    assert sorted(read_meld_st(tmp_path).utterances["language"].unique()) == ["en", "ja"]


def test_repeated_rows_are_left_out_and_counted(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0), row(1, 0)]})
    corpus = read_meld_st(tmp_path)
    assert len(corpus.utterances) == 9
    assert corpus.notes[0] == "2 rows that repeat another row of the same language were left out."


def test_unknown_genders_are_counted_and_trained_on_if_asked(tmp_path):
    for pair in ("ENG_DEU", "ENG_JPN"):
        rows = {"train": [row(1, 0), row(1, 1, speaker="Director")], "test": [row(3, 0, speaker="All")]}
        write_pair(tmp_path, pair, {**rows, "dev": [row(2, 0)]})
    corpus = read_meld_st(tmp_path)
    note = "6 of 12 utterances have no known gender and enter no gap"
    assert corpus.notes[1:] == (f"{note}; the 3 of them in train were left out.",)
    assert corpus.utterances.groupby("split")["speaker"].unique().map(list).to_dict() == {
        "train": ["Rachel"], "dev": ["Rachel"], "test": ["All"],
    }  # fmt: skip
    trained = read_meld_st(tmp_path, unknown_gender="train")
    assert trained.notes[1:] == (f"{note}.",)
    assert len(trained.utterances) == 12
    (tmp_path / "genders.csv").write_text("speaker,gender\nDirector,male\nrachel,male\nAll,female\n")
    own = read_meld_st(tmp_path)
    assert own.notes == ()  # nothing is guessed any more
    assert own.utterances["gender"].value_counts().to_dict() == {"male": 9, "female": 3}


def test_the_hash_follows_the_content_and_not_the_place(tmp_path):
    here = both_pairs(tmp_path / "here")
    there = shutil.copytree(here, tmp_path / "there")
    first = read_meld_st(here).content_hash
    assert len(first) == 12
    assert read_meld_st(there).content_hash == first
    write_wav(there / "ENG_DEU/DEU/dev/dev_0.wav", 1700)
    longer = read_meld_st(there).content_hash
    write_pair(there, "ENG_DEU", {"dev": [row(2, 0, emotion="anger")]})
    assert len({first, longer, read_meld_st(there).content_hash}) == 3


def test_every_faulty_row_of_every_file_is_named_at_once(tmp_path):
    both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0), row(1, 1, emotion="bored", utt_id="x"), row(1, 2, id=0)]})
    write_pair(tmp_path, "ENG_JPN", {"dev": [row(2, 0, emotion="")]})
    with pytest.raises(CorpusError) as caught:
        list_meld_st(tmp_path)
    title, *errors = str(caught.value).splitlines()
    assert title == "4 errors:"
    train, valid = tmp_path / "ENG_DEU/deu_train.csv", tmp_path / "ENG_JPN/jpn_valid.csv"
    assert [message.partition(" is ")[0].partition(" occurs")[0] for message in errors] == [
        f"{train}, row 3: utt_id 'x'", f"{train}, row 4: id '0'", f"{train}, row 3: emotion 'bored'",
        f"{valid}, row 2: emotion ''",
    ]  # fmt: skip


def test_numbers_written_as_decimals_are_read(tmp_path):
    both_pairs(tmp_path)
    decimals = {"id": "0.0", "dia_id": "1.0", "utt_id": "0.0", "season": "2.0", "episode": "7.0"}
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0, **decimals)]})
    table = read_meld_st(tmp_path).utterances.set_index("utterance_id")
    assert len(table) == 9
    assert table.loc["de_s2e7_d1_u0", "path"].endswith("train_0.wav")


def test_a_faulty_folder_is_named(tmp_path):
    with pytest.raises(CorpusError, match="absent is not a folder"):
        read_meld_st(tmp_path / "absent")
    with pytest.raises(CorpusError, match="neither ENG_DEU nor ENG_JPN"):
        read_meld_st(tmp_path)
    both_pairs(tmp_path)
    csv = tmp_path / "ENG_JPN" / "jpn_valid.csv"
    text = csv.read_text()
    for content, message in (
        (text.replace("speaker", "who").replace("season", "year"), " lacks the columns season, speaker"),
        (text.splitlines()[0], " has no rows"),
        ("", " cannot be read as a UTF-8 CSV"),
        ('a,b\n"open', ", row 2: unexpected end of data"),
    ):
        csv.write_text(content)
        with pytest.raises(CorpusError, match=rf"jpn_valid\.csv{message}"):
            read_meld_st(tmp_path)
    csv.unlink()
    with pytest.raises(CorpusError, match=r"jpn_valid\.csv does not exist"):
        read_meld_st(tmp_path)


def test_a_split_that_moving_emptied_is_an_error(tmp_path):
    write_pair(tmp_path, "ENG_DEU", {"train": [row(1, 0)], "dev": [row(2, 0)], "test": [row(3, 0)]})
    write_pair(tmp_path, "ENG_JPN", {"train": [row(4, 0)], "dev": [row(2, 0)], "test": [row(1, 0)]})
    with pytest.raises(CorpusError, match="the train split of language de is empty"):
        read_meld_st(tmp_path)


def test_an_unknown_corpus_is_an_error(tmp_path):
    for spec in ("meld", "meld-st:", "manifest", "synthetic:x"):
        with pytest.raises(CorpusError, match="use synthetic, meld-st:DIR or manifest:FILE"):
            load_corpus(CorpusSettings.model_construct(spec=spec, planted_gaps=()), tmp_path)
