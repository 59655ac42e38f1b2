"""Real worker processes, to be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from memoro_core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Workers:
    """Worker processes on one deployment; their logs go to one file."""

    settings: Settings
    log: IO[bytes]
    processes: list[Process] = field(default_factory=list)

    async def start(self) -> Process:
        """One more worker."""
        settings = self.settings
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("MEMORO_")},
            "MEMORO_DATABASE_URL": str(settings.database_url),
            "MEMORO_DATABASE_TIMEOUT": str(settings.database_timeout),
            "MEMORO_REDIS_URL": settings.redis_url,
            "MEMORO_WORKER_OPS_PORT": "0",
            "MEMORO_JOB_LEASE": str(settings.job_lease),
            "MEMORO_JOB_HEARTBEAT": str(settings.job_heartbeat),
            "MEMORO_HINT_TIMEOUT": str(settings.hint_timeout),
            "MEMORO_SCHEDULER_INTERVAL": str(settings.scheduler_interval),
            "MEMORO_WORKER_CONCURRENCY": str(settings.worker_concurrency),
            "MEMORO_DRAIN_GRACE": str(settings.drain_grace),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "worker")),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "memoro_worker", env=environment, stdout=self.log, stderr=self.log
        )
        self.processes.append(process)
        return process

    async def end(self, process: Process, number: signal.Signals = signal.SIGTERM) -> int:
        """Signals a worker, and waits for its exit code."""
        if process.returncode is None:
            process.send_signal(number)
        self.processes.remove(process)
        return await asyncio.wait_for(process.wait(), 30)


@asynccontextmanager
async def open_workers(settings: Settings, log: Path) -> AsyncIterator[Workers]:
    """No worker yet; those that are left at the end are killed."""
    async with AsyncExitStack() as stack:
        workers = Workers(settings, stack.enter_context(log.open("ab")))
        try:
            yield workers
        finally:
            for process in list(workers.processes):
                await workers.end(process, signal.SIGKILL)
