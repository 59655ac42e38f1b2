"""Runners over a test's own domain, with short times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from memoro_core.clock import SystemClock
from memoro_core.container import open_lease_store
from memoro_core.jobs.heart import Heart
from memoro_core.jobs.model import JobKind
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.run_ports import JobHandler
from memoro_core.jobs.runner import JobRunner, RunPolicy
from memoro_core.settings import Settings
from tests.support.domain import Domain


@asynccontextmanager
async def open_runner(
    domain: Domain,
    settings: Settings,
    tail: EventTail,
    handler: JobHandler,
    *,
    lease: float = 2.0,
    heartbeat: float = 0.2,
    timeout: float = 30.0,
    timeouts: Mapping[JobKind, float] = MappingProxyType({}),
    worker_id: str = "test",
) -> AsyncIterator[JobRunner]:
    """A runner that does every job with one handler, stopped at the end."""
    async with (
        Heart(lambda: open_lease_store(settings), SystemClock(), lease=lease, interval=heartbeat, worker=None) as heart,
        JobRunner(
            domain.job_store,
            domain.run_store,
            tail,
            heart,
            dict.fromkeys(JobKind, handler),
            domain.money.guard,
            SystemClock(),
            RunPolicy(lease=lease, timeout=timeout, retry=RetryPolicy(0.05, 0.2), timeouts=timeouts),
            worker_id=worker_id,
        ) as runner,
    ):
        yield runner
