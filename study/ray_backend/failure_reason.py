"""The reason of a failed trial in one line, extracted from tracebacks that passed through several processes."""

from __future__ import annotations

import re

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SUFFIXES = "Error|Exception|Interrupt|Exit"
EXCEPTION = re.compile(rf"(?:\([^)]*\)\s*)?((?:(?:[a-z_]\w*\.)+[A-Z]\w*|[A-Z]\w*(?:{SUFFIXES}))(?:\(\w+\))?(?::.*)?)")
"""A line with an exception class (a dotted path or a usual suffix) and its message, perhaps after a worker's prefix."""
NO_MESSAGE = re.compile(r"\[.*\]:?|File \"|ray::|\(|[~^]+$|Traceback")
WRAPPERS = ("RayTaskError", "ControllerError", "WorkerGroupError", "TrainingFailedError", "TuneError", "RayError")
"""Ray's wrappers around the exception of another process."""
OUT_OF_MEMORY = re.compile(r"(?:\d+ worker\(s\) were|Task was) killed due to the node running low on memory.*")
DIED = re.compile(r"Worker exit type: (?:SYSTEM_ERROR|NODE_OUT_OF_MEMORY) Worker exit detail: (.+)")
"""How Ray describes a process that died; other exit types belong to processes that Ray was asked to end."""
MAX_LENGTH = 500


def failure_reason(text: str, log: str | None = None) -> str:
    """Return the reason of a failure.

    If a process was killed, this is the reason: the exceptions of the other processes only follow from it. Otherwise it
    is the last exception that is not one of Ray's wrappers, else the first message after a wrapper, else the last line.

    Args:
        text: tracebacks and messages; may contain ANSI colours.
        log: path of a log to append to the reason.

    >>> failure_reason("Traceback:\\n  File 'a.py'\\n\\x1b[36m(worker)\\x1b[0m ValueError: no gap\\nRayError: failed")
    'ValueError: no gap'
    >>> failure_reason("", log="runs/ab/worker-0.log")
    'ended without an error message (log: runs/ab/worker-0.log)'
    """
    text = ANSI.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    exceptions = [(i, match[1]) for i, line in enumerate(lines) if (match := EXCEPTION.fullmatch(line))]
    causes = [line for _, line in exceptions if not line.partition(":")[0].rpartition(".")[2].startswith(WRAPPERS)]
    killed = OUT_OF_MEMORY.findall(text) or DIED.findall(text)
    if killed:
        reason = f"killed: {killed[0]}"
    elif causes:
        reason = causes[-1]
    else:
        candidates = lines[exceptions[0][0] + 1 :] if exceptions else lines[-1:]
        messages = [line for line in candidates if not NO_MESSAGE.match(line)]
        reason = next(iter(messages), exceptions[0][1] if exceptions else "ended without an error message")
    return reason[:MAX_LENGTH] + (f" (log: {log})" if log else "")
