"""Workers that read hints as real ones do, and note what they are to run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from memoro_core.errors import unavailable
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.model import JobRef, JobState
from memoro_core.jobs.slots import Slots
from memoro_core.queue.broker import READ_TIMEOUT, HintBroker
from memoro_core.queue.reader import ReclaimPolicy
from memoro_core.redis.client import open_redis
from memoro_core.settings import Settings
from memoro_worker.listening import Runner, listen
from memoro_worker.metrics import WorkerMetrics
from tests.support.jobs import until

SOON = ReclaimPolicy(every=0.2, idle=0.4)
NEVER = ReclaimPolicy(every=600.0, idle=600.0)


def new_refs(count: int) -> list[JobRef]:
    """Jobs that exist nowhere else."""
    return [JobRef(TenantId(uuid4()), JobId(uuid4())) for _ in range(count)]


def singly(refs: Sequence[JobRef]) -> list[list[JobRef]]:
    """A hint for each job."""
    return [[ref] for ref in refs]


@dataclass
class RecordingRunner:
    """A `Runner` that claims every job and notes it; `work` is what its jobs do."""

    work: Callable[[], Awaitable[object]] | None = None
    undecidable: int = 0
    """Claims that fail before one is decided."""
    broken: bool = False
    """Whether every run ends in an error that nobody foresaw."""
    refs: list[JobRef] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    stopped: bool = False

    async def run(self, ref: JobRef, *, claimed: Callable[[], Awaitable[None]] | None = None) -> JobState | None:
        if self.stopped:
            return None
        if self.broken:
            raise RuntimeError("broken")
        if self.undecidable:
            self.undecidable -= 1
            raise unavailable("database")
        self.refs.append(ref)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert claimed is not None
        await claimed()
        if self.work is not None:
            await self.work()
        self.at_once -= 1
        return JobState.SUCCEEDED

    async def stop(self, *, grace: float) -> None:
        self.stopped = True


@dataclass
class Worker:
    """A worker's listening half."""

    slots: Slots
    broker: HintBroker
    runner: RecordingRunner
    stop: asyncio.Event

    async def has_read(self, refs: Sequence[JobRef]) -> None:
        """Waits until all of these have come."""

        async def all_read() -> bool:
            return set(refs) <= set(self.runner.refs)

        await until(all_read)

    async def is_idle(self) -> None:
        """Waits until every slot is free again, and none is reserved."""

        async def idle() -> bool:
            return self.slots.free == self.slots.room(HintClass.FRESH) == self.slots.total

        await until(idle, seconds=5)

    async def runs(self, count: int) -> None:
        """Waits until so many jobs run at once."""

        async def running() -> bool:
            return self.runner.at_once == count

        await until(running)


@asynccontextmanager
async def listening(
    settings: Settings,
    *,
    slots: int = 8,
    prefetch: int = 0,
    policy: ReclaimPolicy = SOON,
    work: Callable[[], Awaitable[object]] | None = None,
    undecidable: int = 0,
    broken: bool = False,
) -> AsyncIterator[Worker]:
    """A worker that listens while the block runs, and stops as a worker does."""
    runner = RecordingRunner(work, undecidable, broken)
    own = Slots(slots, prefetch=prefetch)
    async with listening_with(settings, runner, own, policy=policy) as (broker, stop):
        yield Worker(own, broker, runner, stop)


@asynccontextmanager
async def listening_with(
    settings: Settings, runner: Runner, slots: Slots, *, policy: ReclaimPolicy = SOON
) -> AsyncIterator[tuple[HintBroker, asyncio.Event]]:
    """The same with any runner."""
    stop = asyncio.Event()
    async with open_redis(settings, command_timeout=READ_TIMEOUT) as redis:
        broker = HintBroker(redis, slots, stop, policy=policy)
        task = asyncio.create_task(listen(broker, runner, WorkerMetrics(lambda: 0), slots, stop, grace=5.0))
        try:
            yield broker, stop
        finally:
            stop.set()
            async with asyncio.timeout(15):
                await task
