"""A server under a steady load while Redis hangs, or is killed: no caller notices, but for the limits that hold."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from memoro.v1 import memory_service_pb2 as pb
from memoro_core.clock import SystemClock
from memoro_core.embedded.redis import EmbeddedRedis
from memoro_core.ids import new_id
from memoro_core.limits.model import Rate
from memoro_core.postgres.database import Database, open_database
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import DEFAULT_SCOPES
from memoro_core.tenancy.service import TenancyService
from tests.support.buckets import surely_over
from tests.support.deployment import WIDE, Caller
from tests.support.domain import fresh_name
from tests.support.limiters import per_second
from tests.support.server_process import Running, running
from tests.support.steady_load import SteadyLoad

pytestmark = pytest.mark.e2e
GET = "MemoryService/GetMemory"
CREATE = "MemoryService/CreateMemory"
BEFORE, AWAY, AFTER = 3.0, 3.0, 3.0
"""Seconds of the load: with Redis, without it, and with it again."""
SETTLED = 0.5
"""Seconds after which a change is noticed, and the machine has come to rest."""
LONGEST = 2.0
"""Seconds that any call may take: what Redis may cost and what a busy machine adds."""
NOISE = 0.01
"""Seconds; half of what a call may wait for Redis that does not answer."""
ENOUGH = per_second(100, 100)
"""For twice as much as the modest tenant sends."""
TIGHT = per_second(20, 20)
"""For less than half of what the greedy tenant sends."""


@pytest_asyncio.fixture
async def server(settings: Settings, mortal: EmbeddedRedis) -> AsyncIterator[Running]:
    """A server in a process of its own on that Redis."""
    async with running(settings.model_copy(update={"redis_url": mortal.url()})) as process:
        yield process


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def channel(server: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


async def limited(channel: grpc.aio.Channel, database: Database, rate: Rate) -> Caller:
    """A new tenant's caller, who may call as often as the rate says, whatever he calls."""
    store, clock = PostgresTenancyStore(database), SystemClock()
    bootstrap = Bootstrap(store, clock)
    tenant = await bootstrap.tenant(fresh_name(), "A test's")
    limits = replace(WIDE, requests=rate)
    tenancy = TenancyService(store, clock)
    await tenancy.update_tenant(tenant.id, display_name=None, tier=None, limits=limits, version=None)
    return Caller(channel, tenant.id, await bootstrap.key(tenant, "A test's", DEFAULT_SCOPES))


def create() -> pb.CreateMemoryRequest:
    return pb.CreateMemoryRequest(request_id=str(new_id()), user_id="ann", text="Ann plays the cello.")


async def reading(caller: Caller, *, every: float) -> SteadyLoad:
    """Gets a memory of the caller's own again and again."""
    memory = (await caller.ask(CREATE, create())).memory
    request = pb.GetMemoryRequest(memory_id=memory.id)
    return SteadyLoad(caller, GET, lambda: request, every)


async def jobs_of(database: Database, caller: Caller) -> Counter[Any]:
    """How many memories the tenant has whose job is in which state."""
    async with database.tenant_tx(caller.tenant_id) as connection:
        rows = await connection.fetch("SELECT j.state FROM memories m JOIN jobs j ON j.job_id = m.job_id")
    return Counter(row["state"] for row in rows)


@pytest.mark.parametrize("how", ["hang", "kill"])
async def test_no_caller_notices_that_redis_is_away(
    how: str, mortal: EmbeddedRedis, server: Running, channel: grpc.aio.Channel, database: Database
) -> None:
    modest, greedy = await limited(channel, database, ENOUGH), await limited(channel, database, TIGHT)
    reads, beyond = await reading(modest, every=1 / 40), await reading(greedy, every=1 / 50)
    writes = SteadyLoad(modest, CREATE, create, 1 / 10)
    begin = time.monotonic()
    end = begin + BEFORE + AWAY + AFTER
    load = asyncio.gather(*(one.run(end) for one in (reads, writes, beyond)))

    await asyncio.sleep(BEFORE)
    before = await server.total("memoro_limits_decisions_total", by="local")
    gone, pid = time.monotonic(), mortal.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    try:
        await asyncio.sleep(AWAY)
        assert await server.total("memoro_limits_breaker_open") == 1
        assert await server.total("memoro_limits_decisions_total", by="local") - before > 100
        if how == "kill":
            await mortal.wait()
            await mortal.start()
    finally:
        if how == "hang":
            os.kill(pid, signal.SIGCONT)
    back = time.monotonic()
    shared = await server.total("memoro_limits_decisions_total", by="redis")
    await load

    # No call fails, and none is refused but for what its tenant sent.
    assert [one.outcome for one in (*reads.sent, *writes.sent) if not one.passed] == []
    refused = [one.outcome for one in beyond.sent if not one.passed]
    assert Counter((one.code, one.info.reason, one.info.metadata["limit"]) for one in refused) == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "requests"): len(refused)
    }
    assert refused
    # As much passes as may, one burst more while Redis is away, and nearly so much all the time.
    lost = [(int(gone * 1e6), int((back + SETTLED) * 1e6))]
    assert surely_over(beyond.passages(), TIGHT, lost=lost) <= 0
    for since, until in ((begin + SETTLED, gone), (gone + SETTLED, back), (back + SETTLED, end)):
        passed = sum(one.passed for one in beyond.between(since, until))
        assert passed >= 0.5 * TIGHT.per_minute / 60 * (until - since)
    # Nobody waits for Redis.
    usual = reads.median(begin + SETTLED, gone), writes.median(begin + SETTLED, gone)
    for since, until in ((gone + SETTLED, back), (back + SETTLED, end)):
        assert reads.median(since, until) <= 2 * usual[0] + NOISE
        assert writes.median(since, until) <= 2 * usual[1] + NOISE
    assert max(one.answered - one.at for one in (*reads.sent, *writes.sent, *beyond.sent)) < LONGEST
    # What was accepted meanwhile stands, whether a worker was told of it or not.
    assert len(writes.between(gone + SETTLED, back)) >= 10
    assert await jobs_of(database, modest) == {"QUEUED": len(writes.sent) + 1}
    assert await server.total("memoro_limits_breaker_open") == 0
    assert await server.total("memoro_limits_decisions_total", by="redis") > shared
