"""Genders derived from the names of characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.data.corpora import CorpusError
from study.data.corpora.speaker_gender import read_genders, resolve_gender
from study.data.corpora.table_io import read_table

# speakers of MELD 1.0 and their numbers of utterances, counted in its three annotation files
MELD_SPEAKERS = Path(__file__).with_name("meld_speakers.csv")


@pytest.mark.parametrize(
    ("speaker", "gender", "source"),
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
        ("Rachel/Ross", "unknown", "none"),
        ("Ross and Rachel", "unknown", "none"),
        ("Ross and the Director", "unknown", "none"),
        ("Mr. and Mrs. Geller", "unknown", "none"),
        ("Mona's Date", "unknown", "none"),
        ("Director", "unknown", "none"),
        ("All", "unknown", "none"),
        ("Both", "unknown", "none"),
        ("Amandine", "unknown", "none"),  # contains "man", but not as a word
        ("", "unknown", "none"),
    ],
)
def test_gender_of_a_name_and_its_source(speaker, gender, source):
    assert resolve_gender(speaker) == (gender, source)


def test_genders_of_97_percent_of_meld_are_known():
    table = read_table(str(MELD_SPEAKERS), ("speaker", "utterances"), "")
    rows = table["utterances"].astype(int)
    genders = table["speaker"].map(lambda speaker: resolve_gender(speaker).gender)
    assert (len(table), rows.sum()) == (304, 13_708)
    share = rows.groupby(genders).sum() / rows.sum()
    assert 1 - share["unknown"] >= 0.97
    # the leads alone: 5,534 lines of women, 5,881 of men
    assert rows[genders == "female"].sum() == 6_501 and rows[genders == "male"].sum() == 6_841
    unresolved = set(table["speaker"][genders == "unknown"])
    assert {"All", "Both", "Ross and Rachel", "Monica and Ross", "Nurse", "Director", "Helena"} <= unresolved


def test_own_genders_win_also_within_a_double_role():
    own_genders = {"rachel": "male", "kim": "unknown", "nurse": "female"}
    assert resolve_gender("Rachel", own_genders) == ("male", "genders.csv")
    assert resolve_gender("Kim", own_genders) == ("unknown", "genders.csv")
    assert resolve_gender("The Nurse/Waiter", own_genders) == ("unknown", "none")
    assert resolve_gender("Nurse/Doctor", own_genders) == ("female", "genders.csv")


def test_genders_file_is_read(tmp_path):
    assert read_genders(str(tmp_path)) == {}
    (tmp_path / "genders.csv").write_text("speaker;gender\r\nDr. Kim;Female\r\nLee;unknown\r\nRaj;m\r\n")
    assert read_genders(str(tmp_path)) == {"dr kim": "female", "lee": "unknown", "raj": "male"}


def test_every_error_of_a_genders_file_is_named(tmp_path):
    (tmp_path / "genders.csv").write_text("speaker,gender\nKim,female\nLee,x\nKim,male\n")
    with pytest.raises(
        CorpusError, match="row 3: unknown gender 'x'; use one of female, male, unknown(?s:.*)row 4: .*Kim"
    ):
        read_genders(str(tmp_path))
    (tmp_path / "genders.csv").write_text("speaker,sex\nKim,female\n")
    with pytest.raises(CorpusError, match="lacks the column gender"):
        read_genders(str(tmp_path))
