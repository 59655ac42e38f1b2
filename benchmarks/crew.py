"""Workers that are killed, and others that take their places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psutil

from benchmarks.deployment import Deployment, running_worker

WORKERS: Final = 6


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker's end, and the moment before it."""

    pid: int
    moment: datetime


class Crew:
    """Workers, oldest first: the oldest leads the scheduling, unless it has just been killed."""

    def __init__(self, deployment: Deployment, settings: Mapping[str, str]) -> None:
        self._deployment = deployment
        self._settings = settings
        self._workers: list[tuple[psutil.Process, AsyncExitStack]] = []

    async def fill(self) -> None:
        """All that are missing, with the default settings for their leases."""
        await asyncio.gather(*(self._start() for _ in range(WORKERS - len(self._workers))))

    async def _start(self) -> None:
        stack = AsyncExitStack()
        process = await stack.enter_async_context(running_worker(self._deployment, **self._settings))
        self._workers.append((process, stack))

    async def kill(self, place: int) -> Kill:
        """Kills the worker in that place."""
        process, stack = self._workers.pop(place)
        moment = datetime.now(UTC)
        process.kill()
        await stack.aclose()
        return Kill(process.pid, moment)

    async def stop(self) -> None:
        """Ends all."""
        for _, stack in self._workers:
            await stack.aclose()


@asynccontextmanager
async def open_crew(deployment: Deployment, settings: Mapping[str, str]) -> AsyncIterator[Crew]:
    """All of them, ready."""
    crew = Crew(deployment, settings)
    try:
        await crew.fill()
        yield crew
    finally:
        await crew.stop()
