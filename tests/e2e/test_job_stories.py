"""What can become of a job, each seen through the SDK, the command and a webhook receiver that checks signatures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from memoro import (
    AsyncClient,
    AsyncJobHandle,
    FailedPrecondition,
    Job,
    JobCancelled,
    JobFailed,
    JobState,
    JobUpdate,
    RequeueResult,
    TriggerResult,
)
from memoro_core.ids import JobId, TenantId
from memoro_core.postgres.database import open_database
from memoro_core.settings import Settings
from tests.fakes.openai_server import FakeOpenAI, Fault
from tests.fakes.webhook_receiver import Receiver
from tests.support.deferrals import deferrals_of
from tests.support.dev import Dev, running_dev

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ANSWERS_WITHIN = 30.0
"""Seconds for anything that happens at once."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[FakeOpenAI]:
    """The embedding model's provider, which fails when it is told to."""
    async with FakeOpenAI() as server:
        yield server


@pytest.fixture(scope="module")
def deployment(provider: FakeOpenAI) -> Iterator[Dev]:
    """A deployment that embeds by that provider and may send webhooks to this machine."""
    environment = {
        "MEMORO_EMBEDDING_PROVIDER": "openai",
        "MEMORO_EXTRACTION_PROVIDER": "none",
        "MEMORO_OPENAI_BASE_URL": provider.base_url,
        "MEMORO_OPENAI_EMBEDDING_DIMENSIONS": str(provider.dimensions),
        "OPENAI_API_KEY": provider.api_key,
        "MEMORO_WEBHOOK_ALLOW_PRIVATE": "true",
        "MEMORO_WEBHOOK_INTERVAL": "0.2",
        "MEMORO_SECRET_KEY": "a key of at least thirty-two characters",
    }
    with running_dev(environment) as running:
        yield running


@dataclass
class Witnesses:
    """Whoever sees what becomes of a job."""

    deployment: Dev
    client: AsyncClient
    operator: AsyncClient
    receiver: Receiver
    updates: list[JobUpdate]
    """What a watch of all jobs has told."""

    async def add(self, text: str) -> AsyncJobHandle:
        """Adds a text; its job."""
        return (await self.client.memories.create(user_id="ann", text=text)).job

    async def until(self, job_id: str, holds: Callable[[Job], bool]) -> Job:
        """The job, once that holds for it."""
        async with asyncio.timeout(ANSWERS_WITHIN):
            while not holds(job := await self.client.jobs.get(job_id)):
                await asyncio.sleep(0.02)
        return job

    async def memoro(self, *arguments: str, operator: bool = False) -> list[Any]:
        """The lines of JSON that a command prints."""
        return [json.loads(line) for line in (await self.shown(*arguments, "--json", operator=operator)).splitlines()]

    async def shown(self, *arguments: str, operator: bool = False) -> str:
        """What a command prints."""
        key = self.deployment.admin_key if operator else None
        return await asyncio.to_thread(lambda: self.deployment.memoro(*arguments, api_key=key))

    async def tenant_id(self) -> str:
        """The tenant of the jobs."""
        (tenant,) = [one async for one in self.operator.admin.tenants.list() if one.name == "dev"]
        return tenant.id

    async def states(self, job_id: str) -> list[JobState]:
        """Where the job stood, one after the other, as the watch of all jobs has told to its end."""
        async with asyncio.timeout(ANSWERS_WITHIN):
            while not any(update.state.ended for update in self.updates if update.job_id == job_id):
                await asyncio.sleep(0.02)
        told = [update for update in self.updates if update.job_id == job_id]
        assert [update.sequence for update in told] == list(range(told[0].sequence, told[-1].sequence + 1))
        return [state for state, _ in groupby(update.state for update in told)]

    async def delivered(self, types: dict[str, str]) -> dict[str, dict[str, Any]]:
        """The data of the webhooks, by job: one has come for each of these, of its type, and no other for a while."""
        await self.receiver.wait_for(len(types))
        await asyncio.sleep(1.0)
        events = [event.body for event in self.receiver.received]
        # Events of different jobs overtake each other.
        assert sorted((event["data"]["job_id"], event["type"]) for event in events) == sorted(types.items())
        assert self.receiver.refused == 0
        return {event["data"]["job_id"]: event["data"] for event in events}


@pytest_asyncio.fixture(loop_scope="module")
async def witnesses(deployment: Dev, provider: FakeOpenAI) -> AsyncIterator[Witnesses]:
    """All of them, from before the job is there."""
    async with (
        AsyncClient(deployment.endpoint, api_key=deployment.api_key) as client,
        AsyncClient(deployment.endpoint, api_key=deployment.admin_key) as operator,
        Receiver() as receiver,
        client.jobs.watch_all() as watch,
    ):
        endpoint = await client.webhooks.create(receiver.url)
        receiver.secrets.append(endpoint.secret or "")
        updates: list[JobUpdate] = []

        async def follow() -> None:
            async for update in watch:
                updates.append(update)

        following = asyncio.ensure_future(follow())
        seen = Witnesses(deployment, client, operator, receiver, updates)
        await operator.billing.add_credits(await seen.tenant_id(), 10**9)
        yield seen
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.webhooks.delete(endpoint.endpoint.id)


async def test_a_job_that_waits_for_a_retry(witnesses: Witnesses, provider: FakeOpenAI) -> None:
    provider.script("embeddings", Fault(503, {"retry-after": "600"}))
    handle = await witnesses.add("Ann moved to Lyon.")
    waiting = await witnesses.until(handle.id, lambda job: job.waiting_for_retry)
    assert waiting.error is not None
    assert (waiting.error.reason, waiting.error.retryable, waiting.attempt) == ("PROVIDER_FAILED", True, 1)
    assert waiting.run_time is not None
    assert waiting.run_time > datetime.now(UTC) + timedelta(seconds=500)

    (got,) = await witnesses.memoro("jobs", "get", handle.id)
    assert (got["state"], got["attempt"], got["error"]["reason"]) == ("QUEUED", 1, "PROVIDER_FAILED")
    shown = await witnesses.shown("jobs", "get", handle.id)
    assert shown.startswith(f"job {handle.id} QUEUED after attempt 1 of 5: the model provider answered 503")
    assert "(in 10 min)" in shown
    assert "(in 10 min)" in await witnesses.shown("jobs", "list", "--state", "queued")

    # Nothing has ended, so nobody is told.
    assert witnesses.receiver.requests == 0
    triggered = await witnesses.memoro("admin", "trigger", "--tenant", await witnesses.tenant_id(), operator=True)
    assert triggered == [{"released": 0, "due": 1}]
    assert (await handle.result(timeout=ANSWERS_WITHIN)).memories == 1
    assert await witnesses.states(handle.id) == [
        *(JobState.QUEUED, JobState.RUNNING, JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    ]
    told = await witnesses.delivered({handle.id: "job.succeeded"})
    assert told[handle.id]["attempt"] == 2


async def defer(deployment: Dev, tenant_id: str, job_id: str, until: datetime) -> None:
    """Puts a job off, as a budget that is used up would."""
    settings = Settings.model_validate({"database_url": deployment.database_url})
    async with open_database(settings) as database:
        await deferrals_of(database).defer(
            TenantId(UUID(tenant_id)), [JobId(UUID(job_id))], until=until, now=datetime.now(UTC)
        )


async def test_a_deferred_job(witnesses: Witnesses) -> None:
    tenant_id = await witnesses.tenant_id()
    paused = await witnesses.memoro("admin", "pause", operator=True)
    assert all(queue["pause_time"] for queue in paused)
    try:
        # Begun no more within a second, everywhere.
        await asyncio.sleep(1.0)
        handle = await witnesses.add("Ann plays the cello.")
        until = datetime.now(UTC) + timedelta(hours=3, minutes=1)
        await defer(witnesses.deployment, tenant_id, handle.id, until)
        deferred = await handle.refresh()
        assert deferred.state is JobState.DEFERRED
        assert deferred.run_time is not None
        assert abs(deferred.run_time - until) < timedelta(seconds=1)
        status = await witnesses.operator.admin.workers()
        assert status.workers
        assert sum(queue.deferred for queue in status.queues) == 1

        (listed,) = await witnesses.memoro("jobs", "list", "--state", "deferred")
        assert (listed["id"], listed["attempt"]) == (handle.id, 0)
        assert (await witnesses.shown("jobs", "get", handle.id)).startswith(f"job {handle.id} DEFERRED; up to ")
        assert "(in 3 h)" in await witnesses.shown("jobs", "list")
        (operating,) = await witnesses.memoro("admin", "workers", operator=True)
        assert [queue["deferred"] for queue in operating["queues"] if queue["deferred"]] == [1]

        assert witnesses.receiver.requests == 0
        assert await witnesses.operator.admin.trigger_processing(tenant_id) == TriggerResult(released=1, due=0)
        # Released, it stands behind the pause.
        assert (await handle.refresh()).state is JobState.QUEUED
    finally:
        resumed = await witnesses.operator.admin.resume_queue()
    assert not any(queue.paused for queue in resumed)
    assert (await handle.result(timeout=ANSWERS_WITHIN)).memories == 1
    assert await witnesses.states(handle.id) == [
        *(JobState.QUEUED, JobState.DEFERRED, JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
    ]
    told = await witnesses.delivered({handle.id: "job.succeeded"})
    assert told[handle.id]["attempt"] == 1


async def test_a_job_that_is_cancelled_while_it_runs(witnesses: Witnesses, provider: FakeOpenAI) -> None:
    provider.script("embeddings", Fault(hang=60.0))
    asked = provider.count("embeddings")
    handle = await witnesses.add("Ann lives in Rome.")
    async with asyncio.timeout(ANSWERS_WITHIN):
        while provider.count("embeddings") == asked:
            await asyncio.sleep(0.02)
    called = datetime.now(UTC)
    assert (await handle.cancel()).cancel_requested
    with pytest.raises(JobCancelled) as caught:
        await handle.result(timeout=ANSWERS_WITHIN)
    ended = (await handle.refresh()).end_time
    assert ended is not None
    assert ended - called < timedelta(seconds=1)
    assert caught.value.job.state is JobState.CANCELLED

    (got,) = await witnesses.memoro("jobs", "get", handle.id)
    assert (got["state"], got["cancel_requested"], got["result"]) == ("CANCELLED", True, None)
    assert await witnesses.states(handle.id) == [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED]
    await witnesses.delivered({handle.id: "job.cancelled"})


async def test_a_job_that_fails_and_is_requeued(witnesses: Witnesses, provider: FakeOpenAI) -> None:
    provider.script("embeddings", Fault(400))
    handle = await witnesses.add("Ann likes tea.")
    with pytest.raises(JobFailed) as caught:
        await handle.result(timeout=ANSWERS_WITHIN)
    assert caught.value.reason == "PROVIDER_FAILED"
    (listed,) = await witnesses.memoro("jobs", "list", "--state", "failed")
    assert (listed["id"], listed["error"]["retryable"], listed["attempt"]) == (handle.id, False, 1)
    assert "(PROVIDER_FAILED)" in await witnesses.shown("jobs", "list", "--state", "failed")
    await witnesses.delivered({handle.id: "job.failed"})

    arguments = ("--tenant", await witnesses.tenant_id(), "--reason", "PROVIDER_FAILED")
    (requeued,) = await witnesses.memoro("admin", "requeue", *arguments, operator=True)
    assert requeued == {"requeued": 1, "skipped": 0, "more": False}
    (again,) = [job async for job in witnesses.client.jobs.list() if job.retry_of == handle.id]
    assert (await witnesses.client.jobs.handle(again.id).result(timeout=ANSWERS_WITHIN)).memories == 1
    assert await witnesses.states(again.id) == [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]
    told = await witnesses.delivered({handle.id: "job.failed", again.id: "job.succeeded"})
    assert told[handle.id]["error"]["reason"] == "PROVIDER_FAILED"
    assert told[again.id]["attempt"] == 1

    # Once is enough, for whoever asks.
    tenant_id = await witnesses.tenant_id()
    assert await witnesses.operator.admin.requeue_jobs(tenant_id=tenant_id) == RequeueResult(0, 0, False)
    with pytest.raises(FailedPrecondition) as refused:
        await handle.retry()
    assert refused.value.reason == "JOB_NOT_RETRYABLE"


async def test_a_job_that_fails_and_is_retried(witnesses: Witnesses, provider: FakeOpenAI) -> None:
    provider.script("embeddings", Fault(400), Fault(400))
    first = await witnesses.add("Ann likes coffee.")
    with pytest.raises(JobFailed):
        await first.result(timeout=ANSWERS_WITHIN)
    second = await first.retry()
    with pytest.raises(JobFailed):
        await second.result(timeout=ANSWERS_WITHIN)
    (third,) = await witnesses.memoro("jobs", "retry", second.id, "--wait")
    assert (third["state"], third["retry_of"], third["attempt"]) == ("SUCCEEDED", second.id, 1)
    await witnesses.delivered({first.id: "job.failed", second.id: "job.failed", third["id"]: "job.succeeded"})
