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
from collections.abc import Sequence
from typing import Any, Final, cast
from uuid import UUID

import uvloop

from benchmarks.event_floor import STREAM
from memoro_core.clock import Clock
from memoro_core.container import open_container
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobEvent, JobKind, JobRef, JobResult, Stage, StageProgress, StageStatus
from memoro_core.jobs.ports import EventTail, JobStore, RunContext
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.runner import JobRunner, RunPolicy
from memoro_core.logs import configure_logging
from memoro_core.redis.client import RedisClient
from memoro_core.settings import Settings

LONGEST_LINE: Final = 64 * 1024 * 1024
SEQUENCE_BYTES: Final = 8


class _StampedTail:
    """Notes when each event is published, and by what name it can be known again."""

    def __init__(self, tail: EventTail, redis: RedisClient) -> None:
        self._tail = tail
        self._redis = redis
        self.floor_bytes = 0
        self.published: list[tuple[str, int, int]] = []

    async def publish(self, tenant_id: TenantId, job_id: JobId, events: Sequence[JobEvent]) -> None:
        now = time.monotonic_ns()
        self.published += [(str(job_id), event.seq, now) for event in events]
        if not self.floor_bytes:
            await self._tail.publish(tenant_id, job_id, events)
            return
        for event in events:
            message = event.seq.to_bytes(SEQUENCE_BYTES, "big").ljust(self.floor_bytes, b"\0")
            await self._redis.xadd(STREAM, {b"name": str(job_id).encode(), b"message": message}, maxlen=10_000)


class _ReportingHandler:
    """A `JobHandler` that reports at irregular moments."""

    def __init__(self, store: JobStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.events = 0
        self.interval = 0.0

    async def run(self, context: RunContext) -> JobEvent:
        await asyncio.sleep(self.interval * random.random())
        for completed in range(self.events):
            await context.report(StageProgress(Stage.EXTRACT, StageStatus.RUNNING, completed, self.events))
            await asyncio.sleep(self.interval * random.uniform(0.5, 1.5))
        finish = context.success(JobResult(memories=1), partial=False)
        return await self._store.finish(context.claim, finish, now=self._clock.now())


async def _work() -> None:
    settings = Settings(extraction_provider="none")
    configure_logging(settings)
    async with open_container(settings) as container:
        tail = _StampedTail(container.event_tail, container.redis)
        handler = _ReportingHandler(container.job_store, container.clock)
        runner = JobRunner(
            container.job_store,
            cast("EventTail", tail),  # a runner only publishes
            {JobKind.MEMORY_ENRICH: handler},
            container.clock,
            RunPolicy(settings.job_lease, settings.job_heartbeat, settings.job_timeout, RetryPolicy(2.0, 300.0)),
            worker_id="benchmark",
        )
        lines = asyncio.StreamReader(limit=LONGEST_LINE)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async with runner:
            while line := await lines.readline():
                order = json.loads(line)
                handler.events, handler.interval = order["events"], order["interval"]
                tail.floor_bytes, tail.published = order["floor_bytes"], []
                await _run_all(runner, order)
                print(json.dumps({"published": tail.published}), flush=True)


async def _run_all(runner: JobRunner, order: dict[str, Any]) -> None:
    free = asyncio.Semaphore(order["concurrency"])

    async def run(tenant_id: str, job_id: str) -> None:
        async with free:
            await runner.run(JobRef(TenantId(UUID(tenant_id)), JobId(UUID(job_id))))

    await asyncio.gather(*(run(*names) for names in order["jobs"]))


if __name__ == "__main__":
    uvloop.run(_work())
