"""Why a trial failed, in one line, from the text of an error that came through several processes."""

from __future__ import annotations

import re

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENDS = "Error|Exception|Interrupt|Exit"
NAMED = re.compile(rf"(?:\([^)]*\)\s*)?((?:(?:[a-z_]\w*\.)+[A-Z]\w*|[A-Z]\w*(?:{ENDS}))(?:\(\w+\))?(?::.*)?)")
"""A line of an exception's class, with a path or a usual ending, and its message, perhaps behind a worker's tag."""
AROUND = re.compile(r"\[.*\]:?|File \"|ray::|\(|[~^]+$|Traceback")
CARRIERS = ("RayTaskError", "ControllerError", "WorkerGroupError", "TrainingFailedError", "TuneError", "RayError")
"""Ray's wrappers, which say where an error passed, not what it was."""
STARVED = re.compile(r"(?:\d+ worker\(s\) were|Task was) killed due to the node running low on memory.*")
DIED = re.compile(r"Worker exit type: (?:SYSTEM_ERROR|NODE_OUT_OF_MEMORY) Worker exit detail: (.+)")
"""What Ray says of a process that did not end by itself; other types are of those that Ray was told to end."""
LENGTH = 500


def reason_of(text: str, log: str | None = None) -> str:
    """What killed a process, if one died: the others then raise only what they miss of it. Else the last exception that
    a text names by class and message; if it has Ray's wrappers alone, what the first of them says; else its last line.

    Args:
        text: tracebacks and messages, perhaps coloured.
        log: where more stands, named behind the reason.

    >>> reason_of("Traceback:\\n  File 'a.py'\\n\\x1b[36m(worker)\\x1b[0m ValueError: no gap\\nRayError: a task failed")
    'ValueError: no gap'
    >>> reason_of("", log="runs/ab/worker-0.log")
    'ended without saying why (log: runs/ab/worker-0.log)'
    """
    text = ANSI.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [(i, found[1]) for i, line in enumerate(lines) if (found := NAMED.fullmatch(line))]
    own = [line for _, line in named if not line.partition(":")[0].rpartition(".")[2].startswith(CARRIERS)]
    killed = STARVED.findall(text) or DIED.findall(text)
    if killed:
        reason = f"killed: {killed[0]}"
    elif own:
        reason = own[-1]
    else:  # what follows the first wrapper, or the last line of all
        after = lines[named[0][0] + 1 :] if named else lines[-1:]
        said = [line for line in after if not AROUND.match(line)]
        reason = next(iter(said), named[0][1] if named else "ended without saying why")
    return reason[:LENGTH] + (f" (log: {log})" if log else "")
