"""The queue between a trial driver and its workers. It is an actor of its own, whose process needs no torch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from study.config.settings import Settings


@dataclass(frozen=True)
class Job:
    """One configuration to train. ``submitted`` is a Unix time."""

    settings: Settings
    config_id: str
    seeds: tuple[int, ...]
    submitted: float


class JobQueue:
    """Jobs from the driver to each rank, epochs from rank 0 to the driver, decisions from the driver to each rank.

    The queues are unbounded, but hold one or two items.
    """

    def __init__(self, num_workers: int):
        self.jobs: list[asyncio.Queue[Job | None]] = [asyncio.Queue() for _ in range(num_workers)]
        self.decisions: list[asyncio.Queue[bool]] = [asyncio.Queue() for _ in range(num_workers)]
        self.rows: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def submit(self, job: Job | None) -> None:
        """Give every rank a job; None ends the workers."""
        for queue in self.jobs:
            queue.put_nowait(job)

    async def next_job(self, rank: int) -> Job | None:
        return await self.jobs[rank].get()

    async def report(self, rank: int, row: dict[str, Any]) -> bool:
        """Report an epoch (called by every rank) and return whether to continue."""
        if rank == 0:
            self.rows.put_nowait(row)
        return await self.decisions[rank].get()

    async def finish_job(self) -> None:
        self.rows.put_nowait(None)

    async def next_row(self) -> dict[str, Any] | None:
        """Return the next epoch; None when the job is finished."""
        return await self.rows.get()

    async def decide(self, proceed: bool) -> None:
        """Tell every rank whether to continue after the last reported epoch."""
        for queue in self.decisions:
            queue.put_nowait(proceed)
