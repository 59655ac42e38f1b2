"""How a server stops."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.settings import Settings
from tests.support.deployment import Deployment, deployed
from tests.support.interception import outcome_of

CREATE = pb.CreateMemoryRequest(user_id="ann", text="I live in Oslo.")
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def _probe(deployment: Deployment) -> int:
    """A health probe on a connection of its own."""
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{deployment.server.port}", options=(("grpc.use_local_subchannel_pool", 1),)
    ) as channel:
        stub: Any = HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)).status)


async def test_a_drain_is_seen_by_probes_ends_watches_and_cuts_no_call_off(settings: Settings) -> None:
    async with deployed(settings.model_copy(update={"drain_notice": 1.0})) as deployment:
        caller = await deployment.caller()
        made = await caller.ask("MemoryService/CreateMemory", CREATE)
        watching = caller.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id))
        snapshot = await watching.read()

        draining = asyncio.create_task(deployment.server.drain())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching.read()
        ended = outcome_of(caught.value)
        assert (ended.code, ended.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        assert snapshot.resume_token

        assert await _probe(deployment) == NOT_SERVING
        assert (await caller.call("MemoryService/CreateMemory", CREATE)).code is grpc.StatusCode.OK
        again = await caller.call("JobsService/WatchJob", jobs.WatchJobRequest(job_id=made.job.id))
        assert again.info.reason == "SERVER_DRAINING"

        async with asyncio.timeout(10):
            await draining
        assert (await caller.call("MemoryService/CreateMemory", CREATE)).code is grpc.StatusCode.UNAVAILABLE
        assert (await deployment.rows(caller.tenant_id))["memories"] == 2


async def test_a_call_under_way_is_answered_after_the_notice(settings: Settings) -> None:
    async with deployed(settings.model_copy(update={"drain_notice": 0.1})) as deployment:
        caller = await deployment.caller()
        # A transaction of another holds what the call waits for.
        async with deployment.container.database.tenant_tx(caller.tenant_id) as connection:
            await connection.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            under_way = asyncio.create_task(caller.call("MemoryService/CreateMemory", CREATE))
            await asyncio.sleep(0.2)
            draining = asyncio.create_task(deployment.server.drain())
            await asyncio.sleep(0.5)
            assert not draining.done()
            assert not under_way.done()
            refused = await caller.call("MemoryService/CreateMemory", CREATE)
            assert refused.info.reason == "SERVER_DRAINING"
        async with asyncio.timeout(10):
            assert (await under_way).code is grpc.StatusCode.OK
            await draining


async def test_a_call_that_outlives_the_grace_is_cut_off(settings: Settings) -> None:
    async with deployed(settings.model_copy(update={"drain_notice": 0.0, "drain_grace": 0.3})) as deployment:
        caller = await deployment.caller()
        async with deployment.container.database.tenant_tx(caller.tenant_id) as connection:
            await connection.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            under_way = asyncio.create_task(caller.call("MemoryService/CreateMemory", CREATE))
            await asyncio.sleep(0.2)
            async with asyncio.timeout(5):
                await deployment.server.drain()
            assert (await under_way).code is not grpc.StatusCode.OK
