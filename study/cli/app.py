"""How every script runs: signals, exit codes and error messages."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from study.common.environment import rank_and_world_size
from study.common.errors import RecordError, SettingsError
from study.data.corpora import CorpusError

_terminated = threading.Event()
"""Set by SIGTERM: what interrupts a script passes through Ray, which raises it anew as Ctrl-C's."""


def handle_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C; again after what sets a handler of its own, such as Ray's start."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: Any) -> None:
    if not _terminated.is_set():  # a second one would cut off what ends the first
        _terminated.set()
        raise KeyboardInterrupt


def run_script(run: Callable[[], int]) -> int:
    """Run and turn what the user can mend into a message; the exit status.

    Returns:
        What ``run`` does, 1 if training diverged, 2 for what the user can mend, 130 if interrupted, 143 if terminated.
    """
    _terminated.clear()
    handle_sigterm()
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        return run()
    except (SettingsError, RecordError, CorpusError) as error:
        if rank_and_world_size()[0] == 0:  # under torchrun every rank finds the same
            print(f"error: {error}".replace("\n", "\n       "), file=sys.stderr)
        return 2
    except OSError as error:  # no room, no permission, a backbone that is not there
        print(f"error: {error}\n       mend that and run the same command again: it goes on", file=sys.stderr)
        return 2
    except FloatingPointError as error:  # the loss of a run without Ray; with it, the trial's record says so
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        told = "terminated" if _terminated.is_set() else "interrupted"
        print(f"\n{told}: what has finished is kept; the same command goes on", file=sys.stderr)
        return 143 if _terminated.is_set() else 130


def with_place(error: Exception, places: Sequence[str]) -> Exception:
    """The error; if it says that a disk is full and not which, also by a library's own class, an ``OSError`` with the
    fullest of the places that are written to."""
    here = [place for place in places if os.path.isdir(place)]
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename
    else:
        full = os.strerror(errno.ENOSPC) in str(error) and not isinstance(error, RecordError)  # which names its file
    if not full or not here:
        return error
    free, place = min((shutil.disk_usage(place).free, place) for place in here)
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {free / 1e9:.2g} GB left of the disk", place)
