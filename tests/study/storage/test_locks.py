"""Exclusive access to a study folder: a file lock on a disk, a lease on an object store."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from study.cli import app
from study.common.errors import RecordError
from study.storage import locks
from study.storage.locks import holder_of, study_lock
from study.storage.study_folder import StudyFolder
from tests import REPO

OTHER_LEASE = {"lease": "x", "holder": "process 7 on elsewhere"}


@pytest.fixture
def folder(tmp_path):
    return StudyFolder.at(str(tmp_path), "a-study")


@pytest.fixture
def remote(tmp_path):
    return StudyFolder(f"file://{tmp_path}/remote")


def test_second_writer_is_refused_with_the_holder(folder):
    assert holder_of(folder) is None
    with study_lock(folder), pytest.raises(RecordError, match=r"being written by process \d+ on "), study_lock(folder):
        raise AssertionError("not reached")
    assert holder_of(folder) is None
    with study_lock(folder):
        assert holder_of(folder).startswith("process ")


def test_lock_of_a_killed_process_is_free(folder):
    code = """
import sys, time
from study.storage.locks import study_lock
from study.storage.study_folder import StudyFolder
with study_lock(StudyFolder(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code, folder.uri], cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    assert holder_of(folder).startswith(f"process {process.pid} on ")
    process.kill()
    process.communicate()
    assert holder_of(folder) is None
    with study_lock(folder):
        pass


def test_object_store_is_locked_by_a_lease(remote, monkeypatch):
    with study_lock(remote):
        assert holder_of(remote).startswith("process ")
        with pytest.raises(RecordError, match=r"being written by process \d+ on .* within 90 s"), study_lock(remote):
            raise AssertionError("not reached")
        monkeypatch.setattr(locks, "LEASE_SECONDS", 0.0)  # as if its holder had been killed 90 s ago
        assert holder_of(remote) is None
        with study_lock(remote):
            pass
    assert holder_of(remote) is None and not remote.exists("lease.json")


def test_writer_that_loses_its_lease_is_stopped(remote, monkeypatch):
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(app, "_terminated", threading.Event())
    before = signal.getsignal(signal.SIGTERM)
    app.handle_sigterm()
    try:
        with pytest.raises(RecordError, match="being written by process 7 on elsewhere"), study_lock(remote):
            for _ in range(1000):  # a renewal may overwrite it once
                remote.write_json("lease.json", {**OTHER_LEASE, "time": time.time()})
                time.sleep(0.02)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert remote.read_json("lease.json")["lease"] == "x"


def test_release_keeps_the_lease_of_another_writer(remote):
    with study_lock(remote):
        remote.write_json("lease.json", {**OTHER_LEASE, "time": time.time()})
    assert remote.read_json("lease.json")["lease"] == "x"
