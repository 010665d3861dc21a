from __future__ import annotations

import pytest

from study.corpora import CorpusError
from study.corpora.genders import gender_of, read_genders


@pytest.mark.parametrize(
    ("speaker", "gender"),
    [
        ("Rachel", "female"),
        ("Chandler", "male"),
        ("ROSS", "male"),
        ("Mr. Treeger", "male"),
        ("Mrs. Green", "female"),
        ("Woman on Train", "female"),
        ("Guy 2", "male"),
        ("Phoebe/Waitress", "female"),
        ("Joey/Director", "male"),
        ("Ross and Rachel", "unknown"),
        ("Monica & Phoebe", "female"),
        ("Mr. and Mrs. Geller", "unknown"),
        ("Director", "unknown"),
        ("All", "unknown"),
        ("Amanda", "unknown"),  # holds "man", but not as a word
        ("", "unknown"),
    ],
)
def test_the_gender_of_a_name(speaker, gender):
    assert gender_of(speaker) == gender


def test_a_table_wins_over_the_rules_also_inside_a_pair():
    table = {"Rachel": "male", "Kim": "female"}
    assert gender_of("Rachel", table) == "male"
    assert gender_of("Kim/Doctor", table) == "female"
    assert gender_of("Kim/Ross", table) == "unknown"


def test_the_table_of_a_folder(tmp_path):
    assert read_genders(str(tmp_path)) == {}
    (tmp_path / "genders.csv").write_text("speaker,gender\nKim,Female\nLee,unknown\n")
    assert read_genders(str(tmp_path)) == {"Kim": "female", "Lee": "unknown"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speaker,gender\nKim,female\nLee,robot\n", "row 3: gender 'robot' is none of female, male, unknown"),
        ("speaker,gender\nKim,female\nKim,male\n", "row 3: speaker 'Kim' has two genders"),
        ("speaker,sex\nKim,female\n", "lacks the column gender"),
    ],
)
def test_a_faulty_table_is_named(tmp_path, text, message):
    (tmp_path / "genders.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        read_genders(str(tmp_path))
