"""Whatever callers, operators and workers do at the same time, no job and no memory is left in between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from memoro_core.errors import MemoroError, Reason
from memoro_core.jobs.model import JobError, JobRef, JobState
from memoro_core.jobs.operation_model import ClearFilter, RequeueFilter
from memoro_core.jobs.run_ports import LeaseLost
from memoro_core.jobs.states import failed
from memoro_core.redis.events import RedisEventTail
from tests.support.domain import Domain
from tests.support.jobs import events_of, jobs_service, now, retried, succeeded, try_claim
from tests.support.operations import LONG, Operations

CALLERS, STEPS = 6, 40
SOON = timedelta(milliseconds=5)


@pytest.mark.parametrize("seed", range(3))
async def test_everything_at_the_same_time(
    domain: Domain, operations: Operations, tail: RedisEventTail, seed: int
) -> None:
    chance, tenant = random.Random(seed), domain.tenant
    jobs, service = jobs_service(domain, tail), operations.service
    for _ in range(30):
        await operations.job(messages=chance.choice([0, 3]))

    async def some(*states: str) -> list[JobRef]:
        async with domain.database.tenant_tx(tenant) as connection:
            rows = await connection.fetch("SELECT job_id FROM jobs WHERE state = ANY ($1::text[])", states)
        return [JobRef(tenant, row["job_id"]) for row in chance.sample(rows, min(5, len(rows)))]

    async def work() -> None:
        for held in await try_claim(domain.run_store, await some("QUEUED")):
            bad = failed(
                held.job,
                JobError("INTERNAL", "no use", retryable=False),
                stages=held.job.stages,
                usage=held.job.usage,
                retry_at=now(),
            )
            end = chance.choice([bad, bad, retried(held, at=now() + SOON), succeeded(held)])
            if end.state is JobState.SUCCEEDED:
                async with domain.database.tenant_tx(tenant) as connection:
                    await connection.execute("UPDATE memories SET status = 'READY' WHERE job_id = $1", held.ref.job_id)
            await domain.run_store.finish(held, end, now=now())

    async def retry() -> None:
        for ref in await some("FAILED", "CANCELLED"):
            await jobs.retry(tenant, ref.job_id)

    async def cancel() -> None:
        for ref in await some("QUEUED", "DEFERRED", "RUNNING"):
            await jobs.cancel(tenant, ref.job_id)

    async def defer() -> None:
        ids = [ref.job_id for ref in await some("QUEUED", "DEFERRED", "RUNNING", "FAILED")]
        await operations.deferrals.defer(tenant, ids, until=now() + SOON, now=now())

    steps: list[Callable[[], Awaitable[object]]] = [
        work,
        work,
        work,
        retry,
        cancel,
        defer,
        lambda: operations.deferrals.release(now=now(), limit=5, tenant_id=tenant),
        lambda: service.trigger(operations.principal, tenant, within=LONG),
        lambda: service.clear(operations.principal, ClearFilter(tenant_id=tenant, deferred=True), limit=5, within=LONG),
        lambda: service.requeue(
            operations.principal,
            RequeueFilter((JobState.FAILED, JobState.CANCELLED), tenant_id=tenant),
            limit=5,
            within=LONG,
        ),
        operations.job,
    ]

    async def call() -> None:
        for _ in range(STEPS):
            try:
                await chance.choice(steps)()
            except LeaseLost:
                continue
            except MemoroError as refused:
                # Another was quicker; anything else is wrong.
                if refused.reason not in {Reason.JOB_NOT_RETRYABLE, Reason.JOB_NOT_CANCELLABLE}:
                    raise AssertionError(seed) from refused

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    async with domain.database.tenant_tx(tenant) as connection:
        every = await connection.fetch("SELECT job_id, retry_of FROM jobs")
        left = await connection.fetch(
            "SELECT memories.status, jobs.state FROM memories JOIN jobs USING (tenant_id, job_id)"
            " WHERE NOT memory_id = ANY (memory_ids) OR memories.status <> CASE WHEN ended_at IS NULL THEN 'PENDING'"
            " WHEN jobs.state = 'SUCCEEDED' THEN 'READY' ELSE 'FAILED' END"
        )
        orphans = await connection.fetchval(
            "SELECT count(*) FROM memories WHERE NOT EXISTS (SELECT FROM jobs WHERE jobs.job_id = memories.job_id)"
        )
    assert (left, orphans) == ([], 0), seed
    retries = [row["retry_of"] for row in every if row["retry_of"] is not None]
    assert retries, "nothing was retried, so that this proves nothing"
    assert len(retries) == len(set(retries))
    for row in every:
        await events_of(domain, JobRef(tenant, row["job_id"]))
