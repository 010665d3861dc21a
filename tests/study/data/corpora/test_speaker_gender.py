from __future__ import annotations

from pathlib import Path

import pytest

from study.data.corpora import CorpusError
from study.data.corpora.speaker_gender import read_genders, resolve
from study.data.corpora.table_io import read_table

# who speaks how often in MELD 1.0, counted in its three files of annotations
MELD_SPEAKERS = Path(__file__).with_name("meld_speakers.csv")


@pytest.mark.parametrize(
    ("speaker", "gender", "by"),
    [
        ("Rachel", "female", "table"),
        ("ROSS", "male", "table"),
        ("Gunther", "male", "table"),
        ("Dr. Green", "male", "table"),
        ("The Stripper", "female", "table"),
        ("Joey\N{RIGHT SINGLE QUOTATION MARK}s Hand Twin", "male", "table"),
        ("Phoebe Sr.", "female", "rule"),
        ("Frank Jr.", "male", "rule"),
        ("Mr. Treeger", "male", "rule"),
        ("Mrs. Green", "female", "rule"),
        ("Woman on Train", "female", "rule"),
        ("A Female Student", "female", "rule"),
        ("Guy 2", "male", "rule"),
        ("Phoebe/Waitress", "female", "table"),
        ("Joey/Director", "male", "table"),
        ("Monica & Phoebe", "female", "table"),
        ("Rachel/Ross", "unknown", "nothing"),
        ("Ross and Rachel", "unknown", "nothing"),
        ("Ross and the Director", "unknown", "nothing"),
        ("Mr. and Mrs. Geller", "unknown", "nothing"),
        ("Mona's Date", "unknown", "nothing"),
        ("Director", "unknown", "nothing"),
        ("All", "unknown", "nothing"),
        ("Both", "unknown", "nothing"),
        ("Amandine", "unknown", "nothing"),  # holds "man", but not as a word
        ("", "unknown", "nothing"),
    ],
)
def test_the_gender_of_a_name_and_by_what_it_is_known(speaker, gender, by):
    assert resolve(speaker) == (gender, by)


def test_97_percent_of_meld_are_resolved_and_what_names_nobody_is_not():
    table = read_table(str(MELD_SPEAKERS), ("speaker", "utterances"), "")
    rows = table["utterances"].astype(int)
    genders = table["speaker"].map(lambda speaker: resolve(speaker).gender)
    assert (len(table), rows.sum()) == (304, 13_708)
    share = rows.groupby(genders).sum() / rows.sum()
    assert 1 - share["unknown"] >= 0.97
    # the leads alone: 5,534 lines of women, 5,881 of men
    assert rows[genders == "female"].sum() == 6_501 and rows[genders == "male"].sum() == 6_841
    silent = set(table["speaker"][genders == "unknown"])
    assert {"All", "Both", "Ross and Rachel", "Monica and Ross", "Nurse", "Director", "Helena"} <= silent


def test_a_users_table_wins_over_the_rules_also_inside_a_pair():
    own = {"rachel": "male", "kim": "unknown", "nurse": "female"}
    assert resolve("Rachel", own) == ("male", "genders.csv")
    assert resolve("Kim", own) == ("unknown", "genders.csv")
    assert resolve("The Nurse/Waiter", own) == ("unknown", "nothing")
    assert resolve("Nurse/Doctor", own) == ("female", "genders.csv")


def test_the_table_of_a_folder(tmp_path):
    assert read_genders(str(tmp_path)) == {}
    (tmp_path / "genders.csv").write_text("speaker;gender\r\nDr. Kim;Female\r\nLee;unknown\r\nRaj;m\r\n")
    assert read_genders(str(tmp_path)) == {"dr kim": "female", "lee": "unknown", "raj": "male"}


def test_every_fault_of_a_table_is_named(tmp_path):
    (tmp_path / "genders.csv").write_text("speaker,gender\nKim,female\nLee,x\nKim,male\n")
    with pytest.raises(CorpusError, match="row 3: gender 'x' is none of female, male, unknown(?s:.*)row 4: .*Kim"):
        read_genders(str(tmp_path))
    (tmp_path / "genders.csv").write_text("speaker,sex\nKim,female\n")
    with pytest.raises(CorpusError, match="lacks the column gender"):
        read_genders(str(tmp_path))
