"""Callers of a deployment under faults: they ask until they are answered, and remember what they were told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from memoro import AsyncClient, JobState, MemoroError
from memoro.errors import Code
from memoro_core.ids import TenantId

CALLERS = 32
"""Calls under way at once."""
CALL_TIMEOUT = 5.0
PATIENCE = 90.0
WATCH_EVERY = 20
"""Every so many jobs one is watched."""
USERS = 7
_PLACES = ("Berlin", "Lisbon", "Vienna", "Oslo")
_COMPANIES = ("TechCorp", "Northwind", "Acme")
_ANSWERED_BY_NOBODY = {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED}
_BROKEN_OFF = {Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED}

Seen: TypeAlias = list[tuple[int, JobState]]
"""The sequence and the state of each update of a watch."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a call was answered."""

    memory_id: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A call; repeated, it carries the same request id."""

    request_id: str
    user_id: str
    text: str


@dataclass
class Load:
    """The callers of one tenant, over the SDK. Each call is made until it is answered: then its outcome is known."""

    client: AsyncClient
    tenant_id: TenantId
    random: Random
    accepted: dict[Ask, Accepted] = field(default_factory=dict)
    repeated: int = 0
    """Calls whose outcome was unknown at first."""
    unexplained: list[str] = field(default_factory=list)
    """Errors that callers should not have seen, whatever went wrong."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _callers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLERS))
    _watches: dict[str, asyncio.Task[Seen]] = field(default_factory=dict)

    async def add(self, count: int, *, user_id: str | None = None) -> None:
        """So many memories, each with a job; returns when all are accepted."""
        await asyncio.gather(*(self._add(user_id) for _ in range(count)))

    @asynccontextmanager
    async def adding(self, *, pause: float = 0.03) -> AsyncIterator[None]:
        """Adds one after the other while the block runs; at its end all are accepted."""
        stop = asyncio.Event()
        adding = asyncio.create_task(self._keep_adding(stop, pause))
        try:
            yield
        finally:
            stop.set()
            await adding

    async def ask(self, asked: Ask) -> Accepted:
        """Makes a call until it is answered, and notes answers that no fault explains."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    added = await self.client.memories.create(
                        user_id=asked.user_id, text=asked.text, request_id=asked.request_id, timeout=CALL_TIMEOUT
                    )
                except MemoroError as error:
                    if not (error.code in _ANSWERED_BY_NOBODY or (not error.reason and error.code in _BROKEN_OFF)):
                        self.unexplained.append(f"{error!r} {error.metadata}")
                    self.repeated += 1
                    await asyncio.sleep(0.1)
                else:
                    return Accepted(added.memory.id, added.job.id)

    async def watched(self) -> Mapping[str, Seen | BaseException]:
        """What the watchers saw of their jobs, which must have ended; or what their watches ended with instead."""
        for watch in self._watches.values():
            with suppress(Exception):
                await asyncio.wait_for(watch, PATIENCE)
        return dict(
            zip(self._watches, await asyncio.gather(*self._watches.values(), return_exceptions=True), strict=True)
        )

    async def close(self) -> None:
        """Ends the watches that are left."""
        for task in self._watches.values():
            task.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)

    async def _add(self, user_id: str | None) -> None:
        number = next(self._numbers)
        place, company = self.random.choice(_PLACES), self.random.choice(_COMPANIES)
        asked = Ask(
            f"{self.tenant_id}-{number}",
            user_id or f"user-{number % USERS}",
            f"Maria Lopez number {number} works at {company} in {place}.",
        )
        async with self._callers:
            self.accepted[asked] = accepted = await self.ask(asked)
        if number % WATCH_EVERY == 0:
            self._watches[accepted.job_id] = asyncio.create_task(self._watch(accepted.job_id))

    async def _keep_adding(self, stop: asyncio.Event, pause: float) -> None:
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                # Callers who wait for their answers ask nothing new.
                if not self._callers.locked():
                    calls.create_task(self._add(None))
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)

    async def _watch(self, job_id: str) -> Seen:
        async with aclosing(self.client.jobs.handle(job_id).watch()) as updates:
            return [(update.sequence, update.state) async for update in updates]
