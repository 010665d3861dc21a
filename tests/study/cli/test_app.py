"""How a command ends when it is stopped or a disk is full."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from study.cli.app import name_full_disk, run_script
from study.common.errors import RecordError


@pytest.fixture(autouse=True)
def handler():
    """Restore the signal handler of this process after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def terminated() -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)  # signals are handled between two bytecode instructions
    return 0


def interrupted() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("run", "status", "cause"), [(terminated, 143, "terminated"), (interrupted, 130, "interrupted")]
)
def test_sigterm_ends_a_command_like_ctrl_c(run, status, cause, capsys):
    assert run_script(run) == status
    assert f"{cause}: finished runs are kept; run the same command again to resume" in capsys.readouterr().err


def test_full_disk_is_named(tmp_path, capsys):
    full = OSError(errno.ENOSPC, "No space left on device")
    named = name_full_disk(full, ("s3://bucket/s", str(tmp_path)))
    assert named.errno == errno.ENOSPC and named.filename == str(tmp_path) and "GB free" in str(named)

    def run() -> int:
        raise named

    assert run_script(run) == 2 and str(tmp_path) in capsys.readouterr().err
    own = OSError(errno.ENOSPC, "No space left on device", "/a/file")
    assert name_full_disk(own, (str(tmp_path),)) is own
    library = RuntimeError("I/O error: No space left on device (os error 28)")  # safetensors' own class
    assert str(name_full_disk(library, (str(tmp_path),))) == str(named)
    record = RecordError("cannot write a/file: No space left on device")
    assert name_full_disk(record, (str(tmp_path),)) is record
    other = OSError(errno.EACCES, "Permission denied")
    assert name_full_disk(other, (str(tmp_path),)) is other
