"""A worker in a process of its own whose jobs do nothing but tell of their progress.

Reads a line of JSON per round from its input, and answers with one once the jobs have ended:

    {"jobs": [[tenant_id, job_id], …], "events": reports of each job, "interval": seconds between two of them,
     "concurrency": jobs at once, "floor_bytes": 0}
    {"published": [[job_id, sequence, monotonic nanoseconds], …]}

With `floor_bytes` all is the same, but that what would have been published is added to the floor's stream, in messages
of that size.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

import uvloop

from benchmarks.event_floor import STREAM
from memoro_core.clock import SystemClock
from memoro_core.container import open_container
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobEvent, JobKind, JobRef, JobResult, Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import RunContext, RunStore
from memoro_core.jobs.runner import JobRunner
from memoro_core.logs import configure_logging
from memoro_core.redis.client import RedisClient
from memoro_core.settings import Settings

Publish = Callable[[TenantId, JobId, Sequence[JobEvent]], Awaitable[None]]
LONGEST_LINE: Final = 64 * 1024 * 1024
SEQUENCE_BYTES: Final = 8
_HELD_BACK: Final = 0.1


class _StampedTail:
    """Notes when each event is published, and by what name it can be known again."""

    def __init__(self, publish: Publish, redis: RedisClient) -> None:
        self._publish = publish
        self._redis = redis
        self._unsent: list[tuple[bytes, bytes]] = []
        self._sending: asyncio.Task[None] | None = None
        self.floor_bytes = 0
        self.published: list[tuple[str, int, int]] = []

    async def publish(self, tenant_id: TenantId, job_id: JobId, events: Sequence[JobEvent]) -> None:
        now = time.monotonic_ns()
        self.published += [(str(job_id), event.seq, now) for event in events]
        if not self.floor_bytes:
            await self._publish(tenant_id, job_id, events)
            return
        # As events are published: the worker does not wait, and what gathers meanwhile goes out together. Else the
        # floor's bursts, of jobs that begin at once, would be spread out, each entry stamped when the one before is in.
        for event in events:
            message = event.seq.to_bytes(SEQUENCE_BYTES, "big").ljust(self.floor_bytes, b"\0")
            self._unsent.append((str(job_id).encode(), message))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._unsent:
            batch, self._unsent = self._unsent, []
            pipeline = self._redis.pipeline(transaction=False)
            for name, message in batch:
                pipeline.xadd(STREAM, {b"name": name, b"message": message}, maxlen=10_000)
            await pipeline.execute()
        self._sending = None


@dataclass(slots=True)
class _Pace:
    """How often each job of the round reports, and how many seconds apart."""

    events: int = 0
    interval: float = 0.0


class _ReportingHandler:
    """A `JobHandler` that reports at irregular moments."""

    def __init__(self, store: RunStore, pace: _Pace) -> None:
        self._store = store
        self._pace = pace
        self._clock = SystemClock()

    async def run(self, context: RunContext) -> JobEvent:
        pace = self._pace
        await asyncio.sleep(pace.interval * random.random())
        for completed in range(pace.events):
            await context.report(StageProgress(Stage.EXTRACT, StageStatus.RUNNING, completed, pace.events))
            await asyncio.sleep(pace.interval * random.uniform(0.5, 1.5))
        finish = context.success(JobResult(memories=1), partial=False)
        return await self._store.finish(context.claim, finish, now=self._clock.now())


async def _work() -> None:
    settings = Settings(extraction_provider="none")
    configure_logging(settings)
    pace = _Pace()
    async with open_container(
        settings, handlers=lambda store: {JobKind.MEMORY_ENRICH: _ReportingHandler(store, pace)}
    ) as container:
        tail = _StampedTail(container.event_tail.publish, container.redis)
        lines = asyncio.StreamReader(limit=LONGEST_LINE)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        with patch.object(container.event_tail, "publish", tail.publish):
            while line := await lines.readline():
                order = json.loads(line)
                pace.events, pace.interval = order["events"], order["interval"]
                tail.floor_bytes, tail.published = order["floor_bytes"], []
                await _run_all(container.job_runner, order)
                print(json.dumps({"published": tail.published}), flush=True)


async def _run_all(runner: JobRunner, order: dict[str, Any]) -> None:
    free = asyncio.Semaphore(order["concurrency"])

    async def run(tenant_id: str, job_id: str) -> None:
        async with free:
            # A job that its tier's caps hold back can be claimed later.
            while await runner.run(JobRef(TenantId(UUID(tenant_id)), JobId(UUID(job_id)))) is None:
                await asyncio.sleep(_HELD_BACK)

    await asyncio.gather(*(run(*names) for names in order["jobs"]))


if __name__ == "__main__":
    uvloop.run(_work())
