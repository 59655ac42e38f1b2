"""Limits as callers meet them: over real buckets, in a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from memoro import AsyncClient, RateLimited
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.ids import new_id
from memoro_core.limits.model import Limits, Rate
from memoro_core.tenancy.model import Scope, TierName
from memoro_server.policy import POLICIES
from tests.support.deployment import METHODS, Caller, Deployment, path_of
from tests.support.domain import fresh_name
from tests.support.interception import Outcome

SLOW = Rate(60, 20)
CREATE = "MemoryService/CreateMemory"
GET = "MemoryService/GetMemory"
SEARCH = "MemoryService/SearchMemories"
BATCH = "MemoryService/BatchCreateMemories"


def create(user: str = "ann") -> pb.CreateMemoryRequest:
    return pb.CreateMemoryRequest(request_id=str(new_id()), user_id=user, text="Ann plays the cello.")


def batch(*users: str) -> pb.BatchCreateMemoriesRequest:
    return pb.BatchCreateMemoriesRequest(requests=[create(user) for user in users])


def search(user: str = "ann") -> pb.SearchMemoriesRequest:
    return pb.SearchMemoriesRequest(user_id=user, query="cello")


async def until_refused(caller: Caller, method: str, request: Any, most: int = 25) -> tuple[int, Outcome]:
    """How many calls pass before one is refused, and that one."""
    for passed in range(most):
        outcome = await caller.call(method, request() if callable(request) else request)
        if outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return passed, outcome
    raise AssertionError(f"{most} calls have passed")


@pytest.mark.parametrize(
    ("name", "method", "request_", "passing"),
    [
        ("requests", SEARCH, search, 4),
        ("reads", GET, lambda: pb.GetMemoryRequest(memory_id=str(new_id())), 20),
        ("writes", BATCH, lambda: batch("ann"), 1),
        ("searches", SEARCH, search, 4),
        ("user_requests", SEARCH, search, 4),
    ],
)
async def test_each_limit_refuses_and_says_when_to_come_back(
    deployment: Deployment, name: str, method: str, request_: Any, passing: int
) -> None:
    slow: dict[str, Any] = {name: SLOW}
    caller = await deployment.limited(Limits(**slow))
    passed, refused = await until_refused(caller, method, request_)
    # A slow test is given a token or two.
    assert passing <= passed <= passing + 2
    assert refused.info.reason == "RATE_LIMITED"
    assert dict(refused.info.metadata) == {"limit": name}
    assert refused.detail(error_details_pb2.QuotaFailure).violations[0].subject == name
    wait = refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
    weight = POLICIES[path_of(method)].weight
    assert 0 < wait <= weight * 1000
    assert refused.trailers["grpc-retry-pushback-ms"] == str(wait)
    assert refused.trailers["ratelimit-limit"] == "20"
    assert 0 <= int(str(refused.trailers["ratelimit-remaining"])) < weight
    assert 0 < int(str(refused.trailers["ratelimit-reset"])) <= 20


async def test_a_caller_who_waits_as_told_passes(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(searches=Rate(1200, 20)))
    for _ in range(3):
        _, refused = await until_refused(caller, SEARCH, search, 60)
        await asyncio.sleep(refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() / 1000)
        assert (await caller.call(SEARCH, search())).code is grpc.StatusCode.OK


async def test_the_limits_of_one_user_are_none_of_another(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(user_requests=SLOW))
    await until_refused(caller, SEARCH, search)
    assert (await caller.call(SEARCH, search("bob"))).code is grpc.StatusCode.OK
    # A batch takes of each user his share.
    assert (await caller.call(BATCH, batch("bob", "cleo"))).code is grpc.StatusCode.OK
    assert (await caller.call(BATCH, batch("cleo", "dora"))).code is grpc.StatusCode.OK
    refused = await caller.call(BATCH, batch("cleo"))
    assert refused.info.metadata["limit"] == "user_requests"


async def test_a_refused_call_costs_nothing(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(writes=SLOW, daily_units=1_000))
    assert (await caller.call(BATCH, batch("ann"))).code is grpc.StatusCode.OK
    before = await deployment.rows(caller.tenant_id)
    for _ in range(10):
        assert (await caller.call(BATCH, batch("ann"))).info.reason == "RATE_LIMITED"
    assert await deployment.rows(caller.tenant_id) == before


async def test_a_day_ends_when_its_units_are_used_up(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(daily_units=12))
    assert (await caller.call(SEARCH, search())).code is grpc.StatusCode.OK
    assert (await caller.call(SEARCH, search())).code is grpc.StatusCode.OK
    refused = await caller.call(SEARCH, search())
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DAILY_LIMIT")
    midnight = deployment.container.clock.now().strftime("%Y-%m-%d")
    assert refused.info.metadata["limit"] == "daily_units"
    assert refused.info.metadata["reset_time"] > midnight
    assert refused.info.metadata["reset_time"].endswith("T00:00:00Z")
    assert refused.trailers["grpc-retry-pushback-ms"] == "-1"
    assert refused.trailers["ratelimit-limit"] == "12"
    # What is lighter still fits.
    missing = await caller.call(GET, pb.GetMemoryRequest(memory_id=str(new_id())))
    assert missing.code is grpc.StatusCode.NOT_FOUND


async def test_in_shadow_mode_nothing_is_refused(deployment: Deployment) -> None:
    tiers = deployment.container.tiers
    [free] = [tier for tier in await tiers.list_tiers() if tier.name == "free"]
    operator = await deployment.operator()
    principal = await deployment.container.authenticator.authenticate(f"Bearer {operator.key}")
    name = TierName(fresh_name()[:30].lower())
    shadow = replace(free, name=name, shadow=True, limits=Limits(searches=SLOW))
    await tiers.put_tier(principal, shadow, version=None, idempotency=None)
    tenant = await deployment.bootstrap.tenant(fresh_name(), "A test's")
    tenancy = deployment.container.tenancy
    await tenancy.update_tenant(tenant.id, display_name=None, tier=name, limits=None, version=None)
    caller = await deployment.caller_of(tenant)
    for _ in range(6):
        assert (await caller.call(SEARCH, search())).code is grpc.StatusCode.OK


@pytest.mark.parametrize("path", METHODS)
async def test_every_answer_of_a_limited_method_says_how_the_limits_stand(deployment: Deployment, path: str) -> None:
    scope = POLICIES[path].scope
    caller = await deployment.operator() if scope is Scope.ADMIN else await deployment.caller()
    empty: Message = GetMessageClass(METHODS[path].input_type)()
    outcome = await caller.call(path.removeprefix("/memoro.v1."), empty)
    if METHODS[path].server_streaming and outcome.code is grpc.StatusCode.OK:
        return
    for name in ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"):
        assert str(outcome.trailers[name]).isdigit(), name
    assert outcome.trailers["x-request-id"]


async def test_the_sdk_waits_unless_told_not_to_or_the_deadline_is_too_short(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(searches=Rate(600, 20)))
    await until_refused(caller, SEARCH, search)
    address = f"127.0.0.1:{deployment.server.port}"
    async with AsyncClient(address, api_key=caller.key) as client:
        for _ in range(3):
            await client.memories.search("cello", user_id="ann")
        await until_refused(caller, SEARCH, search)
        with pytest.raises(RateLimited) as caught:
            await client.memories.search("cello", user_id="ann", timeout=0.05)
        assert caught.value.limit == "searches"
    async with AsyncClient(address, api_key=caller.key, wait_for_limits=False) as client:
        await until_refused(caller, SEARCH, search)
        with pytest.raises(RateLimited):
            await client.memories.search("cello", user_id="ann")
