"""Why a trial failed, in one line, from the text of an error that came through several processes."""

from __future__ import annotations

import re

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NAMED = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Died|Killed)\b.*")
CARRIERS = ("RayTaskError", "ControllerError", "WorkerGroupError", "TrainingFailedError", "TuneError", "RayError")
"""Ray's wrappers, which say where an error passed, not what it was."""
LENGTH = 500


def reason_of(text: str, log: str | None = None) -> str:
    """The last exception that a text names by class and message, Ray's wrappers set aside; else its last line.

    Args:
        text: tracebacks and messages, perhaps coloured.
        log: where more stands, named behind the reason.

    >>> reason_of("Traceback:\\n  File 'a.py'\\n\\x1b[36m(worker)\\x1b[0m ValueError: no gap\\nRayError: a task failed")
    'ValueError: no gap'
    >>> reason_of("", log="runs/ab/worker-0.log")
    'ended without saying why (log: runs/ab/worker-0.log)'
    """
    lines = [line.strip() for line in ANSI.sub("", text).splitlines() if line.strip()]
    named = [found[0] for line in lines if (found := NAMED.search(line)) and _begins(line, found.start())]
    own = [line for line in named if not line.partition(":")[0].rpartition(".")[2].startswith(CARRIERS)]
    chosen = [*lines[-1:], *named[-1:], *own[-1:]]
    reason = (chosen[-1] if chosen else "ended without saying why")[:LENGTH]
    return f"{reason} (log: {log})" if log else reason


def _begins(line: str, start: int) -> bool:
    """Whether an exception's name heads a line, perhaps behind a worker's tag, and is no word of a sentence."""
    return not start or bool(re.fullmatch(r"\([^)]*\)\s*", line[:start]))
