"""PostgreSQL, Redis and the servers that use them go away in the middle of everything."""

from __future__ import annotations

import asyncio
import itertools
import signal
from typing import Any

import pytest
from redis.asyncio import Redis

from memoro_core.queue.streams import JOBS, STREAMS
from tests.support.chaos import Deployment
from tests.support.chaos_checks import check
from tests.support.chaos_faults import (
    CrashBackend,
    EndBackends,
    Fault,
    FlushRedis,
    FreezeRedis,
    KillServer,
    RestartPostgres,
    RestartRedis,
    end_server,
    redis_frozen,
)
from tests.support.chaos_load import Load

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="module"),
]

FAULTS = (
    KillServer(),
    EndBackends(),
    CrashBackend(),
    RestartPostgres(signal.SIGINT),
    RestartPostgres(signal.SIGKILL),
    RestartRedis(signal.SIGTERM),
    RestartRedis(signal.SIGKILL),
    FreezeRedis(),
    FlushRedis(),
)
CRASHES = (CrashBackend(), RestartPostgres(signal.SIGKILL))
"""Those upon which PostgreSQL forgets progress that it was told of and that watchers have seen."""
HINTLESS = 60


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_everything_accepted_ends_well_though(deployment: Deployment, load: Load, fault: Fault) -> None:
    async with load.adding():
        await deployment.wait_until_ended(load, 1)
        await fault.strike(deployment)
        await asyncio.sleep(0.5)
    await deployment.wait_until_ended(load)
    await check(deployment, load, crashed=fault in CRASHES)


async def test_a_server_is_killed_between_commits_and_hints(deployment: Deployment, load: Load) -> None:
    # Hints stay in their streams while no worker takes them.
    for worker in deployment.workers.alive:
        worker.send_signal(signal.SIGSTOP)
    before = await jobs_hinted(deployment)
    async with redis_frozen(deployment):
        await load.add(HINTLESS)
        await end_server(deployment)
    assert await jobs_hinted(deployment) - before < HINTLESS
    await deployment.restore()
    await deployment.wait_until_ended(load)
    await check(deployment, load)


async def jobs_hinted(deployment: Deployment) -> int:
    """How many jobs the hints name that Redis holds."""
    jobs = 0
    async with Redis.from_url(deployment.stack.redis_url) as redis:
        for stream in itertools.chain.from_iterable(STREAMS.values()):
            entries: Any = await redis.xrange(stream)
            jobs += sum(int(fields[JOBS.encode()]) for _, fields in entries)
    return jobs
