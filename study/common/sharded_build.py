"""Files of a folder that processes compute together: each takes the next missing one under its own lock.

Builders that run at once share the work and compute nothing twice; an interrupted build goes on with what is missing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from study.common.environment import rank_and_world_size

SHOW_EVERY = 5.0  # seconds between lines of progress
GB = 1e9

Compute = Callable[[int, Path], None]
"""Computes a part and writes it to a path."""


class ShardedBuild:
    """Numbered files of a folder. They are written aside and renamed, so one that is there is whole.

    Args:
        folder: made if need be.
        names: of the files.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.names = folder, names

    def path(self, part: int) -> Path:
        return self.folder / self.names[part]

    def missing(self) -> list[int]:
        """The parts that nobody has computed yet."""
        there = set(os.listdir(self.folder))
        return [part for part, name in enumerate(self.names) if name not in there]

    def build(self, what: str, compute: Compute, helpers: int = 0) -> None:
        """Compute what is missing, with every other process that does so; returns when all parts are there.

        Rank 0 prints progress, and size and time at the end.

        Args:
            what: is built, for those lines.
            helpers: forked processes that join in. What one of them fails at is left to this one, which raises.
        """
        missing = self.missing()
        if not missing:
            return
        began = shown = time.perf_counter()

        def say(text: str) -> None:
            if rank_and_world_size()[0] == 0:
                print(f"{what}: {text}", flush=True)

        def show() -> None:
            nonlocal shown
            now, left = time.perf_counter(), len(self.missing())
            if left and now - shown > SHOW_EVERY:
                shown = now
                remaining = (now - began) * left / max(1, len(missing) - left)
                done = f"{len(self.names) - left} of {len(self.names)} parts, {now - began:.0f} s"
                say(f"{done}, about {remaining:.0f} s left")

        say(f"{len(missing)} of {len(self.names)} parts to compute in {self.folder}")
        context = multiprocessing.get_context("fork")  # imports would take longer than most corpora
        others = [
            context.Process(target=self._help, args=(compute, os.getpid()), daemon=True)
            for _ in range(min(helpers, len(missing) - 1))
        ]
        for other in others:
            other.start()
        try:
            own = self._work(compute, show)
        finally:
            for other in others:  # they have nothing left to do, or this process is going
                other.terminate()
                other.join()
        size = sum(self.path(part).stat().st_size for part in range(len(self.names)))
        seconds = time.perf_counter() - began
        say(f"complete, {size / GB:.2f} GB, after {seconds:.1f} s; {own} of {len(missing)} parts by this process")

    def _work(self, compute: Compute, between: Callable[[], None]) -> int:
        """Take parts until none is missing; returns how many were computed here."""
        own = 0
        while left := self.missing():
            done = 0
            for part in left:
                done += self._claim(part, compute)
                between()
            own += done
            if not done:  # others have claimed all that is left
                time.sleep(0.1)
        return own

    def _help(self, compute: Compute, asked_by: int) -> None:
        def leave_with_it() -> None:
            if os.getppid() != asked_by:
                raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half-written is left
        with suppress(Exception, KeyboardInterrupt):
            self._work(compute, leave_with_it)

    def _claim(self, part: int, compute: Compute) -> int:
        """Compute a part, unless another process holds it or has finished it; 1 if it was computed here."""
        path = self.path(part)
        if path.exists():
            return 0
        try:
            with FileLock(f"{path}.lock", timeout=0):
                if path.exists():
                    return 0
                for leftover in self.folder.glob(f"{path.name}.*.tmp"):  # of one that was killed: we hold the lock
                    leftover.unlink()
                aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
                try:
                    compute(part, aside)
                    os.replace(aside, path)
                finally:
                    aside.unlink(missing_ok=True)
                return 1
        except Timeout:
            return 0
