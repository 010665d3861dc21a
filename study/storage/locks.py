"""One writer at a time: who holds a study folder, by a file lock on a disk and by a lease on an object store; and which
attempt at a run may write its records."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from study.common.errors import RecordError
from study.storage.study_folder import StudyFolder

LOCK = "lock"
LEASE = "lease.json"
LEASE_SECONDS = 90.0  # an object store knows no locks: after that long without a sign of life a holder is gone
RENEW_SECONDS = 20.0
ATTEMPT = "attempt.json"


class Superseded(RuntimeError):
    """Another attempt at the same run has begun since, and this one may write no more."""


@contextmanager
def hold(folder: StudyFolder) -> Iterator[None]:
    """Keep a second writer out of a study folder.

    On an object store the clocks of machines have to agree to within a minute, and two that take the same lease within
    a second are not told apart. A holder that finds it taken, since the storage was away for so long, gets a SIGTERM,
    which ``study.cli.app.heed_sigterm`` turns into a ``KeyboardInterrupt``.

    Raises:
        RecordError: another process writes it; the message names its process id and host. Also out of the ``with``
            block, when that interrupt comes.
    """
    with _locked(folder) if folder.is_local else _leased(folder):
        yield


def holder_of(folder: StudyFolder) -> str | None:
    """Who writes a study now, None if nobody does."""
    if not folder.is_local:
        return _lessee(folder)
    if not folder.exists(LOCK):
        return None
    with open(folder.path(LOCK)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return lock.read() or "another process"
    return None


def claim_run(folder: StudyFolder, directory: str) -> str:
    """Begin an attempt at a run, and so end every other at its next ``require_claim``; returns its name.

    Workers that were given up may live on: cut off from the cluster, not from the storage.

    Raises:
        Superseded: one of these has finished the run meanwhile.
    """
    attempt = uuid.uuid4().hex
    folder.write_json(f"{directory}/{ATTEMPT}", {"attempt": attempt, "holder": _this_process()})
    if folder.exists(f"{directory}/finished.json"):  # asked after the claim, which no other attempt survives
        folder.remove(f"{directory}/{ATTEMPT}")
        raise Superseded(f"{folder.path(directory)} has been finished by another attempt")
    return attempt


def require_claim(folder: StudyFolder, directory: str, attempt: str) -> None:
    """Ask whether an attempt at a run may still write.

    Raises:
        Superseded: the run was begun anew, or has been finished by another.
    """
    name = f"{directory}/{ATTEMPT}"
    latest = folder.read_json(name) if folder.exists(name) else {"attempt": None, "holder": "another, to its end"}
    if latest["attempt"] != attempt:
        raise Superseded(f"{folder.path(directory)} was taken over by {latest['holder']}; nothing more is written here")


@contextmanager
def _locked(folder: StudyFolder) -> Iterator[None]:
    try:
        os.makedirs(folder.uri, exist_ok=True)
        lock = open(folder.path(LOCK), "a+")  # noqa: SIM115  (held open as long as the lock)
    except OSError as error:
        raise RecordError(
            f"cannot write {folder.uri}: {error}. Point --storage at a place that can be written."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise _refusal(folder, lock.read() or "another process") from None
        lock.truncate(0)
        lock.write(_this_process())
        lock.flush()
        yield
        lock.truncate(0)


@contextmanager
def _leased(folder: StudyFolder) -> Iterator[None]:
    other = _lessee(folder)
    if other:
        raise _refusal(folder, f"{other}, or was within {LEASE_SECONDS:g} s")
    name = uuid.uuid4().hex
    ended, taken = threading.Event(), threading.Event()

    def write() -> None:
        folder.write_json(LEASE, {"lease": name, "holder": _this_process(), "time": time.time()})

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            with suppress(RecordError, OSError):  # the next one may succeed; the trials say it if none does
                if (_lease(folder) or {"lease": name})["lease"] != name:
                    taken.set()
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # ends a script as Ctrl-C
                    return
                write()

    write()
    renewal = threading.Thread(target=renew, daemon=True)
    renewal.start()
    try:
        yield
    except KeyboardInterrupt:
        if taken.is_set():
            raise _refusal(folder, _lessee(folder) or "another process") from None
        raise
    finally:
        ended.set()
        renewal.join()
        with suppress(RecordError, OSError):  # it runs out by itself
            if (_lease(folder) or {}).get("lease") == name:
                folder.remove(LEASE)


def _lease(folder: StudyFolder) -> dict[str, Any] | None:
    return folder.read_json(LEASE) if folder.exists(LEASE) else None


def _lessee(folder: StudyFolder) -> str | None:
    lease = _lease(folder)
    return lease["holder"] if lease and time.time() - lease["time"] < LEASE_SECONDS else None


def _refusal(folder: StudyFolder, holder: str) -> RecordError:
    return RecordError(f"{folder.uri} is being written by {holder}; wait for it to end.")


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
