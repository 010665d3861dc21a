"""Signals, exit codes and error messages of every command."""

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
from types import FrameType

from study.common.environment import rank_and_world_size
from study.common.errors import CorpusError, RecordError, SettingsError

_terminated = threading.Event()
"""Set by SIGTERM, so that a ``KeyboardInterrupt`` which Ray raises again can be told from one of Ctrl-C."""


def handle_sigterm() -> None:
    """Make SIGTERM interrupt this process like Ctrl-C. Call this again after a library has set its own handler."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    if not _terminated.is_set():  # a second signal must not interrupt the clean-up after the first
        _terminated.set()
        raise KeyboardInterrupt


def run_script(run: Callable[[], int]) -> int:
    """Run a command and print errors that the user can fix as messages.

    Returns:
        Exit status: that of ``run``; 1 if training diverged; 2 for an error that the user can fix; 130 after Ctrl-C;
        143 after SIGTERM.
    """
    _terminated.clear()
    handle_sigterm()
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        return run()
    except (SettingsError, RecordError, CorpusError) as error:
        if rank_and_world_size()[0] == 0:  # under torchrun every rank has the same error
            print(f"error: {error}".replace("\n", "\n       "), file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a missing permission, a missing backbone
        print(f"error: {error}\n       fix this and run the same command again to resume", file=sys.stderr)
        return 2
    except FloatingPointError as error:  # only without Ray: the trial's record contains it otherwise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        cause = "terminated" if _terminated.is_set() else "interrupted"
        print(f"\n{cause}: finished runs are kept; run the same command again to resume", file=sys.stderr)
        return 143 if _terminated.is_set() else 130


def name_full_disk(error: Exception, directories: Sequence[str]) -> Exception:
    """Return the error; if it reports a full disk without naming it, an ``OSError`` with the fullest directory.

    Args:
        error: of any class, since libraries raise their own.
        directories: that are written to; URLs are ignored.
    """
    local = [directory for directory in directories if os.path.isdir(directory)]
    if isinstance(error, OSError):
        unnamed = error.errno in (errno.ENOSPC, errno.EDQUOT) and not error.filename
    else:  # a RecordError names its file
        unnamed = os.strerror(errno.ENOSPC) in str(error) and not isinstance(error, RecordError)
    if not unnamed or not local:
        return error
    free, directory = min((shutil.disk_usage(directory).free, directory) for directory in local)
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}, {free / 1e9:.2g} GB free on the disk", directory)
