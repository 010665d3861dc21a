"""Where a trial and its workers meet: an actor of its own, whose process needs no torch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from study.config.settings import Settings


@dataclass(frozen=True)
class Job:
    """One configuration for the workers; ``sent`` is the time of day."""

    settings: Settings
    config_id: str
    seeds: tuple[int, ...]
    sent: float


class JobQueue:
    """Where a trial and its workers meet. An actor; its queues are unbounded and hold a row or two."""

    def __init__(self, num_workers: int):
        self.jobs: list[asyncio.Queue[Job | None]] = [asyncio.Queue() for _ in range(num_workers)]
        self.verdicts: list[asyncio.Queue[bool]] = [asyncio.Queue() for _ in range(num_workers)]
        self.rows: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def give(self, job: Job | None) -> None:
        for queue in self.jobs:
            queue.put_nowait(job)

    async def take(self, rank: int) -> Job | None:
        return await self.jobs[rank].get()

    async def report(self, rank: int, row: dict[str, Any]) -> bool:
        """Of every rank; returns the verdict: whether to go on."""
        if rank == 0:
            self.rows.put_nowait(row)
        return await self.verdicts[rank].get()

    async def end_job(self) -> None:
        self.rows.put_nowait(None)

    async def next_row(self) -> dict[str, Any] | None:
        return await self.rows.get()

    async def decide(self, goes_on: bool) -> None:
        for queue in self.verdicts:
            queue.put_nowait(goes_on)
