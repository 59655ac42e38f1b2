"""Tiers as operators make them, over the wire."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from memoro.v1 import admin_pb2
from memoro.v1 import admin_service_pb2 as pb
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as memory
from memoro_core.redis.keys import CUSTOM_STREAM
from tests.support.deployment import Deployment
from tests.support.domain import fresh_name
from tests.support.jobs import until

LIMITS = admin_pb2.Limits(
    requests=admin_pb2.RateLimit(per_minute=600, burst=120), daily_units=5000, open_streams=2, max_bytes=10**9
)


@pytest_asyncio.fixture
async def tier(owner_database_url: str) -> AsyncIterator[admin_pb2.Tier]:
    """A tier that is not there yet; at the end it is not there again."""
    name = f"t-{secrets.token_hex(6)}"
    yield admin_pb2.Tier(
        name=name,
        limits=LIMITS,
        weight=3,
        tenant_in_flight=4,
        user_in_flight=2,
        kept_succeeded=Duration(seconds=3600, nanos=5000),
    )
    owner = await asyncpg.connect(owner_database_url)
    await owner.execute("UPDATE tenants SET tier = 'free' WHERE tier = $1", name)
    await owner.execute("DELETE FROM tiers WHERE tier = $1", name)
    await owner.close()


async def test_a_tier_is_made_listed_and_replaced(deployment: Deployment, tier: admin_pb2.Tier) -> None:
    operator = await deployment.operator()
    request = pb.PutTierRequest(request_id=fresh_name(), tier=tier)
    made = (await operator.ask("AdminService/PutTier", request)).tier
    expected = admin_pb2.Tier()
    expected.CopyFrom(tier)
    expected.etag, expected.update_time.seconds = "1", made.update_time.seconds
    expected.update_time.nanos = made.update_time.nanos
    assert made == expected
    assert (await operator.ask("AdminService/PutTier", request)).tier == made
    listed = (await operator.ask("AdminService/ListTiers", pb.ListTiersRequest())).tiers
    assert made in listed
    assert [one.weight for one in listed] == sorted(one.weight for one in listed)

    tier.ClearField("limits")
    tier.ClearField("kept_succeeded")
    tier.shadow, tier.etag = True, made.etag
    changed = (await operator.ask("AdminService/PutTier", pb.PutTierRequest(tier=tier))).tier
    assert (changed.etag, changed.shadow, changed.limits) == ("2", True, admin_pb2.Limits())
    assert not changed.HasField("kept_succeeded")
    stale = await operator.call("AdminService/PutTier", pb.PutTierRequest(tier=tier))
    assert (stale.code, stale.info.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("name", {"name": "Gold"}),
        ("name", {"name": ""}),
        ("weight", {"weight": 0}),
        ("weight", {"weight": 1001}),
        ("tenant_in_flight", {"tenant_in_flight": 0}),
        ("user_in_flight", {"user_in_flight": 100_001}),
        ("kept_failed", {"kept_failed": Duration(seconds=59)}),
        ("limits.requests.burst", {"limits": admin_pb2.Limits(requests=admin_pb2.RateLimit(per_minute=60, burst=19))}),
        ("limits.reads.per_minute", {"limits": admin_pb2.Limits(reads=admin_pb2.RateLimit(per_minute=0, burst=20))}),
        ("limits.max_memories", {"limits": admin_pb2.Limits(max_memories=0)}),
        ("etag", {"etag": "x"}),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_field(
    deployment: Deployment, tier: admin_pb2.Tier, field: str, bad: dict[str, object]
) -> None:
    operator = await deployment.operator()
    for name, value in bad.items():
        tier.ClearField(name)  # type: ignore[arg-type]
        tier.MergeFrom(admin_pb2.Tier(**{name: value}))  # type: ignore[arg-type]
    outcome = await operator.call("AdminService/PutTier", pb.PutTierRequest(tier=tier))
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in outcome.message


async def test_no_tier_at_all_is_refused(deployment: Deployment) -> None:
    outcome = await (await deployment.operator()).call("AdminService/PutTier", pb.PutTierRequest())
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_tenants_own_limits_are_bounded_too(deployment: Deployment) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    request = pb.UpdateTenantRequest(
        tenant_id=str(caller.tenant_id), limits=admin_pb2.Limits(writes=admin_pb2.RateLimit(per_minute=60, burst=5))
    )
    outcome = await operator.call("AdminService/UpdateTenant", request)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_new_tier_is_a_queue_like_the_others(deployment: Deployment, tier: admin_pb2.Tier) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    await operator.ask("AdminService/PutTier", pb.PutTierRequest(tier=tier))
    tenant_id = str(caller.tenant_id)
    await operator.ask("AdminService/UpdateTenant", pb.UpdateTenantRequest(tenant_id=tenant_id, tier=tier.name))
    redis = deployment.container.redis

    async def hinted() -> bool:
        text = memory.CreateMemoryRequest(user_id="ann", text="Ann plays the cello.")
        await caller.ask("MemoryService/CreateMemory", text)
        return bool(await redis.xlen(CUSTOM_STREAM))

    # No worker runs here: what is hinted stays in the stream.
    await until(hinted, seconds=10)
    queues = (await operator.ask("AdminService/PauseQueue", pb.PauseQueueRequest(queue=tier.name))).queues
    [queue] = [queue for queue in queues if queue.name == tier.name]
    assert queue.waiting >= 1
    assert queue.HasField("pause_time")
    # To replace a tier leaves its queue as it is.
    await operator.ask("AdminService/PutTier", pb.PutTierRequest(tier=tier))
    queues = (await operator.ask("AdminService/GetWorkers", pb.GetWorkersRequest())).queues
    assert [queue.HasField("pause_time") for queue in queues if queue.name == tier.name] == [True]
    clear = pb.ClearQueueRequest(queue=tier.name)
    assert (await operator.ask("AdminService/ClearQueue", clear)).cancelled >= 1


async def test_streams_beyond_a_limit_are_counted_and_in_shadow_mode_let_in(
    deployment: Deployment, tier: admin_pb2.Tier
) -> None:
    operator, caller = await deployment.operator(), await deployment.caller()
    await operator.ask("AdminService/PutTier", pb.PutTierRequest(tier=tier))
    of_tier = pb.UpdateTenantRequest(tenant_id=str(caller.tenant_id), tier=tier.name)
    await operator.ask("AdminService/UpdateTenant", of_tier)
    watch, opened = jobs.WatchJobsRequest(), []

    def refused(mode: str) -> float:
        labels = {"tier": tier.name, "limit": "open_streams", "mode": mode}
        return deployment.server._metrics.registry.get_sample_value("memoro_limits_refused_total", labels) or 0

    async def held() -> bool:
        return (await caller.call("JobsService/WatchJobs", watch)).code is grpc.StatusCode.RESOURCE_EXHAUSTED

    for _ in range(2):
        opened.append(caller.stream("JobsService/WatchJobs", watch))
        await opened[-1].read()
    await until(held, seconds=5)
    assert refused("refuse") >= 1
    assert refused("shadow") == 0
    before = refused("refuse")
    tier.shadow = True
    await operator.ask("AdminService/PutTier", pb.PutTierRequest(tier=tier))

    async def let_in() -> bool:
        return not await held()

    await until(let_in, seconds=5)
    for _ in range(3):
        opened.append(caller.stream("JobsService/WatchJobs", watch))
        await opened[-1].read()
    assert refused("shadow") >= 4
    assert refused("refuse") - before <= 1
    for stream in opened:
        stream.cancel()
