"""Retries are paid as new jobs are: by what is left of the work, or put off, or refused with all as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from memoro_core.billing.model import DeferralReason
from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.jobs.model import JobRef, JobState
from memoro_core.jobs.operation_model import RequeueFilter
from memoro_core.jobs.service import JobsService
from memoro_core.llm.model import Operation
from memoro_core.memory.model import MemoryStatus
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.jobs import jobs_service
from tests.support.operations import LONG, Operations, fresh_reason, operations_of

FEE = 1_000
REQUEST = Idempotency("r", b"\x01" * 32)


@dataclass
class World:
    """Jobs that were free when they failed, and that now cost a fee for each text."""

    domain: Domain
    operations: Operations
    jobs: JobsService
    reason: str = field(default_factory=fresh_reason)

    async def failed(self, messages: int = 0) -> JobRef:
        """A job that has failed."""
        self.domain.money.prices.set(Operation.EMBED, fee=0)
        ref = await self.operations.failed_job(reason=self.reason, messages=messages)
        self.domain.money.prices.set(Operation.EMBED, fee=FEE)
        return ref

    async def statuses(self, ref: JobRef) -> set[MemoryStatus]:
        """Where the memories of a job stand that is still theirs."""
        job = await self.domain.job_store.get(ref.tenant_id, ref.job_id)
        assert job is not None
        memories = await self.domain.memory_store.get(ref.tenant_id, job.memory_ids)
        assert {memory.job_id for memory in memories} == {ref.job_id}
        return {memory.status for memory in memories}

    async def requeue(self) -> tuple[int, int]:
        """How many of the failed jobs were retried, and how many were not."""
        wanted = RequeueFilter((JobState.FAILED,), reason=self.reason)
        done = await self.operations.service.requeue(self.operations.principal, wanted, within=LONG)
        return done.requeued, done.skipped


@pytest_asyncio.fixture
async def world(domain: Domain, settings: Settings) -> AsyncIterator[World]:
    async with open_redis(settings) as redis, RedisEventTail(redis) as tail:
        yield World(domain, operations_of(domain, tail), jobs_service(domain, tail))


async def test_a_retry_is_held_for_what_is_left_of_the_work(world: World) -> None:
    domain = world.domain
    ref = await world.failed(messages=3)
    old = await domain.job_store.get(ref.tenant_id, ref.job_id)
    assert old is not None
    await domain.memories.delete(domain.tenant, old.memory_ids[1])
    await domain.money.give(domain.tenant, 2 * FEE)
    made = await world.jobs.retry(ref.tenant_id, ref.job_id, idempotency=REQUEST)
    assert (made.state, made.cost_bound, list(made.memory_ids)) == (
        JobState.QUEUED,
        2 * FEE,
        [old.memory_ids[0], old.memory_ids[2]],
    )
    assert await domain.money.holds_of(domain.tenant) == {made.id: 2 * FEE}
    again = await world.jobs.retry(ref.tenant_id, ref.job_id, idempotency=REQUEST)
    assert again == made
    assert await domain.count("credit_holds") == 1


async def test_a_retry_that_can_not_be_paid_leaves_all_as_it_was_and_can_be_asked_for_again(world: World) -> None:
    domain = world.domain
    ref = await world.failed(messages=2)
    await domain.money.give(domain.tenant, FEE)
    before = [await domain.count(table) for table in ("jobs", "job_events", "idempotency_records", "ledger_entries")]
    with pytest.raises(MemoroError) as caught:
        await world.jobs.retry(ref.tenant_id, ref.job_id, idempotency=REQUEST)
    assert caught.value.reason is Reason.INSUFFICIENT_CREDITS
    assert (caught.value.metadata["need"], caught.value.metadata["have"]) == (str(2 * FEE), str(FEE))
    after = [await domain.count(table) for table in ("jobs", "job_events", "idempotency_records", "ledger_entries")]
    assert after == before
    assert await world.statuses(ref) == {MemoryStatus.FAILED}
    await domain.money.give(domain.tenant, FEE)
    made = await world.jobs.retry(ref.tenant_id, ref.job_id, idempotency=REQUEST)
    assert await world.statuses(JobRef(ref.tenant_id, made.id)) == {MemoryStatus.PENDING}


async def test_what_no_work_is_left_of_holds_nothing(world: World) -> None:
    domain = world.domain
    ref = await world.failed()
    old = await domain.job_store.get(ref.tenant_id, ref.job_id)
    assert old is not None
    await domain.memories.delete(domain.tenant, old.memory_ids[0])
    await domain.money.give(domain.tenant, FEE)
    with pytest.raises(MemoroError) as caught:
        await world.jobs.retry(ref.tenant_id, ref.job_id)
    assert caught.value.reason is Reason.JOB_NOT_RETRYABLE
    assert await world.requeue() == (0, 1)
    assert await domain.count("credit_holds") == 0


async def test_requeued_jobs_are_retried_as_far_as_credits_go(world: World) -> None:
    domain = world.domain
    refs = [await world.failed() for _ in range(5)]
    await domain.money.give(domain.tenant, 3 * FEE)
    assert await world.requeue() == (3, 2)
    assert list((await domain.money.holds_of(domain.tenant)).values()) == [FEE] * 3
    assert await domain.count("jobs") == 5 + 3
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch(
            "SELECT status FROM memories WHERE job_id = ANY ($1)", [ref.job_id for ref in refs]
        )
    assert [row["status"] for row in rows] == ["FAILED"] * 2
    await domain.money.give(domain.tenant, 9 * FEE)
    assert await world.requeue() == (2, 0)
    assert await domain.count("jobs") == 5 + 5


async def test_beyond_a_budget_retries_are_put_off(world: World) -> None:
    domain = world.domain
    refs = [await world.failed() for _ in range(3)]
    await domain.money.give(domain.tenant, 9 * FEE)
    await domain.money.limit(domain.tenant, "TENANT", FEE)
    assert await world.requeue() == (3, 0)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch("SELECT job_id FROM jobs WHERE retry_of = ANY ($1)", [ref.job_id for ref in refs])
    jobs = [await domain.job_store.get(domain.tenant, row["job_id"]) for row in rows]
    assert sorted((job.state, job.deferral_reason) for job in jobs if job) == [
        (JobState.DEFERRED, DeferralReason.TENANT),
        (JobState.DEFERRED, DeferralReason.TENANT),
        (JobState.QUEUED, None),
    ]
    for job in jobs:
        assert job is not None
        (event,) = await domain.job_store.events_after(domain.tenant, job.id, 0, limit=10)
        assert (event.seq, event.state, event.run_at) == (1, job.state, job.run_at)
        assert (job.run_at > job.created_at) == (job.state is JobState.DEFERRED)
    assert len(await domain.money.holds_of(domain.tenant)) == 1


async def test_what_has_no_price_is_not_retried(world: World) -> None:
    ref = await world.failed()
    del world.domain.money.prices.prices[Operation.EXTRACT]
    with pytest.raises(MemoroError) as caught:
        await world.jobs.retry(ref.tenant_id, ref.job_id, idempotency=REQUEST)
    assert caught.value.reason is Reason.PRICE_UNKNOWN
    assert await world.domain.count("jobs") == 1
    assert await world.domain.count("idempotency_records") == 0
