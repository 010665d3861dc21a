"""Compute the files of a folder in several processes; each takes the next missing file under the file's own lock.

Builds that run at the same time share the work, and an interrupted build resumes with the missing files.
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

PROGRESS_SECONDS = 5.0  # between two lines of progress
GB = 1e9

Compute = Callable[[int, Path], None]
"""Compute the part of this index and write it to a path."""


class ShardedBuild:
    """The parts of a dataset, one file each. Files are written under a temporary name, so an existing one is complete.

    Args:
        folder: is created if it does not exist.
        names: file names of the parts.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.names = folder, names

    def path(self, part: int) -> Path:
        """Return the path of a part."""
        return self.folder / self.names[part]

    def missing(self) -> list[int]:
        """Return the indices of the parts that have not been computed."""
        existing = set(os.listdir(self.folder))
        return [part for part, name in enumerate(self.names) if name not in existing]

    def build(self, title: str, compute: Compute, helpers: int = 0) -> None:
        """Compute the missing parts, shared with other processes that do the same; return when all parts exist.

        Rank 0 prints progress, and in the end size and time.

        Args:
            title: starts the printed lines.
            compute: computes one part.
            helpers: number of forked processes that help. A part that fails in a helper is computed in this process,
                which raises its error.
        """
        missing = self.missing()
        if not missing:
            return
        started = printed = time.perf_counter()

        def report(text: str) -> None:
            if rank_and_world_size()[0] == 0:
                print(f"{title}: {text}", flush=True)

        def report_progress() -> None:
            nonlocal printed
            now, left = time.perf_counter(), len(self.missing())
            if left and now - printed > PROGRESS_SECONDS:
                printed = now
                remaining = (now - started) * left / max(1, len(missing) - left)
                done = f"{len(self.names) - left} of {len(self.names)} parts, {now - started:.0f} s"
                report(f"{done}, about {remaining:.0f} s left")

        report(f"{len(missing)} of {len(self.names)} parts to compute in {self.folder}")
        context = multiprocessing.get_context("fork")  # imports would take longer than most corpora
        processes = [
            context.Process(target=self._help, args=(compute, os.getpid()), daemon=True)
            for _ in range(min(helpers, len(missing) - 1))
        ]
        for process in processes:
            process.start()
        try:
            own = self._work(compute, report_progress)
        finally:
            for process in processes:  # no part is left, or this process is ending
                process.terminate()
                process.join()
        size = sum(self.path(part).stat().st_size for part in range(len(self.names)))
        seconds = time.perf_counter() - started
        report(f"complete, {size / GB:.2f} GB, after {seconds:.1f} s; {own} of {len(missing)} parts by this process")

    def _work(self, compute: Compute, after_part: Callable[[], None]) -> int:
        """Compute parts until none is missing; return how many this process computed."""
        own = 0
        while left := self.missing():
            done = 0
            for part in left:
                done += self._claim(part, compute)
                after_part()
            own += done
            if not done:  # other processes are computing the rest
                time.sleep(0.1)
        return own

    def _help(self, compute: Compute, parent: int) -> None:
        def stop_without_parent() -> None:
            if os.getppid() != parent:
                raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that partial files are deleted
        with suppress(Exception, KeyboardInterrupt):
            self._work(compute, stop_without_parent)

    def _claim(self, part: int, compute: Compute) -> int:
        """Compute a part unless another process is computing or has computed it; return 1 if it was computed here."""
        path = self.path(part)
        if path.exists():
            return 0
        try:
            with FileLock(f"{path}.lock", timeout=0):
                if path.exists():
                    return 0
                for partial in self.folder.glob(f"{path.name}.*.tmp"):  # left by a killed process
                    partial.unlink()
                temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
                try:
                    compute(part, temporary)
                    os.replace(temporary, path)
                finally:
                    temporary.unlink(missing_ok=True)
                return 1
        except Timeout:
            return 0
