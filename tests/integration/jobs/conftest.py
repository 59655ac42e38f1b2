"""The live tail over real Redis, and runners over the test's own domain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import pytest_asyncio

from memoro_core.clock import SystemClock
from memoro_core.container import open_lease_store
from memoro_core.jobs.heart import Heart
from memoro_core.jobs.model import JobKind
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.run_ports import JobHandler
from memoro_core.jobs.runner import JobRunner, RunPolicy
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.operations import Operations, operations_of

MakeRunner = Callable[..., AbstractAsyncContextManager[JobRunner]]


@pytest_asyncio.fixture
async def tail(settings: Settings) -> AsyncIterator[RedisEventTail]:
    """A live tail with a connection of its own."""
    async with open_redis(settings) as redis, RedisEventTail(redis) as opened:
        yield opened


@pytest.fixture
def operations(domain: Domain, tail: RedisEventTail) -> Operations:
    """What operators do."""
    return operations_of(domain, tail)


@pytest.fixture
def make_runner(domain: Domain, tail: RedisEventTail, settings: Settings) -> MakeRunner:
    """Opens runners with short times."""

    @asynccontextmanager
    async def make(
        handler: JobHandler, *, lease: float = 2.0, heartbeat: float = 0.2, timeout: float = 30.0
    ) -> AsyncIterator[JobRunner]:
        async with (
            Heart(
                lambda: open_lease_store(settings), SystemClock(), lease=lease, interval=heartbeat, worker=None
            ) as heart,
            JobRunner(
                domain.job_store,
                domain.run_store,
                tail,
                heart,
                {JobKind.MEMORY_ENRICH: handler},
                SystemClock(),
                RunPolicy(lease=lease, timeout=timeout, retry=RetryPolicy(0.05, 0.2)),
                worker_id="test",
            ) as runner,
        ):
            yield runner

    return make
