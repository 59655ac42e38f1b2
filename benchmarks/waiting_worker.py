"""A whole worker process whose jobs only wait, as if for a provider, and then succeed.

`python -m benchmarks.waiting_worker SECONDS FOLDER`, with the settings of any worker. So many jobs a second cost the
machine little, and what is measured is when they get their turn: a file in the folder gets a line for each job that
begins, with its id and the seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO
from uuid import UUID

import uvloop

from memoro_core.clock import SystemClock
from memoro_core.jobs.model import JobEvent, JobKind, JobResult
from memoro_core.jobs.run_ports import RunContext, RunStore
from memoro_core.logs import configure_logging
from memoro_core.settings import Settings
from memoro_worker.process import work


def read_starts(folder: Path) -> Mapping[UUID, float]:
    """When each job began last, by the workers that wrote to the folder."""
    lines = [line.split() for file in folder.iterdir() for line in file.read_text("utf-8").splitlines()]
    return {UUID(job_id): float(seconds) for job_id, seconds in lines}


class WaitingHandler:
    """A `JobHandler` that notes when it begins, waits for about `seconds`, and brings nothing about.

    No provider takes as long for each answer: jobs that began together don't end together, to begin together again.
    """

    def __init__(self, store: RunStore, seconds: float, starts: TextIO) -> None:
        self._store = store
        self._seconds = seconds
        self._starts = starts
        self._clock = SystemClock()

    async def run(self, context: RunContext) -> JobEvent:
        self._starts.write(f"{context.claim.ref.job_id} {time.time():.6f}\n")
        await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))
        finish = context.success(JobResult(), partial=False)
        return await self._store.finish(context.claim, finish, now=self._clock.now())


async def _work(seconds: float, folder: Path) -> int:
    settings = Settings(extraction_provider="none")
    configure_logging(settings)
    # A line at a time, so that it can be read at once.
    with (folder / f"{os.getpid()}").open("a", 1, "utf-8") as starts:
        return await work(
            settings,
            asyncio.Event(),
            handlers=lambda store: {JobKind.MEMORY_ENRICH: WaitingHandler(store, seconds, starts)},
        )


if __name__ == "__main__":
    sys.exit(uvloop.run(_work(float(sys.argv[1]), Path(sys.argv[2]))))
