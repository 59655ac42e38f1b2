"""A whole worker process whose jobs only wait, as if for a provider, and then succeed.

`python -m benchmarks.waiting_worker SECONDS`, with the settings of any worker. So many jobs a second cost the machine
little, and what is measured is when they get their turn.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import uvloop

from memoro_core.clock import Clock
from memoro_core.container import Container, open_container
from memoro_core.jobs.model import JobEvent, JobKind, JobResult
from memoro_core.jobs.ports import JobStore, RunContext
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.runner import JobRunner, RunPolicy
from memoro_core.logs import configure_logging
from memoro_core.settings import Settings
from memoro_worker import process


class WaitingHandler:
    """A `JobHandler` that waits for `seconds` and brings nothing about."""

    def __init__(self, store: JobStore, clock: Clock, seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._seconds = seconds

    async def run(self, context: RunContext) -> JobEvent:
        await asyncio.sleep(self._seconds)
        finish = context.success(JobResult(), partial=False)
        return await self._store.finish(context.claim, finish, now=self._clock.now())


async def _work(seconds: float) -> int:
    settings = Settings(extraction_provider="none")
    configure_logging(settings)

    @asynccontextmanager
    async def opened(settings: Settings, **_: Any) -> AsyncIterator[Container]:
        async with open_container(settings) as container:
            handler = WaitingHandler(container.job_store, container.clock, seconds)
            policy = RunPolicy(
                settings.job_lease,
                settings.job_heartbeat,
                settings.job_timeout,
                RetryPolicy(settings.job_retry_base, settings.job_retry_max),
            )
            runner = JobRunner(
                container.job_store,
                container.event_tail,
                {JobKind.MEMORY_ENRICH: handler},
                container.clock,
                policy,
                worker_id=f"{socket.gethostname()}:{os.getpid()}:waiting",
            )
            async with runner:
                yield dataclasses.replace(container, job_runner=runner)

    with patch.object(process, "open_container", opened):
        return await process.work(settings, asyncio.Event())


if __name__ == "__main__":
    sys.exit(uvloop.run(_work(float(sys.argv[1]))))
