"""Following jobs as callers see it: what is told, how many may follow, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from memoro.v1 import jobs_pb2
from memoro.v1 import jobs_service_pb2 as jobs
from memoro.v1 import memory_service_pb2 as pb
from memoro_core.settings import Settings
from memoro_core.tenancy.model import FREE_TIER
from tests.support.deployment import Caller, Deployment, deployed
from tests.support.domain import fresh_name
from tests.support.interception import outcome_of
from tests.support.jobs import until

WATCH_JOBS = "JobsService/WatchJobs"
QUEUED, CANCELLED = jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_CANCELLED


async def create(caller: Caller) -> Any:
    return await caller.ask("MemoryService/CreateMemory", pb.CreateMemoryRequest(user_id="ann", text="I live in Oslo."))


async def beginning(watching: Any) -> list[Any]:
    """The snapshots, and the heartbeat that ends them."""
    got: list[Any] = []
    async with asyncio.timeout(10):
        while not got or not got[-1].HasField("heartbeat"):
            got.append(await watching.read())
    return got


async def updates(watching: Any, last: int) -> list[Any]:
    """What is told up to the first update with that state."""
    got: list[Any] = []
    async with asyncio.timeout(20):
        while not got or got[-1].update.state != last:
            message = await watching.read()
            if not message.HasField("heartbeat"):
                got.append(message)
    return got


async def test_all_jobs_of_a_tenant_are_followed(deployment: Deployment) -> None:
    caller = await deployment.caller()
    waiting = (await create(caller)).job
    watching = caller.stream(WATCH_JOBS, jobs.WatchJobsRequest())
    snapshot, end = await beginning(watching)
    assert (snapshot.snapshot, snapshot.sequence) == (waiting, waiting.sequence)
    assert end.sequence == 0
    assert end.heartbeat.interval.ToTimedelta().total_seconds() == deployment.container.settings.watch_heartbeat

    told: list[Any] = []
    made = [(await create(caller)).job for _ in range(3)]
    for job in (*made, waiting):
        await caller.ask("JobsService/CancelJob", jobs.CancelJobRequest(job_id=job.id))
        told += await updates(watching, CANCELLED)
    watching.cancel()
    for job in made:
        of_job = [message for message in told if message.update.job_id == job.id]
        assert [(message.sequence, message.update.state) for message in of_job] == [(1, QUEUED), (2, CANCELLED)]
    assert [message.sequence for message in told if message.update.job_id == waiting.id] == [waiting.sequence + 1]

    for place, message in enumerate(told[:-1]):
        resumed = caller.stream(WATCH_JOBS, jobs.WatchJobsRequest(resume_token=message.resume_token))
        rest: list[Any] = []
        while len(rest) < len(told) - place - 1:
            rest += await updates(resumed, CANCELLED)
        resumed.cancel()
        assert rest == told[place + 1 :]


async def test_a_watch_tells_what_fits_its_filter(deployment: Deployment) -> None:
    caller = await deployment.caller()
    first, second = (await create(caller)).job, (await create(caller)).job
    only_ended = jobs.WatchJobsRequest(states=[CANCELLED], kinds=[jobs_pb2.JOB_KIND_MEMORY_ENRICH], user_id="ann")
    watching = caller.stream(WATCH_JOBS, only_ended)
    assert len(await beginning(watching)) == 1
    tokens: list[str] = []
    for job in (first, second):
        await caller.ask("JobsService/CancelJob", jobs.CancelJobRequest(job_id=job.id))
        (told,) = await updates(watching, CANCELLED)
        assert told.update.job_id == job.id
        tokens.append(told.resume_token)
    watching.cancel()
    any_state = jobs.WatchJobsRequest(states=[jobs_pb2.JOB_STATE_UNSPECIFIED, QUEUED], resume_token=tokens[0])
    assert (await caller.call(WATCH_JOBS, any_state)).info.reason == "RESUME_TOKEN_INVALID"
    unknown: Any = [99]
    unknown = jobs.WatchJobsRequest(states=unknown)
    assert (await caller.call(WATCH_JOBS, unknown)).info.reason == "INVALID_FIELD"


async def test_a_quiet_watch_hears_heartbeats(deployment: Deployment) -> None:
    caller = await deployment.caller()
    watching = caller.stream(WATCH_JOBS, jobs.WatchJobsRequest())
    await beginning(watching)
    async with asyncio.timeout(deployment.container.settings.watch_heartbeat + 5):
        again = await watching.read()
    watching.cancel()
    assert again.HasField("heartbeat")
    assert again.resume_token


async def test_a_drain_ends_watches_which_go_on_elsewhere(settings: Settings) -> None:
    async with deployed(settings) as other, deployed(settings) as deployment:
        caller = await deployment.caller()
        watching = caller.stream(WATCH_JOBS, jobs.WatchJobsRequest())
        (end,) = await beginning(watching)
        draining = asyncio.create_task(deployment.server.drain())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching.read()
        ended = outcome_of(caught.value)
        assert (ended.code, ended.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        await draining
        elsewhere = Caller(other.channel, caller.tenant_id, caller.key)
        job = (await create(elsewhere)).job
        resumed = elsewhere.stream(WATCH_JOBS, jobs.WatchJobsRequest(resume_token=end.resume_token))
        assert (await updates(resumed, QUEUED))[0].update.job_id == job.id
        resumed.cancel()


@pytest_asyncio.fixture
async def two_streams(owner_database_url: str) -> AsyncIterator[None]:
    """The lowest tier allows two open streams."""
    owner = await asyncpg.connect(owner_database_url)
    before = await owner.fetchval("SELECT limits ->> 'open_streams' FROM tiers WHERE tier = 'free'")
    await owner.execute("UPDATE tiers SET limits = limits || '{\"open_streams\": 2}' WHERE tier = 'free'")
    try:
        yield
    finally:
        await owner.execute(
            "UPDATE tiers SET limits = limits || jsonb_build_object('open_streams', $1::int) WHERE tier = 'free'",
            int(before),
        )
        await owner.close()


@pytest.mark.usefixtures("two_streams")
async def test_a_tenant_has_so_many_watches_open_as_its_tier_says(deployment: Deployment) -> None:
    tenancy = deployment.container.tenancy
    caller = await deployment.caller_of(await tenancy.create_tenant(None, fresh_name(), "", FREE_TIER))
    job = (await create(caller)).job
    of_all = caller.stream(WATCH_JOBS, jobs.WatchJobsRequest())
    await beginning(of_all)
    of_one = caller.stream("JobsService/WatchJob", jobs.WatchJobRequest(job_id=job.id))
    await of_one.read()
    for method, request in (
        (WATCH_JOBS, jobs.WatchJobsRequest()),
        ("JobsService/WatchJob", jobs.WatchJobRequest(job_id=job.id)),
    ):
        refused = await caller.call(method, request)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
        assert refused.detail(error_details_pb2.QuotaFailure).violations[0].subject == "open_streams"
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToTimedelta()
    # Another tenant has its own.
    assert (await (await deployment.caller()).call(WATCH_JOBS, jobs.WatchJobsRequest())).code is grpc.StatusCode.OK
    # However a stream ends, its place is free again: here by its caller, and by the end of its job.
    of_all.cancel()
    await caller.ask("JobsService/CancelJob", jobs.CancelJobRequest(job_id=job.id))

    async def free_again() -> bool:
        watching = deployment.container
        return watching.watcher.open_watches == watching.tenant_watcher.open_watches == 0

    await until(free_again, seconds=10)
    again = [caller.stream(WATCH_JOBS, jobs.WatchJobsRequest()) for _ in range(2)]
    for one in again:
        await beginning(one)
    for one in again:
        one.cancel()
