"""Exclusive write access to a study folder and to a run.

A study is locked by a file lock on a disk and by a lease on an object store. Of several attempts at the same run, only
the latest may write records.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder

LOCK = "lock"
HOLDER = "lock_holder"
LEASE = "lease.json"
LEASE_SECONDS = 90.0  # a lease that was not renewed for this long has expired
RENEW_SECONDS = 20.0
ATTEMPT = "attempt.json"
UNKNOWN_HOLDER = "another process"


class Superseded(RuntimeError):
    """A later attempt at the same run has started, so this one must not write any more."""


@contextmanager
def study_lock(folder: StudyFolder) -> Iterator[None]:
    """Keep other processes from writing to a study folder.

    On an object store, the clocks of the machines must agree to within a minute, and two processes that take the lease
    within the same second are not detected. If the storage was unreachable for so long that another process took the
    lease, the main thread receives SIGTERM, which ``study.cli.app`` turns into a ``KeyboardInterrupt``.

    Raises:
        RecordError: another process writes the study; the message names its process id and host. It is also raised
            at the end of the ``with`` block if another process took the lease meanwhile.
    """
    with _file_lock(folder) if folder.is_local else _lease(folder):
        yield


def holder_of(folder: StudyFolder) -> str | None:
    """Return the process that writes a study now, or None."""
    if not folder.is_local:
        return _lease_holder(folder)
    if not folder.exists(LOCK):
        return None
    try:
        with FileLock(folder.path(LOCK), timeout=0):
            return None
    except Timeout:
        return _recorded_holder(folder) or UNKNOWN_HOLDER
    except OSError:  # no permission to lock
        return _recorded_holder(folder)


def claim_run(folder: StudyFolder, directory: str) -> str:
    """Start an attempt at a run, so that every earlier attempt fails at its next ``require_claim``.

    Workers of an earlier attempt may still be alive if they lost the cluster but not the storage.

    Returns:
        The id of the attempt.

    Raises:
        Superseded: an earlier attempt has finished the run meanwhile.
    """
    attempt = uuid.uuid4().hex
    folder.write_json(f"{directory}/{ATTEMPT}", {"attempt": attempt, "holder": _this_process()})
    if folder.exists(f"{directory}/finished.json"):  # only checked after the claim, which stops all other attempts
        folder.remove(f"{directory}/{ATTEMPT}")
        raise Superseded(f"{folder.path(directory)} has been finished by another attempt")
    return attempt


def require_claim(folder: StudyFolder, directory: str, attempt: str) -> None:
    """Check that an attempt is still the latest at its run.

    Raises:
        Superseded: a later attempt has started, or has finished the run.
    """
    latest = folder.read_json_if_any(f"{directory}/{ATTEMPT}")
    if latest is None:
        raise Superseded(f"{folder.path(directory)} has been finished by another attempt; this one stops writing")
    if latest["attempt"] != attempt:
        raise Superseded(f"{folder.path(directory)} was taken over by {latest['holder']}; this attempt stops writing")


@contextmanager
def _file_lock(folder: StudyFolder) -> Iterator[None]:
    lock = FileLock(folder.path(LOCK), timeout=0)
    try:
        os.makedirs(folder.uri, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise _refusal(folder, _recorded_holder(folder) or UNKNOWN_HOLDER) from None
    except OSError as error:
        raise RecordError(
            f"cannot write {folder.uri}: {error}. Point --storage to a folder that can be written."
        ) from error
    try:
        folder.write_bytes(HOLDER, _this_process().encode())
        yield
    finally:
        folder.remove(HOLDER)
        lock.release()


def _recorded_holder(folder: StudyFolder) -> str | None:
    try:
        return folder.read_bytes(HOLDER).decode()
    except FileNotFoundError:
        return None


@contextmanager
def _lease(folder: StudyFolder) -> Iterator[None]:
    holder = _lease_holder(folder)
    if holder:
        raise _refusal(folder, f"{holder}, or was within {LEASE_SECONDS:g} s")
    lease_id = uuid.uuid4().hex
    ended, lost = threading.Event(), threading.Event()

    def write() -> None:
        folder.write_json(LEASE, {"lease": lease_id, "holder": _this_process(), "time": time.time()})

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            with suppress(RecordError, OSError):  # the next renewal may succeed
                if (folder.read_json_if_any(LEASE) or {"lease": lease_id})["lease"] != lease_id:
                    lost.set()
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                    return
                write()

    write()
    renewal = threading.Thread(target=renew, daemon=True)
    renewal.start()
    try:
        yield
    except KeyboardInterrupt:
        if lost.is_set():
            raise _refusal(folder, _lease_holder(folder) or UNKNOWN_HOLDER) from None
        raise
    finally:
        ended.set()
        renewal.join()
        with suppress(RecordError, OSError):  # the lease expires by itself
            if (folder.read_json_if_any(LEASE) or {}).get("lease") == lease_id:
                folder.remove(LEASE)


def _lease_holder(folder: StudyFolder) -> str | None:
    lease = folder.read_json_if_any(LEASE)
    return str(lease["holder"]) if lease and time.time() - lease["time"] < LEASE_SECONDS else None


def _refusal(folder: StudyFolder, holder: str) -> RecordError:
    return RecordError(f"{folder.uri} is being written by {holder}; wait for it to end.")


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
