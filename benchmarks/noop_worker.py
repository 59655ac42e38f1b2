"""A worker whose jobs have nothing to do: what is left is what a durable job costs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import uvloop

from memoro_core.jobs.model import JobEvent, JobKind, JobResult
from memoro_core.jobs.run_ports import JobHandler, RunContext, RunStore
from memoro_core.logs import configure_logging
from memoro_core.settings import Settings
from memoro_worker.process import work


class NoWork:
    """Ends each job at once, well."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs

    async def run(self, context: RunContext) -> JobEvent:
        """The terminal event."""
        end = context.success(JobResult(), partial=False)
        return await self._runs.finish(context.claim, end, now=datetime.now(UTC))


def handlers(runs: RunStore) -> Mapping[JobKind, JobHandler]:
    """One for every kind of job."""
    return dict.fromkeys(JobKind, NoWork(runs))


if __name__ == "__main__":
    settings = Settings()
    configure_logging(settings)
    sys.exit(uvloop.run(work(settings, asyncio.Event(), handlers=handlers)))
