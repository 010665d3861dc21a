"""Records of a study: what is read back, and errors for missing and damaged files."""

from __future__ import annotations

import pytest

from study.common.errors import RecordError
from study.storage.records import read_study, read_trial, write_trial
from study.storage.schemas import SCHEMA_VERSION
from study.storage.study_folder import StudyFolder
from study.storage.study_state import StudyState

TRIAL = {"number": 3, "config_id": "abc", "label": None, "hyperparameters": {}, "state": "finished", "seconds": 1.0}
TRIAL["values"] = [0.4, None]


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.at(str(tmp_path), "a-study")


def test_retry_replaces_the_record(folder):
    write_trial(folder, {**TRIAL, "state": "failed"})
    write_trial(folder, TRIAL)
    assert StudyState(folder).trials == {3: TRIAL} and read_trial(folder, 3) == TRIAL and read_trial(folder, 4) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "does not contain a record"),
        (None, "does not contain a record"),
        ({"number": 3}, "lacks config_id, state, label, hyperparameters, seconds"),
        ({**TRIAL, "number": "3"}, "number: Input should be a valid integer"),
        ({**TRIAL, "state": "done"}, "state: Input should be 'finished', 'failed' or 'pruned'"),
        ({**TRIAL, "values": None}, "values: .*a finished trial needs one value for each search objective"),
        ({**TRIAL, "by_seed": [0.4]}, "by_seed: Input should be a valid dictionary"),
    ],
)
def test_damaged_trial_is_named_with_the_remedy(folder, content, message):
    folder.write_json("trials/00003.json", content)
    for read in (lambda folder: StudyState(folder).trials, lambda folder: read_trial(folder, 3)):
        with pytest.raises(RecordError, match=rf"a-study/trials/00003\.json:? {message}.*Move it away"):
            read(folder)


def test_missing_foreign_and_damaged_plans_are_named(folder):
    with pytest.raises(RecordError, match=r"no study at .*a-study.*--study"):
        read_study(folder)
    folder.write_json("study.json", {"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(RecordError, match="schema version"):
        read_study(folder)
    folder.write_json("study.json", [])
    with pytest.raises(RecordError, match="does not contain the plan of a study"):
        read_study(folder)
    folder.write_bytes("study.json", b"{")
    with pytest.raises(RecordError, match=r"study\.json is not JSON"):
        read_study(folder)
