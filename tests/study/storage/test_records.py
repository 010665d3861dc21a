"""The study folder: whole files or none, and clear words."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from study import sweep
from study.cli import app
from study.common.errors import RecordError
from study.storage.locks import hold
from study.storage.records import finished_runs, read_study, read_trial, read_trials, write_trial
from study.storage.schemas import SCHEMA_VERSION
from study.storage.study_folder import StudyFolder

TRIAL = {"number": 3, "config_id": "abc", "label": None, "hyperparameters": {}, "state": "finished", "seconds": 1.0}
TRIAL["values"] = [0.4, None]


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.at(str(tmp_path), "a-study")


def test_round_trips(folder):
    folder.write_json("a/b.json", {"x": [1, "é"]})
    folder.write_jsonl("rows.jsonl", [{"epoch": 1}, {"epoch": 2}])
    frame = pd.DataFrame({"utterance_id": ["u"], "score_joy": [-1.5]})
    folder.write_parquet("frame.parquet", frame)
    assert folder.read_json("a/b.json") == {"x": [1, "é"]}
    assert folder.read_jsonl("rows.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    pd.testing.assert_frame_equal(folder.read_parquet("frame.parquet"), frame)


def test_a_write_that_fails_says_so_and_leaves_nothing(folder):
    (Path(folder.uri) / "study.json").mkdir(parents=True)  # what is written aside cannot be renamed onto a folder
    with pytest.raises(RecordError, match=r"cannot write .*study\.json.*--storage"):
        folder.write_json("study.json", {})
    assert [path.name for path in Path(folder.uri).iterdir()] == ["study.json"]


def test_nan_is_refused_rather_than_written(folder):
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("x.json", float("nan"))


def test_only_runs_with_a_marker_are_finished(folder):
    folder.write_json("runs/abc/0/finished.json", {})
    folder.write_json("runs/abc/1/settings.json", {})
    folder.write_bytes("runs/abc/worker-0.log", b"")
    assert finished_runs(folder) == [("abc", 0)]


def test_a_retry_replaces_its_record(folder):
    write_trial(folder, {**TRIAL, "state": "failed"})
    write_trial(folder, TRIAL)
    assert read_trials(folder) == {3: TRIAL} and read_trial(folder, 3) == TRIAL and read_trial(folder, 4) is None


@pytest.mark.parametrize(
    ("found", "words"),
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
def test_a_trial_that_is_no_record_is_named(folder, found, words):
    folder.write_json("trials/00003.json", found)
    for read in (read_trials, lambda folder: read_trial(folder, 3)):
        with pytest.raises(RecordError, match=rf"a-study/trials/00003\.json:? {words}.*Move it away"):
            read(folder)


def test_missing_foreign_and_broken_studies_are_named(folder):
    with pytest.raises(RecordError, match=r"no study at .*a-study.*--study"):
        read_study(folder)
    folder.write_json("study.json", {"schema_version": SCHEMA_VERSION + 1})
    with pytest.raises(RecordError, match="schema version"):
        read_study(folder)
    folder.write_bytes("study.json", b"{")
    with pytest.raises(RecordError, match=r"study\.json is not JSON"):
        read_study(folder)


def test_a_second_writer_is_refused_with_the_holder(folder):
    with hold(folder), pytest.raises(RecordError, match=r"being written by process \d+ on "), hold(folder):
        raise AssertionError("not reached")
    with hold(folder):
        pass


def test_a_url_is_a_folder_too(tmp_path):
    folder = StudyFolder(f"file://{tmp_path}/remote")
    assert StudyFolder.at(f"file://{tmp_path}", "x") == StudyFolder.at(str(tmp_path), "x")
    assert not folder.is_local
    write_trial(folder, {**TRIAL, "number": 0})
    assert folder.names("trials") == ["00000.json"]
    assert folder.exists("trials/00000.json") and not folder.exists("trials/00001.json")
    assert read_trials(folder)[0] == {**TRIAL, "number": 0}


def test_options_of_a_url_stay_behind_its_path(tmp_path):
    folder = StudyFolder.at("s3://bucket/studies/?endpoint_override=minio:9000", "a")
    assert folder.uri == "s3://bucket/studies/a?endpoint_override=minio:9000"
    assert folder.path("runs", "x") == "s3://bucket/studies/a/runs/x?endpoint_override=minio:9000"
    assert folder.parent.uri == "s3://bucket/studies?endpoint_override=minio:9000"
    assert StudyFolder.at(str(tmp_path / "what?"), "a").path("b") == f"{tmp_path}/what?/a/b"  # a folder's own name


def test_a_storage_that_is_away_is_asked_again_and_one_that_refuses_is_not(tmp_path, monkeypatch):
    from study.storage import study_folder

    waited, errors = [], [OSError("AWS Error NETWORK_CONNECTION during PutObject"), OSError("HTTP status 503")]
    monkeypatch.setattr(study_folder.time, "sleep", waited.append)
    folder = StudyFolder(f"file://{tmp_path}/remote")
    opened = StudyFolder._open

    def away(self):
        if errors:
            raise errors.pop(0)
        return opened(self)

    monkeypatch.setattr(StudyFolder, "_open", away)
    folder.write_json("a.json", 1)
    assert folder.read_json("a.json") == 1 and waited == [1, 2]
    errors[:] = [OSError("AWS Error ACCESS_DENIED during PutObject")]
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        folder.read_bytes("a.json")
    assert waited == [1, 2]


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A URL whose bucket is the folder ``bucket``, which is not there yet."""
    monkeypatch.setattr(
        StudyFolder, "_open", lambda self: (SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "bucket/a")
    )
    return StudyFolder("s3://bucket/a")


def test_a_storage_without_its_bucket_is_refused_unless_it_may_be_made(remote, tmp_path):
    with pytest.raises(RecordError, match=r"no bucket 'bucket' for s3://bucket/a\. .*allow_bucket_creation=true"):
        remote.require_storage()
    StudyFolder(f"{remote.uri}?allow_bucket_creation=true").require_storage()
    (tmp_path / "bucket").mkdir()
    remote.require_storage()  # a new study


def test_a_storage_that_does_not_answer_at_the_start_is_asked_once(remote, monkeypatch):
    class Away:
        def get_file_info(self, asked):
            raise OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2")

    monkeypatch.setattr(StudyFolder, "_open", lambda self: (Away(), "bucket/a"))
    monkeypatch.setattr("study.storage.study_folder.time.sleep", None)
    with pytest.raises(
        RecordError, match=r"cannot read s3://bucket/a: AWS Error NETWORK.*endpoint_override.*credentials"
    ):
        remote.require_storage()


def test_a_bucket_whose_region_is_not_found_is_told_with_the_remedy(monkeypatch):
    """S3 asks for it as soon as the URL is opened; ``--confirm-seeds`` reads the study before anything else."""

    def nowhere(uri):
        raise OSError("When resolving region for bucket 'bucket': AWS Error NETWORK_CONNECTION during HeadBucket")

    monkeypatch.setattr("study.storage.study_folder.fs.FileSystem", SimpleNamespace(from_uri=nowhere))
    monkeypatch.setattr("study.storage.study_folder.time.sleep", None)
    folder = StudyFolder("s3://bucket/a")
    monkeypatch.setattr("study.sweep.read_request", lambda flags: SimpleNamespace(folder=folder))
    for ask in (folder.require_storage, lambda: sweep.run(SimpleNamespace(confirm_seeds="10"), None)):
        with pytest.raises(
            RecordError, match=r"--storage: cannot read s3://bucket/a: When resolving.*scheme, region\)"
        ):
            ask()


def test_a_storage_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for storage in ("notes.txt", "notes.txt/deeper"):
        with pytest.raises(RecordError, match=rf"{tmp_path}/notes\.txt is a file: a study is a folder"):
            StudyFolder.at(str(tmp_path / storage), "s").require_storage()
    StudyFolder.at(str(tmp_path / "new" / "folder"), "s").require_storage()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_object_store_has_a_lease_for_a_lock(tmp_path, monkeypatch):
    from study.storage import locks

    folder = StudyFolder(f"file://{tmp_path}/remote")
    with hold(folder):
        assert locks.holder_of(folder).startswith("process ")
        with pytest.raises(RecordError, match=r"being written by process \d+ on .* within 90 s"), hold(folder):
            raise AssertionError("not reached")
        monkeypatch.setattr(locks, "LEASE_SECONDS", 0.0)  # its holder was killed, and that long ago
        assert locks.holder_of(folder) is None
        with hold(folder):
            pass
    assert locks.holder_of(folder) is None and not folder.exists("lease.json")


def test_a_lease_that_another_has_taken_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    from study.storage import locks

    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(app, "_terminated", threading.Event())
    before = signal.getsignal(signal.SIGTERM)
    app.heed_sigterm()
    folder = StudyFolder(f"file://{tmp_path}/remote")
    try:
        with pytest.raises(RecordError, match="being written by process 7 on elsewhere"), hold(folder):
            for _ in range(1000):  # a renewal may fall between
                folder.write_json("lease.json", {"lease": "x", "holder": "process 7 on elsewhere", "time": time.time()})
                time.sleep(0.02)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert folder.read_json("lease.json")["lease"] == "x"


def test_a_lease_that_was_taken_before_its_next_renewal_is_left_as_well(tmp_path):
    folder = StudyFolder(f"file://{tmp_path}/remote")
    with hold(folder):
        folder.write_json("lease.json", {"lease": "x", "holder": "process 7 on elsewhere", "time": time.time()})
    assert folder.read_json("lease.json")["lease"] == "x"
