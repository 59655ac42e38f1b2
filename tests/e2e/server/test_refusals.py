"""A call that is refused takes nothing: no token of any limit, and none of the day's units."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from redis.asyncio import Redis

from memoro.v1 import billing_service_pb2, jobs_service_pb2
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.ids import new_id
from memoro_core.limits.model import Limits, Rate
from memoro_core.postgres.unit_store import PostgresUnitStore
from memoro_core.redis.keys import limit_units
from memoro_core.settings import Settings
from tests.support.deployment import Caller, Deployment
from tests.support.interception import Outcome, outcome_of
from tests.support.jobs import until

BATCH = "MemoryService/BatchCreateMemories"
CREATE = "MemoryService/CreateMemory"
GET = "MemoryService/GetMemory"
SEARCH = "MemoryService/SearchMemories"
WATCH = "JobsService/WatchJob"
WATCH_ALL = "JobsService/WatchJobs"
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED


def still(burst: int) -> Rate:
    """A bucket to which nothing comes while a test runs."""
    return Rate(1, burst)


def create(user: str) -> pb.CreateMemoryRequest:
    return pb.CreateMemoryRequest(request_id=str(new_id()), user_id=user, text="Ann plays the cello.")


def batch(user: str) -> pb.BatchCreateMemoriesRequest:
    """Weighs 20, all of it the user's."""
    return pb.BatchCreateMemoriesRequest(requests=[create(user)])


def search(user: str) -> pb.SearchMemoriesRequest:
    """Weighs 5."""
    return pb.SearchMemoriesRequest(user_id=user, query="cello")


def missing() -> pb.GetMemoryRequest:
    """Weighs 1, and names no user."""
    return pb.GetMemoryRequest(memory_id=str(new_id()))


def left(outcome: Outcome) -> tuple[int, int]:
    """The tokens that are left, and of how many, of the limit that is nearest to being used up."""
    return _left(outcome.trailers)


def _left(trailers: Any) -> tuple[int, int]:
    return int(str(trailers["ratelimit-remaining"])), int(str(trailers["ratelimit-limit"]))


async def refuse(caller: Caller, method: str, *requests: Any, by: str) -> None:
    """Calls that are refused, several times each."""
    for request in requests * 5:
        refused = await caller.call(method, request)
        assert (refused.code, refused.info.metadata["limit"]) == (REFUSED, by)


async def used(deployment: Deployment, settings: Settings, caller: Caller, units: int) -> None:
    """The day's units that were used, in Redis and in the database, come to so many and stay there."""
    day = deployment.container.clock.now().date()
    store = PostgresUnitStore(deployment.container.database)

    async def known() -> tuple[int, int]:
        async with Redis.from_url(settings.redis_url) as redis:
            shared = await redis.get(limit_units(caller.tenant_id, day))
        [(_, kept)] = (await store.add({(caller.tenant_id, day): 0})).items()
        return int(shared or 0), kept

    async def all_counted() -> bool:
        return await known() == (units, units)

    try:
        await until(all_counted, seconds=8)
    except TimeoutError:
        raise AssertionError(f"{await known()} instead of {units}") from None
    # All that is counted later is counted within a second.
    await asyncio.sleep(1.1)
    assert await known() == (units, units)


async def test_what_a_users_limit_refuses(deployment: Deployment, settings: Settings) -> None:
    caller = await deployment.limited(Limits(user_requests=still(20), requests=still(100), daily_units=1000))
    await caller.ask(BATCH, batch("ann"))
    await refuse(caller, BATCH, batch("ann"), by="user_requests")
    await refuse(caller, CREATE, create("ann"), by="user_requests")
    await refuse(caller, SEARCH, search("ann"), by="user_requests")
    # Neither does the user pay whose limit has room.
    both = pb.BatchCreateMemoriesRequest(requests=[create("ann"), create("bob")])
    await refuse(caller, BATCH, both, by="user_requests")
    assert left(await caller.call(GET, missing())) == (79, 100)
    assert left(await caller.call(SEARCH, search("bob"))) == (74, 100)
    assert left(await caller.call(SEARCH, search("bob"))) == (10, 20)
    await used(deployment, settings, caller, 31)


async def test_what_the_limit_of_a_class_refuses(deployment: Deployment, settings: Settings) -> None:
    caller = await deployment.limited(
        Limits(writes=still(20), requests=still(100), user_requests=still(40), daily_units=1000)
    )
    await caller.ask(BATCH, batch("ann"))
    await refuse(caller, BATCH, batch("ann"), batch("bob"), by="writes")
    await refuse(caller, CREATE, create("ann"), create("bob"), by="writes")
    assert left(await caller.call(GET, missing())) == (79, 100)
    assert left(await caller.call(SEARCH, search("ann"))) == (15, 40)
    assert left(await caller.call(SEARCH, search("bob"))) == (69, 100)
    await used(deployment, settings, caller, 31)


async def test_what_the_days_units_refuse(deployment: Deployment, settings: Settings) -> None:
    caller = await deployment.limited(Limits(daily_units=44, requests=still(100), user_requests=still(40)))
    await caller.ask(BATCH, batch("ann"))
    await caller.ask(BATCH, batch("bob"))
    await refuse(caller, BATCH, batch("ann"), batch("bob"), by="daily_units")
    await refuse(caller, SEARCH, search("ann"), search("bob"), by="daily_units")
    assert left(await caller.call(GET, missing())) == (3, 44)
    await deployment.limit(caller.tenant_id, Limits(requests=still(100), user_requests=still(40), daily_units=1000))
    gets = 1

    async def holds() -> bool:
        nonlocal gets
        gets += 1
        remaining, maximum = left(await caller.call(GET, missing()))
        assert maximum == 44 or remaining == 60 - gets
        return maximum == 100

    await until(holds, seconds=2)
    assert left(await caller.call(SEARCH, search("ann"))) == (15, 40)
    await used(deployment, settings, caller, 45 + gets)


async def test_calls_are_refused_in_the_order_of_the_checks(deployment: Deployment, settings: Settings) -> None:
    caller = await deployment.limited(Limits(reads=still(20), daily_units=1000))
    # Who is not known, may not call, or says nothing that can be read, is not counted, nor told of limits.
    for outcome, code in (
        (await caller.call(GET, missing(), metadata=()), grpc.StatusCode.UNAUTHENTICATED),
        (
            await caller.call("BillingService/GetBalance", billing_service_pb2.GetBalanceRequest()),
            grpc.StatusCode.PERMISSION_DENIED,
        ),
        (await caller.call(GET, b"\xff\xff"), grpc.StatusCode.INVALID_ARGUMENT),
    ):
        assert outcome.code is code
        assert "ratelimit-limit" not in outcome.trailers
    assert left(await caller.call(GET, missing())) == (19, 20)
    # What breaks a rule of the contract is counted: that is looked at after the limits.
    invalid = pb.GetMemoryRequest(memory_id="no id")
    outcome, passed = await caller.call(GET, invalid), 1
    assert left(outcome) == (18, 20)
    while outcome.code is not REFUSED:
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        outcome, passed = await caller.call(GET, invalid), passed + 1
    assert passed == 20
    await refuse(caller, GET, invalid, missing(), by="reads")
    assert (await caller.call(GET, b"\xff\xff")).code is grpc.StatusCode.INVALID_ARGUMENT
    await used(deployment, settings, caller, 20)


async def test_a_refused_watch_is_told_as_any_call(deployment: Deployment, settings: Settings) -> None:
    caller = await deployment.limited(Limits(reads=still(20), daily_units=1000))
    request = jobs_service_pb2.WatchJobsRequest()
    for _ in range(4):
        assert (await caller.call(WATCH_ALL, request)).code is grpc.StatusCode.OK
    await refuse(caller, WATCH_ALL, request, by="reads")
    refused = await caller.call(WATCH_ALL, request)
    wait = refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
    assert refused.trailers["grpc-retry-pushback-ms"] == str(wait)
    assert left(refused) == (0, 20)
    await used(deployment, settings, caller, 20)


async def test_a_watch_too_many_has_taken_its_weight(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(reads=still(40), open_streams=1))
    request = jobs_service_pb2.WatchJobsRequest()
    watching = caller.stream(WATCH_ALL, request)
    await watching.read()
    refused = await caller.call(WATCH_ALL, request)
    assert (refused.code, refused.info.metadata["limit"]) == (REFUSED, "open_streams")
    assert left(refused) == (30, 40)
    assert left(await caller.call(GET, missing())) == (29, 40)
    watching.cancel()


async def test_a_stream_tells_of_its_limits_at_its_end(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(reads=still(20), requests=still(100)))
    job = (await caller.ask(CREATE, create("ann"))).job
    watching = caller.stream(WATCH, jobs_service_pb2.WatchJobRequest(job_id=job.id))
    first = await watching.read()
    assert first.snapshot.id == job.id
    assert [name for name, _ in await watching.initial_metadata() if name.startswith("ratelimit-")] == []
    # What is told is how the limit stood when the stream was opened.
    assert left(await caller.call(GET, missing())) == (18, 20)
    await caller.ask("JobsService/CancelJob", jobs_service_pb2.CancelJobRequest(job_id=job.id))
    async with asyncio.timeout(20):
        while await watching.read() is not grpc.aio.EOF:
            pass
    assert await watching.code() is grpc.StatusCode.OK
    trailers = dict(await watching.trailing_metadata())
    assert _left(trailers) == (19, 20)
    assert 0 < int(trailers["ratelimit-reset"]) <= 60
    assert trailers["x-request-id"]


async def test_a_stream_that_breaks_tells_of_its_limits_too(deployment: Deployment) -> None:
    caller = await deployment.limited(Limits(reads=still(20)))
    watching = caller.stream(WATCH_ALL, jobs_service_pb2.WatchJobsRequest())
    await watching.read()
    draining = asyncio.create_task(deployment.server.drain())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watching.read()
    broken = outcome_of(caught.value)
    assert (broken.code, broken.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert left(broken) == (15, 20)
    await draining
