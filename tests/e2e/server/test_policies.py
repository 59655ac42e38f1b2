"""How soon what an operator changes at one server holds at another: both are processes of their own."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import grpc.aio
import pytest
import pytest_asyncio

from memoro.v1 import admin_pb2
from memoro.v1 import admin_service_pb2 as pb
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.clock import SystemClock
from memoro_core.embedded.ports import free_port
from memoro_core.ids import TenantId
from memoro_core.postgres.database import open_database
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import Scope
from tests.support.deployment import Caller
from tests.support.domain import fresh_name
from tests.support.interception import Outcome, outcome_of
from tests.support.processes import SERVER, open_processes

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

PUSHED = 0.25
"""Seconds within which a change holds everywhere."""
POLLED = 1.0
"""The same where it is not heard: `auth_cache_ttl`."""
SLACK = 0.3
"""For the call that finds out."""
START = 60.0
LIST = memory.ListMemoriesRequest()
WATCH = jobs.WatchJobsRequest()


@dataclass
class TwoServers:
    """Who administers calls the one, who is administered the other."""

    operator: Caller
    elsewhere: grpc.aio.Channel
    owner: asyncpg.Connection[asyncpg.Record]
    tier: str

    async def tenant(self) -> tuple[str, Caller]:
        """A tenant of the tier, with a key that the other server has just seen."""
        asked = pb.CreateTenantRequest(name=fresh_name(), tier=self.tier)
        tenant = (await self.operator.ask("AdminService/CreateTenant", asked)).tenant
        return tenant.id, await self.caller(tenant.id)

    async def caller(self, tenant_id: str) -> Caller:
        made = await self.operator.ask("AdminService/CreateApiKey", pb.CreateApiKeyRequest(tenant_id=tenant_id))
        caller = Caller(self.elsewhere, TenantId(UUID(tenant_id)), made.secret)
        assert await reason(caller) == "OK"
        return caller

    async def put(self, *, streams: int) -> None:
        """Lets each tenant of the tier have so many open streams."""
        limits = admin_pb2.Limits(open_streams=streams)
        tier = admin_pb2.Tier(name=self.tier, limits=limits, weight=1, tenant_in_flight=4, user_in_flight=2)
        await self.operator.ask("AdminService/PutTier", pb.PutTierRequest(tier=tier))

    async def end_listeners(self) -> None:
        """Ends the connections over which the servers hear of changes."""
        ended = await self.owner.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'memoro policies'"
        )
        assert ended >= 2

    async def all_listen(self) -> None:
        """Waits until both servers hear of changes."""
        async with asyncio.timeout(10):
            while (
                await self.owner.fetchval(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE application_name = 'memoro policies' AND query LIKE ANY ('{LISTEN%,SELECT}')"
                )
                < 2
            ):
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwoServers]:
    settings = Settings.model_validate({"database_url": stack.database_url, "redis_url": stack.redis_url})
    log: Path = tmp_path_factory.mktemp("servers") / "log"
    async with open_processes(SERVER, settings, log) as processes, open_database(settings) as database:
        ports = [free_port(), free_port()]
        for port in ports:
            await processes.start(MEMORO_GRPC_PORT=str(port), MEMORO_SERVER_OPS_PORT=str(free_port()))
        bootstrap = Bootstrap(PostgresTenancyStore(database), SystemClock())
        operators = await bootstrap.operator()
        key = await bootstrap.key(operators, "a test's", (Scope.ADMIN,))
        here, elsewhere = (grpc.aio.insecure_channel(f"127.0.0.1:{port}") for port in ports)
        async with here, elsewhere:
            async with asyncio.timeout(START):
                await asyncio.gather(here.channel_ready(), elsewhere.channel_ready())
            owner = await asyncpg.connect(stack.owner_url)
            two = TwoServers(Caller(here, operators.id, key), elsewhere, owner, f"t-{secrets.token_hex(6)}")
            await two.put(streams=1)
            await two.all_listen()
            yield two
            await owner.execute("UPDATE tenants SET tier = 'free' WHERE tier = $1", two.tier)
            await owner.execute("DELETE FROM tiers WHERE tier = $1", two.tier)
            await owner.close()


async def reason(caller: Caller) -> str:
    outcome = await caller.call("MemoryService/ListMemories", LIST)
    return "OK" if outcome.code is grpc.StatusCode.OK else str(outcome.info.reason)


async def took(change: Awaitable[Any], holds: Callable[[], Awaitable[bool]], *, within: float) -> float:
    """Seconds from the answer to a change until it holds elsewhere."""
    await change
    start = time.monotonic()
    while not await holds():
        assert time.monotonic() - start < within, f"it did not hold within {within} s"
        await asyncio.sleep(0.005)
    return time.monotonic() - start


class Streams:
    """As many open streams of a caller as it may have."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.open: list[Any] = []

    async def one_more(self) -> bool:
        """Whether one more is let in; it then stays open."""
        stream = self._caller.stream("JobsService/WatchJobs", WATCH)
        try:
            await stream.read()
        except grpc.aio.AioRpcError as error:
            if outcome_of(error).info.reason != "RATE_LIMITED":
                raise
            return False
        self.open.append(stream)
        return True

    async def end(self) -> Outcome:
        """How the first ends, which must be soon."""
        try:
            async with asyncio.timeout(PUSHED):
                while True:
                    await self.open[0].read()
        except grpc.aio.AioRpcError as error:
            return outcome_of(error)

    def close(self) -> None:
        for stream in self.open:
            stream.cancel()


@pytest_asyncio.fixture(loop_scope="module")
async def streams(servers: TwoServers) -> AsyncIterator[Streams]:
    """One is open, and there may be no second."""
    await servers.put(streams=1)
    _, caller = await servers.tenant()
    streams = Streams(caller)
    assert await streams.one_more()
    assert not await streams.one_more()
    yield streams
    streams.close()


async def test_a_tiers_new_limits_hold_at_once(servers: TwoServers, streams: Streams) -> None:
    times = [await took(servers.put(streams=many), streams.one_more, within=PUSHED) for many in range(2, 7)]
    print(f"limits of a tier held elsewhere after {[round(it * 1000) for it in times]} ms")
    assert not await streams.one_more()


async def test_a_tenants_own_limits_hold_at_once(servers: TwoServers) -> None:
    await servers.put(streams=1)
    tenant_id, caller = await servers.tenant()
    streams = Streams(caller)
    assert await streams.one_more()
    assert not await streams.one_more()
    own = pb.UpdateTenantRequest(tenant_id=tenant_id, limits=admin_pb2.Limits(open_streams=2))
    await took(servers.operator.ask("AdminService/UpdateTenant", own), streams.one_more, within=PUSHED)
    shown = (await servers.operator.ask("AdminService/GetTenant", pb.GetTenantRequest(tenant_id=tenant_id))).tenant
    assert shown.limits == own.limits
    none = pb.UpdateTenantRequest(tenant_id=tenant_id)
    none.update_mask.paths.append("limits")
    cleared = (await servers.operator.ask("AdminService/UpdateTenant", none)).tenant
    assert not cleared.HasField("limits")
    streams.close()


async def test_a_tenant_is_suspended_and_resumed_at_once(servers: TwoServers) -> None:
    tenant_id, caller = await servers.tenant()
    suspend = pb.SuspendTenantRequest(tenant_id=tenant_id)
    resume = pb.ResumeTenantRequest(tenant_id=tenant_id)

    async def suspended() -> bool:
        return await reason(caller) == "TENANT_SUSPENDED"

    async def resumed() -> bool:
        return await reason(caller) == "OK"

    for _ in range(3):
        off = await took(servers.operator.ask("AdminService/SuspendTenant", suspend), suspended, within=PUSHED)
        on = await took(servers.operator.ask("AdminService/ResumeTenant", resume), resumed, within=PUSHED)
        print(f"suspended after {off * 1000:.0f} ms, resumed after {on * 1000:.0f} ms")


async def test_a_revoked_key_is_refused_at_once_and_its_streams_end(servers: TwoServers) -> None:
    tenant_id, caller = await servers.tenant()
    other = await servers.caller(tenant_id)
    await servers.operator.ask(
        "AdminService/UpdateTenant",
        pb.UpdateTenantRequest(tenant_id=tenant_id, limits=admin_pb2.Limits(open_streams=10)),
    )
    ours, theirs = Streams(caller), Streams(other)
    await took(asyncio.sleep(0), ours.one_more, within=PUSHED)
    assert await theirs.one_more()
    keys = await servers.operator.ask("AdminService/ListApiKeys", pb.ListApiKeysRequest(tenant_id=tenant_id))
    [key] = [key for key in keys.api_keys if key.prefix in caller.key]
    revoke = pb.RevokeApiKeyRequest(tenant_id=tenant_id, api_key_id=key.id)

    async def refused() -> bool:
        return await reason(caller) == "CREDENTIALS_INVALID"

    await took(servers.operator.ask("AdminService/RevokeApiKey", revoke), refused, within=PUSHED)
    assert (await ours.end()).info.reason == "CREDENTIALS_INVALID"
    assert not theirs.open[0].done()
    assert await reason(other) == "OK"
    theirs.close()


async def test_a_suspended_tenants_streams_end(servers: TwoServers) -> None:
    tenant_id, caller = await servers.tenant()
    streams = Streams(caller)
    assert await streams.one_more()
    await servers.operator.ask("AdminService/SuspendTenant", pb.SuspendTenantRequest(tenant_id=tenant_id))
    outcome = await streams.end()
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_SUSPENDED")


async def test_what_a_lost_connection_does_not_tell_is_found_out(servers: TwoServers, streams: Streams) -> None:
    for many in (2, 4):
        await servers.end_listeners()
        lost = await took(servers.put(streams=many), streams.one_more, within=POLLED + SLACK)
        await servers.all_listen()
        heard = await took(servers.put(streams=many + 1), streams.one_more, within=PUSHED)
        print(f"without a connection {lost * 1000:.0f} ms, with one again {heard * 1000:.0f} ms")


async def test_what_nobody_tells_is_found_out_within_the_time_of_the_cache(
    servers: TwoServers, streams: Streams
) -> None:
    await servers.owner.execute("ALTER TABLE tiers DISABLE TRIGGER tell_policy_change")
    try:
        # It has just been looked up.
        assert not await streams.one_more()
        untold = await took(servers.put(streams=2), streams.one_more, within=POLLED + SLACK)
    finally:
        await servers.owner.execute("ALTER TABLE tiers ENABLE TRIGGER tell_policy_change")
    print(f"untold: {untold * 1000:.0f} ms")
