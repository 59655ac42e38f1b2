"""PostgreSQL, Redis and the servers that use them go away in the middle of everything."""

from __future__ import annotations

import asyncio
import signal

import pytest
from redis.asyncio import Redis

from memoro_core.redis.keys import hint_stream
from memoro_core.tenancy.model import BUILT_IN_TIERS
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
    RestartRedis(signal.SIGKILL),
    FreezeRedis(),
    FlushRedis(),
)
HINTLESS = 60


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_everything_accepted_ends_well_though(deployment: Deployment, load: Load, fault: Fault) -> None:
    async with load.adding():
        await deployment.wait_until_ended(load, 1)
        await fault.strike(deployment)
        await asyncio.sleep(0.5)
    await deployment.wait_until_ended(load)
    await check(deployment, load)


async def test_a_server_is_killed_between_commits_and_hints(deployment: Deployment, load: Load) -> None:
    before = await hints_sent(deployment)
    async with redis_frozen(deployment):
        await load.add(HINTLESS)
        await end_server(deployment)
    assert await hints_sent(deployment) - before < HINTLESS
    await deployment.restore()
    await deployment.wait_until_ended(load)
    await check(deployment, load)


async def hints_sent(deployment: Deployment) -> int:
    """How many hints Redis has ever been given."""
    async with Redis.from_url(deployment.stack.redis_url) as redis:
        streams = [stream for tier in BUILT_IN_TIERS if await redis.exists(stream := hint_stream(tier))]
        return sum([(await redis.xinfo_stream(stream))["entries-added"] for stream in streams])
