"""How a script ends when it is stopped, or has no room."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from study.cli.app import run_script, with_place
from study.common.errors import RecordError


@pytest.fixture(autouse=True)
def handler():
    """The handler of this process, put back after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def terminated() -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)  # a signal is handled between two steps of Python
    return 0


def interrupted() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("run", "status", "word"), [(terminated, 143, "terminated"), (interrupted, 130, "interrupted")]
)
def test_sigterm_ends_like_ctrl_c(run, status, word, capsys):
    assert run_script(run) == status
    assert f"{word}: what has finished is kept; the same command goes on" in capsys.readouterr().err


def test_a_full_disk_is_named(tmp_path, capsys):
    full = OSError(errno.ENOSPC, "No space left on device")
    named = with_place(full, ("s3://bucket/s", str(tmp_path)))
    assert named.errno == errno.ENOSPC and named.filename == str(tmp_path) and "GB left" in str(named)

    def run() -> int:
        raise named

    assert run_script(run) == 2 and str(tmp_path) in capsys.readouterr().err
    own = OSError(errno.ENOSPC, "No space left on device", "/a/file")
    assert with_place(own, (str(tmp_path),)) is own
    library = RuntimeError("I/O error: No space left on device (os error 28)")  # safetensors' own class
    assert str(with_place(library, (str(tmp_path),))) == str(named)
    record = RecordError("cannot write a/file: No space left on device")
    assert with_place(record, (str(tmp_path),)) is record
    other = OSError(errno.EACCES, "Permission denied")
    assert with_place(other, (str(tmp_path),)) is other
