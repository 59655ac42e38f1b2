"""A whole worker process whose jobs only wait, as if for a provider, and then succeed.

`python -m benchmarks.waiting_worker SECONDS`, with the settings of any worker. So many jobs a second cost the machine
little, and what is measured is when they get their turn.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from memoro_core.clock import SystemClock
from memoro_core.jobs.model import JobEvent, JobKind, JobResult
from memoro_core.jobs.run_ports import RunContext, RunStore
from memoro_core.logs import configure_logging
from memoro_core.settings import Settings
from memoro_worker.process import work


class WaitingHandler:
    """A `JobHandler` that waits for `seconds` and brings nothing about."""

    def __init__(self, store: RunStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = SystemClock()

    async def run(self, context: RunContext) -> JobEvent:
        await asyncio.sleep(self._seconds)
        finish = context.success(JobResult(), partial=False)
        return await self._store.finish(context.claim, finish, now=self._clock.now())


async def _work(seconds: float) -> int:
    settings = Settings(extraction_provider="none")
    configure_logging(settings)
    return await work(
        settings, asyncio.Event(), handlers=lambda store: {JobKind.MEMORY_ENRICH: WaitingHandler(store, seconds)}
    )


if __name__ == "__main__":
    sys.exit(uvloop.run(_work(float(sys.argv[1]))))
