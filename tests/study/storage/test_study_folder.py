"""Study folders: atomic files, URLs, retries and clear errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.at(str(tmp_path), "a-study")


@pytest.fixture
def waits(monkeypatch):
    """The pauses between retries, which are recorded instead of slept."""
    pauses = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    return pauses


def test_round_trips(folder):
    folder.write_json("a/b.json", {"x": [1, "é"]})
    folder.write_jsonl("rows.jsonl", [{"epoch": 1}, {"epoch": 2}])
    frame = pd.DataFrame({"utterance_id": ["u"], "score_joy": [-1.5]})
    folder.write_parquet("frame.parquet", frame)
    assert folder.read_json("a/b.json") == {"x": [1, "é"]}
    assert folder.read_jsonl("rows.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    pd.testing.assert_frame_equal(folder.read_parquet("frame.parquet"), frame)


def test_failed_write_is_reported_and_leaves_no_temporary_file(folder):
    (Path(folder.uri) / "study.json").mkdir(parents=True)  # a file cannot be renamed onto a folder
    with pytest.raises(RecordError, match=r"cannot write .*study\.json.*--storage"):
        folder.write_json("study.json", {})
    assert [path.name for path in Path(folder.uri).iterdir()] == ["study.json"]


def test_nan_is_refused(folder):
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("x.json", float("nan"))


def test_listings_omit_temporary_files(folder):
    for name in ("runs/a/0/finished.json", "runs/a/worker-0.log", "runs/b.json", "runs/b.json.1234.tmp"):
        folder.write_bytes(name, b"")
    assert folder.names("runs") == ["a", "b.json"]
    assert list(folder.versions("runs")) == ["runs/a/0/finished.json", "runs/a/worker-0.log", "runs/b.json"]
    assert folder.names("none") == [] and folder.versions("none") == {}
    folder.remove_temporary("runs")
    assert not folder.exists("runs/b.json.1234.tmp")


def test_url_behaves_like_a_path(tmp_path):
    folder = StudyFolder(f"file://{tmp_path}/remote")
    assert StudyFolder.at(f"file://{tmp_path}", "x") == StudyFolder.at(str(tmp_path), "x")
    assert not folder.is_local
    folder.write_json("trials/00000.json", {"number": 0})
    assert folder.names("trials") == ["00000.json"]
    assert folder.versions("trials") == {"trials/00000.json": folder.version("trials/00000.json")}
    assert folder.version("trials") is None and folder.version("trials/00001.json") is None
    assert folder.exists("trials/00000.json") and not folder.exists("trials/00001.json")
    assert folder.read_json("trials/00000.json") == {"number": 0}
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("trials/00001.json")


def test_url_options_stay_at_the_end(tmp_path):
    folder = StudyFolder.at("s3://bucket/studies/?endpoint_override=minio:9000", "a")
    assert folder.uri == "s3://bucket/studies/a?endpoint_override=minio:9000"
    assert folder.path("runs", "x") == "s3://bucket/studies/a/runs/x?endpoint_override=minio:9000"
    assert folder.parent.uri == "s3://bucket/studies?endpoint_override=minio:9000"
    assert StudyFolder.at(str(tmp_path / "what?"), "a").path("b") == f"{tmp_path}/what?/a/b"  # part of a local name


def test_temporary_errors_are_retried_and_others_are_not(tmp_path, monkeypatch, waits):
    errors = [OSError("AWS Error NETWORK_CONNECTION during PutObject"), OSError("HTTP status 503")]
    folder = StudyFolder(f"file://{tmp_path}/remote")
    open_system = StudyFolder._open

    def fail_first(self):
        if errors:
            raise errors.pop(0)
        return open_system(self)

    monkeypatch.setattr(StudyFolder, "_open", fail_first)
    folder.write_json("a.json", 1)
    assert folder.read_json("a.json") == 1 and waits == [1, 2]
    errors[:] = [OSError("AWS Error ACCESS_DENIED during PutObject")]
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        folder.read_bytes("a.json")
    assert waits == [1, 2]


def test_retries_end_with_the_storages_own_error(tmp_path, monkeypatch, waits):
    def fail(self):
        raise OSError("HTTP status 503")

    monkeypatch.setattr(StudyFolder, "_open", fail)
    with pytest.raises(OSError, match="HTTP status 503"):
        StudyFolder(f"file://{tmp_path}/remote").read_bytes("a.json")
    assert waits == [1, 2, 4, 8, 16, 16]


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A URL whose bucket is the folder ``bucket``, which does not exist yet."""
    monkeypatch.setattr(
        StudyFolder, "_open", lambda self: (SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "bucket/a")
    )
    return StudyFolder("s3://bucket/a")


def test_missing_bucket_is_refused_unless_it_may_be_created(remote, tmp_path):
    with pytest.raises(RecordError, match=r"no bucket 'bucket' for s3://bucket/a\. .*allow_bucket_creation=true"):
        remote.require_storage()
    StudyFolder(f"{remote.uri}?allow_bucket_creation=true").require_storage()
    (tmp_path / "bucket").mkdir()
    remote.require_storage()  # a new study


def test_storage_check_at_the_start_is_not_retried(remote, monkeypatch, waits):
    class Unreachable:
        def get_file_info(self, selector):
            raise OSError("AWS Error NETWORK_CONNECTION during ListObjectsV2")

    monkeypatch.setattr(StudyFolder, "_open", lambda self: (Unreachable(), "bucket/a"))
    with pytest.raises(
        RecordError, match=r"cannot read s3://bucket/a: AWS Error NETWORK.*endpoint_override.*credentials"
    ):
        remote.require_storage()
    assert waits == []


def test_unresolved_bucket_region_is_reported_with_the_remedy(monkeypatch, waits):
    """S3 asks for the region as soon as the URL is opened."""

    def fail(uri):
        raise OSError("When resolving region for bucket 'bucket': AWS Error NETWORK_CONNECTION during HeadBucket")

    monkeypatch.setattr("study.storage.study_folder.fs.FileSystem", SimpleNamespace(from_uri=fail))
    with pytest.raises(RecordError, match=r"--storage: cannot read s3://bucket/a: When resolving.*scheme, region\)"):
        StudyFolder("s3://bucket/a").require_storage()
    assert waits == []


def test_storage_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for storage in ("notes.txt", "notes.txt/deeper"):
        with pytest.raises(RecordError, match=rf"{tmp_path}/notes\.txt is a file, but studies are stored in folders"):
            StudyFolder.at(str(tmp_path / storage), "s").require_storage()
    StudyFolder.at(str(tmp_path / "new" / "folder"), "s").require_storage()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
