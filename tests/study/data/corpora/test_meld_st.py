"""The MELD-ST reader: deduplication, splits, genders, missing clips and errors."""

from __future__ import annotations

import shutil

import pytest

from study.config.settings import CorpusSettings
from study.data.corpora import CORPORA, CORPUS_COLUMNS, CorpusError, load_corpus
from study.data.corpora.meld_st import list_meld_st
from study.data.corpora.splits import find_leaks
from tests.study.data.corpora.builders import build, meld_row, write_pair, write_wav

GENDERS_FROM_NAMES = (
    "The genders of 1 characters (9 of 9 utterances) were derived from their names; "
    "python -m study.data.corpora check lists them, and a genders.csv overrides them."
)


def read_meld_st(root, split="parallel", **settings):
    return build(list_meld_st(root, split), **settings)


def write_both_pairs(root, n=1):
    """Write dialogues 1, 2, 3 to train, dev, test of both pairs, with n utterances each."""
    splits = {s: [meld_row(d, u) for u in range(n)] for d, s in ((1, "train"), (2, "dev"), (3, "test"))}
    write_pair(root, "ENG_DEU", splits)
    write_pair(root, "ENG_JPN", splits)
    return root


def test_english_clip_of_both_pairs_is_one_utterance(tmp_path):
    corpus = load_corpus(CorpusSettings(spec=f"meld-st:{write_both_pairs(tmp_path)}"), tmp_path)
    table = corpus.utterances
    assert tuple(table.columns) == CORPUS_COLUMNS
    assert table["utterance_id"].tolist() == sorted(
        f"{language}_s2e7_d{d}_u0" for language in ("en", "de", "ja") for d in (1, 2, 3)
    )
    assert corpus.name == "meld-st"
    assert (corpus.notes, corpus.skipped) == ((GENDERS_FROM_NAMES,), ())
    first = table.set_index("utterance_id").loc["ja_s2e7_d2_u0"]
    assert first["path"] == str(tmp_path / "ENG_JPN" / "JPN" / "dev" / "dev_0.wav")
    assert first["transcript"] == "Japanese of Line 2 0."
    assert (first["gender"], first["split"], first["dialogue"]) == ("female", "dev", "s2e7_d2")
    assert (first["samples"], first["sample_rate"]) == (1600, 16_000)


def test_english_clips_with_different_text_are_two_utterances(tmp_path):
    write_both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_JPN", {"train": [meld_row(1, 0, "Another  text.")]})
    table = read_meld_st(tmp_path).utterances
    english = table[(table["language"] == "en") & (table["dialogue"] == "s2e7_d1")]
    assert sorted(english["transcript"]) == ["Another text.", "Line 1 0."]
    assert english["utterance_id"].str.fullmatch("en_s2e7_d1_u0_[0-9a-f]{6}").all()


def test_blanks_and_number_formats_do_not_matter(tmp_path):
    write_both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_JPN", {"train": [meld_row(1, 0, "Line  1 0. ", season="2.0")]})
    assert len(read_meld_st(tmp_path).utterances) == 9


def test_parallel_utterances_move_to_the_most_evaluated_split_as_whole_dialogues(tmp_path):
    write_pair(
        tmp_path,
        "ENG_DEU",
        {"train": [meld_row(1, 0), meld_row(1, 1), meld_row(4, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(3, 0)]},
    )
    write_pair(
        tmp_path,
        "ENG_JPN",
        {
            "train": [meld_row(4, 0), meld_row(2, 1), meld_row(2, 0)],
            "dev": [meld_row(2, 2)],
            "test": [meld_row(1, 2), meld_row(3, 0)],
        },
    )
    corpus = read_meld_st(tmp_path)
    splits = corpus.utterances.groupby(["dialogue", "language"])["split"].unique().map(list).to_dict()
    # dialogue 1 is in one split of either pair; ENG_JPN divides dialogue 2, and only its utterance 0 is in both pairs
    assert splits["s2e7_d1", "en"] == splits["s2e7_d1", "de"] == splits["s2e7_d1", "ja"] == ["test"]
    assert splits["s2e7_d4", "ja"] == ["train"]
    ids = corpus.utterances.set_index("utterance_id")["split"]
    assert [ids[f"ja_s2e7_d2_u{u}"] for u in range(3)] == ["dev", "train", "dev"]
    # from train: two utterances of dialogue 1 and one of dialogue 2, in two languages each
    assert corpus.notes[0] == "6 of 22 rows were moved so that parallel utterances are in the same split."


def test_official_split_is_unchanged(tmp_path):
    write_both_pairs(tmp_path)
    write_pair(
        tmp_path,
        "ENG_JPN",
        {"train": [meld_row(1, 0), meld_row(3, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(3, 1)]},
    )
    listing = list_meld_st(tmp_path, "official")
    assert (listing.rows["split"] == listing.rows["official_split"]).all()
    corpus = build(listing)
    ids = corpus.utterances.set_index("utterance_id")["split"]
    assert ids["en_s2e7_d3_u0_train"] == "train" and ids["en_s2e7_d3_u0_test"] == "test"
    assert ids["en_s2e7_d1_u0"] == "train"  # in train of both pairs, so it is deduplicated
    # the English clip, and the parallel utterances of which it is one
    assert corpus.notes[1].startswith("2 clips or parallel utterances are in several splits")
    assert not find_leaks(list_meld_st(tmp_path).rows.assign(digest=""))


def test_every_leak_is_listed(tmp_path):
    write_both_pairs(tmp_path)
    write_pair(
        tmp_path,
        "ENG_JPN",
        {"train": [meld_row(1, 0), meld_row(3, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(3, 1)]},
    )
    leaks = find_leaks(list_meld_st(tmp_path, "official").rows.assign(digest=""))
    assert leaks == [
        f"the same en clip in several splits: train: {tmp_path}/ENG_JPN/ENG/train/train_1.wav; "
        f"test: {tmp_path}/ENG_DEU/ENG/test/test_0.wav",
        "parallel utterances s2e7_d3_u0 (rachel) in several splits: train: en, ja; test: de, en",
    ]


def speakers_of_a_series():
    """Return lines of six leads (twelve each, in every split) and eight guests (two each)."""
    leads = ("Rachel", "Monica", "Phoebe", "Ross", "Joey", "Chandler")
    guests = ("Janice", "Mona", "Emily", "Carol", "Gunther", "Tag", "Pete", "Doug")
    lines = [(speaker, split) for speaker in leads for split in ("train", "dev", "test") for _ in range(4)]
    lines += [(speaker, "train") for speaker in guests for _ in range(2)]
    splits = {"train": [], "dev": [], "test": []}
    for number, (speaker, split) in enumerate(lines):
        splits[split].append(meld_row(number, 0, speaker=speaker))
    return splits


def test_speaker_split_holds_speakers_out_in_all_languages(tmp_path):
    splits = speakers_of_a_series()
    splits["train"] += [meld_row(900, 0, speaker="Rachel and Monica"), meld_row(901, 0, speaker="Ross/Waiter")]
    splits["train"] += [meld_row(902, 0, speaker="Rachel and Janice")]
    for pair in ("ENG_DEU", "ENG_JPN"):
        write_pair(tmp_path, pair, splits)
    corpus = read_meld_st(tmp_path, "speaker")
    table = corpus.utterances
    splits_of_speaker = table.groupby("speaker")["split"].unique().map(list)
    assert splits_of_speaker.map(len).max() == 1
    # a female lead has 12 of 44 lines, more than the 20 % of a split; the four guests with 2 lines each fit in
    in_train = splits_of_speaker[["Rachel", "Joey", "Rachel and Monica", "Ross/Waiter"]]
    assert in_train.map(lambda names: names[0] == "train").all()
    held_out = table[(table["split"] != "train") & (table["gender"] == "female")]
    assert held_out.groupby("split")["speaker"].nunique().to_dict() == {"dev": 2, "test": 2}
    assert "Rachel and Janice" not in splits_of_speaker.index
    assert corpus.notes[:2] == (
        "The speakers were divided into train, dev and test; the authors' split was not used.",
        "4 rows in which speakers of several splits speak together were left out.",
    )


def test_same_dialogue_number_in_another_episode_is_another_dialogue(tmp_path):
    splits = {"train": [meld_row(1, 0)], "dev": [meld_row(1, 0, episode=8)], "test": [meld_row(1, 0, season=3)]}
    write_pair(tmp_path, "ENG_DEU", splits)
    corpus = read_meld_st(tmp_path)
    assert corpus.utterances["dialogue"].nunique() == 3
    assert not any("moved" in note for note in corpus.notes)


def test_missing_clips_are_skipped_and_english_comes_from_the_other_pair(tmp_path):
    write_both_pairs(tmp_path, n=10)  # 90 utterances
    (tmp_path / "ENG_DEU/ENG/train/train_4.wav").unlink()
    deleted = [tmp_path / "ENG_DEU/DEU/dev/dev_3.wav", tmp_path / "ENG_JPN/JPN/test/test_0.wav"]
    for path in deleted:
        path.unlink()
    corpus = read_meld_st(tmp_path)
    csvs = (tmp_path / "ENG_DEU/deu_valid.csv", tmp_path / "ENG_JPN/jpn_test.csv")
    assert corpus.skipped == (
        f"{csvs[0]}, row 5: {deleted[0]}: no such file",
        f"{csvs[1]}, row 2: {deleted[1]}: no such file",
    )
    assert corpus.notes[1:] == ("2 of 90 utterances have no clip on disk and were skipped.",)
    table = corpus.utterances.set_index("utterance_id")
    assert len(table) == 88
    assert table.loc["en_s2e7_d1_u4", "path"] == str(tmp_path / "ENG_JPN/ENG/train/train_4.wav")
    assert table.loc["en_s2e7_d1_u5", "path"] == str(tmp_path / "ENG_DEU/ENG/train/train_5.wav")


def test_more_than_5_percent_missing_clips_is_an_error(tmp_path):
    write_both_pairs(tmp_path, n=10)
    for i in range(5):  # 5 of 90
        (tmp_path / f"ENG_DEU/DEU/dev/dev_{i}.wav").unlink()
    with pytest.raises(CorpusError, match=r"(?s)5 of 90 clips are missing, more than 5%.*row 2: .*dev_0\.wav"):
        read_meld_st(tmp_path)


def test_single_pair_is_read(tmp_path):
    write_pair(tmp_path, "ENG_JPN", {"train": [meld_row(1, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(3, 0)]})
    assert sorted(read_meld_st(tmp_path).utterances["language"].unique()) == ["en", "ja"]


def test_repeated_rows_are_left_out_and_counted(tmp_path):
    write_both_pairs(tmp_path)
    write_pair(tmp_path, "ENG_DEU", {"train": [meld_row(1, 0), meld_row(1, 0)]})
    corpus = read_meld_st(tmp_path)
    assert len(corpus.utterances) == 9
    assert corpus.notes[0] == "2 rows that repeat another row of the same language were left out."


def test_unknown_genders_are_left_out_of_training_by_default(tmp_path):
    for pair in ("ENG_DEU", "ENG_JPN"):
        rows = {"train": [meld_row(1, 0), meld_row(1, 1, speaker="Director")], "test": [meld_row(3, 0, speaker="All")]}
        write_pair(tmp_path, pair, {**rows, "dev": [meld_row(2, 0)]})
    corpus = read_meld_st(tmp_path)
    note = "6 of 12 utterances have no known gender and count in no gap"
    assert corpus.notes[1:] == (f"{note}; the 3 of them in train were left out.",)
    assert corpus.utterances.groupby("split")["speaker"].unique().map(list).to_dict() == {
        "train": ["Rachel"], "dev": ["Rachel"], "test": ["All"],
    }  # fmt: skip
    trained = read_meld_st(tmp_path, unknown_gender="train")
    assert trained.notes[1:] == (f"{note}.",)
    assert len(trained.utterances) == 12
    (tmp_path / "genders.csv").write_text("speaker,gender\nDirector,male\nrachel,male\nAll,female\n")
    own = read_meld_st(tmp_path)
    assert own.notes == ()  # no gender is derived from a name
    assert own.utterances["gender"].value_counts().to_dict() == {"male": 9, "female": 3}


def test_content_hash_depends_on_content_and_not_on_the_folder(tmp_path):
    original = write_both_pairs(tmp_path / "original")
    copy = shutil.copytree(original, tmp_path / "copy")
    first = read_meld_st(original).content_hash
    assert len(first) == 12
    assert read_meld_st(copy).content_hash == first
    write_wav(copy / "ENG_DEU/DEU/dev/dev_0.wav", 1700)
    longer = read_meld_st(copy).content_hash
    write_pair(copy, "ENG_DEU", {"dev": [meld_row(2, 0, emotion="anger")]})
    assert len({first, longer, read_meld_st(copy).content_hash}) == 3


def test_every_faulty_row_of_every_file_is_named(tmp_path):
    write_both_pairs(tmp_path)
    write_pair(
        tmp_path,
        "ENG_DEU",
        {"train": [meld_row(1, 0), meld_row(1, 1, emotion="bored", utt_id="x"), meld_row(1, 2, id=0)]},
    )
    write_pair(tmp_path, "ENG_JPN", {"dev": [meld_row(2, 0, emotion="")]})
    with pytest.raises(CorpusError) as caught:
        list_meld_st(tmp_path)
    title, *errors = str(caught.value).splitlines()
    assert title == "4 errors:"
    train, valid = tmp_path / "ENG_DEU/deu_train.csv", tmp_path / "ENG_JPN/jpn_valid.csv"
    assert [message.partition(" is ")[0].partition(" occurs")[0].partition(";")[0] for message in errors] == [
        f"{train}, row 3: utt_id 'x'", f"{train}, row 4: id '0'", f"{train}, row 3: unknown emotion 'bored'",
        f"{valid}, row 2: unknown emotion ''",
    ]  # fmt: skip


def test_numbers_written_as_decimals_are_read(tmp_path):
    write_both_pairs(tmp_path)
    decimals = {"id": "0.0", "dia_id": "1.0", "utt_id": "0.0", "season": "2.0", "episode": "7.0"}
    write_pair(tmp_path, "ENG_DEU", {"train": [meld_row(1, 0, **decimals)]})
    table = read_meld_st(tmp_path).utterances.set_index("utterance_id")
    assert len(table) == 9
    assert table.loc["de_s2e7_d1_u0", "path"].endswith("train_0.wav")


def test_faulty_folder_or_table_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="absent is not a folder"):
        read_meld_st(tmp_path / "absent")
    with pytest.raises(CorpusError, match="contains neither ENG_DEU nor ENG_JPN"):
        read_meld_st(tmp_path)
    write_both_pairs(tmp_path)
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


def test_split_emptied_by_moving_utterances_is_an_error(tmp_path):
    write_pair(tmp_path, "ENG_DEU", {"train": [meld_row(1, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(3, 0)]})
    write_pair(tmp_path, "ENG_JPN", {"train": [meld_row(4, 0)], "dev": [meld_row(2, 0)], "test": [meld_row(1, 0)]})
    with pytest.raises(CorpusError, match="the train split of language de is empty"):
        read_meld_st(tmp_path)


def test_unknown_corpus_is_refused_with_the_names_of_the_registry(tmp_path):
    for spec in ("meld", "meld-st:", "manifest", "synthetic:x"):
        with pytest.raises(CorpusError, match=f"unknown corpus {spec!r}; use one of {', '.join(CORPORA)}"):
            load_corpus(CorpusSettings.model_construct(spec=spec, planted_gaps=()), tmp_path)
