"""What operators do to the jobs of many tenants at once, and what they see of workers and queues."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio
import structlog.testing

from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId
from memoro_core.jobs.model import JobKind, JobRef, JobState
from memoro_core.jobs.operation_model import ClearFilter, QueueStatus, RequeueFilter, batches
from memoro_core.memory.model import MemoryStatus
from memoro_core.redis.events import RedisEventTail
from memoro_core.tenancy.model import BUILT_IN_TIERS, ENTERPRISE_TIER, FREE_TIER, PRO_TIER
from memoro_core.tenancy.service import TenancyService
from tests.support.domain import Domain, fresh_name
from tests.support.jobs import LIMITS, claim, events_of, job_of, new_job, now, retried, succeeded, try_claim
from tests.support.operations import LONG, Operations, fresh_reason

HOUR = timedelta(hours=1)


async def states_of(domain: Domain, refs: list[JobRef]) -> list[JobState]:
    return [(await job_of(domain, ref)).state for ref in refs]


@pytest_asyncio.fixture
async def pro(domain: Domain, owner_database_url: str) -> AsyncIterator[TenantId]:
    """A tenant of a tier that has no other jobs."""
    owner = await asyncpg.connect(owner_database_url)
    await owner.execute("DELETE FROM jobs USING tenants WHERE jobs.tenant_id = tenants.tenant_id AND tier = 'pro'")
    await owner.close()
    service = TenancyService(domain.tenancy_store, SystemClock())
    tenant_id = (await service.create_tenant(None, fresh_name(), "", PRO_TIER)).id
    yield tenant_id
    await service.update_tenant(tenant_id, tier=ENTERPRISE_TIER)


# Requeueing


async def test_failed_jobs_of_all_tenants_are_requeued_the_oldest_first(domain: Domain, operations: Operations) -> None:
    reason, other = fresh_reason(), await domain.new_tenant()
    refs = [await operations.failed_job(tenant, reason=reason) for tenant in (domain.tenant, other) * 2]
    unlike = await operations.failed_job()
    wanted = RequeueFilter(reason=reason)
    first = await operations.service.requeue(operations.principal, wanted, limit=3, within=LONG)
    assert (first.requeued, first.skipped, first.more) == (3, 0, True)
    left = await operations.retries.not_retried(wanted, after=None, limit=10)
    assert [candidate.ref for candidate in left] == [refs[3]]
    second = await operations.service.requeue(operations.principal, wanted, limit=3, within=LONG)
    assert (second.requeued, second.skipped, second.more) == (1, 0, False)
    third = await operations.service.requeue(operations.principal, wanted, within=LONG)
    assert (third.requeued, third.skipped, third.more) == (0, 0, False)
    assert await domain.count("jobs") == 5
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch("SELECT job_id, retry_of FROM jobs WHERE retry_of IS NOT NULL")
    assert {row["retry_of"] for row in rows} == {refs[0].job_id, refs[2].job_id}
    for row in rows:
        ref = JobRef(domain.tenant, row["job_id"])
        assert [event.state for event in await events_of(domain, ref)] == [JobState.QUEUED]
        await claim(domain.run_store, ref)
    assert await states_of(domain, [unlike]) == [JobState.FAILED]


async def test_each_condition_narrows_what_is_requeued(domain: Domain, operations: Operations) -> None:
    reason = fresh_reason()
    early = await operations.failed_job(reason=reason)
    middle = now()
    late = await operations.failed_job(reason=reason)
    cancelled = await new_job(domain)
    await domain.job_store.cancel(domain.tenant, cancelled.job_id, now=now())

    async def found(**conditions: object) -> list[JobRef]:
        wanted = RequeueFilter(**{"reason": reason, "tenant_id": domain.tenant, **conditions})  # type: ignore[arg-type]
        return [candidate.ref for candidate in await operations.retries.not_retried(wanted, after=None, limit=10)]

    assert await found() == [early, late]
    assert await found(ended_until=middle) == [early]
    assert await found(ended_from=middle) == [late]
    assert await found(kinds=(JobKind.MEMORY_ENRICH,)) == [early, late]
    assert await found(tenant_id=await domain.new_tenant()) == []
    assert await found(reason=None, states=(JobState.CANCELLED,)) == [cancelled]
    assert await found(reason=None, states=(JobState.FAILED, JobState.CANCELLED)) == [early, late, cancelled]


async def test_jobs_without_work_are_passed_over_and_stand_in_nobodys_way(
    domain: Domain, operations: Operations
) -> None:
    reason = fresh_reason()
    refs = [await operations.failed_job(reason=reason) for _ in range(5)]
    for ref in refs[:3]:
        for memory_id in (await job_of(domain, ref)).memory_ids:
            await domain.memories.delete(domain.tenant, memory_id)
    done = await operations.service.requeue(operations.principal, RequeueFilter(reason=reason), limit=1, within=LONG)
    assert (done.requeued, done.skipped, done.more) == (1, 3, True)
    done = await operations.service.requeue(operations.principal, RequeueFilter(reason=reason), within=LONG)
    assert (done.requeued, done.skipped, done.more) == (1, 3, False)


async def test_requeueing_at_the_same_time_retries_each_job_once(domain: Domain, operations: Operations) -> None:
    reason = fresh_reason()
    refs = [await operations.failed_job(reason=reason) for _ in range(20)]
    single = asyncio.create_task(
        operations.retries.retry(domain.tenant, refs[7].job_id, max_attempts=5, idempotency=None, now=now())
    )
    counts = await asyncio.gather(
        *(operations.service.requeue(operations.principal, RequeueFilter(reason=reason), within=LONG) for _ in range(4))
    )
    await asyncio.wait([single])
    assert sum(count.requeued for count in counts) + (single.exception() is None) == 20
    assert sum(count.skipped for count in counts) == 0
    assert await domain.count("jobs") == 40


async def test_requeueing_stops_when_its_time_is_over(operations: Operations) -> None:
    reason = fresh_reason()
    await operations.failed_job(reason=reason)
    done = await operations.service.requeue(operations.principal, RequeueFilter(reason=reason), within=0)
    assert (done.requeued, done.more) == (0, True)


async def test_a_repeated_request_gets_the_same_answer_and_does_nothing(operations: Operations) -> None:
    reason = fresh_reason()
    for _ in range(2):
        await operations.failed_job(reason=reason)
    same, wanted = Idempotency(fresh_name(), b"f" * 32), RequeueFilter(reason=reason)

    async def ask(idempotency: Idempotency) -> object:
        return await operations.service.requeue(
            operations.principal, wanted, limit=1, within=LONG, idempotency=idempotency
        )

    assert await ask(same) == await ask(same)
    assert len(await operations.retries.not_retried(wanted, after=None, limit=10)) == 1
    with pytest.raises(MemoroError) as refused:
        await ask(Idempotency(same.request_id, b"g" * 32))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


# Clearing


async def test_clearing_cancels_what_waits_and_leaves_what_runs(
    domain: Domain, operations: Operations, tail: RedisEventTail
) -> None:
    waiting, between, deferred, running, ended = refs = [await new_job(domain) for _ in range(5)]
    held = await claim(domain.run_store, between)
    await domain.run_store.finish(held, retried(held, at=now() + HOUR), now=now())
    await operations.deferrals.defer(domain.tenant, [deferred.job_id], until=now() + HOUR, now=now())
    await claim(domain.run_store, running)
    held = await claim(domain.run_store, ended)
    await domain.run_store.finish(held, succeeded(held), now=now())

    async with tail.subscribe(waiting.tenant_id, waiting.job_id) as inbox:
        mine = ClearFilter(tenant_id=domain.tenant)
        done = await operations.service.clear(operations.principal, mine, within=LONG)
        async with asyncio.timeout(10):
            event = await inbox.next()
    assert event is not None
    assert (event.seq, event.state) == (2, JobState.CANCELLED)
    assert (done.cancelled, done.more) == (2, False)
    assert await states_of(domain, refs) == [
        JobState.CANCELLED,
        JobState.CANCELLED,
        JobState.DEFERRED,
        JobState.RUNNING,
        JobState.SUCCEEDED,
    ]
    done = await operations.service.clear(
        operations.principal, ClearFilter(tenant_id=domain.tenant, deferred=True), within=LONG
    )
    assert (done.cancelled, done.more) == (1, False)
    for ref in refs:
        await events_of(domain, ref)
    memory_ids = [memory_id for ref in refs for memory_id in (await job_of(domain, ref)).memory_ids]
    statuses = [memory.status for memory in await domain.memory_store.get(domain.tenant, memory_ids)]
    assert statuses[:4] == [MemoryStatus.FAILED] * 3 + [MemoryStatus.PENDING]


async def test_clearing_goes_from_the_oldest_on_and_says_that_there_is_more(
    domain: Domain, operations: Operations
) -> None:
    refs = [await new_job(domain) for _ in range(5)]
    mine = ClearFilter(tenant_id=domain.tenant)
    done = await operations.service.clear(operations.principal, mine, limit=3, within=LONG)
    assert (done.cancelled, done.more) == (3, True)
    assert await states_of(domain, refs) == [JobState.CANCELLED] * 3 + [JobState.QUEUED] * 2
    done = await operations.service.clear(operations.principal, mine, within=0)
    assert (done.cancelled, done.more) == (0, True)
    done = await operations.service.clear(operations.principal, mine, limit=2, within=LONG)
    assert (done.cancelled, done.more) == (2, False)


async def test_a_queue_is_cleared_over_all_its_tenants_and_no_other(
    domain: Domain, operations: Operations, pro: TenantId
) -> None:
    theirs, mine = await operations.job(pro), await new_job(domain)
    done = await operations.service.clear(operations.principal, ClearFilter(tier=PRO_TIER), within=LONG)
    assert (done.cancelled, done.more) == (1, False)
    assert await states_of(domain, [theirs, mine]) == [JobState.CANCELLED, JobState.QUEUED]


async def test_everything_is_cleared_only_when_that_is_said(domain: Domain, operations: Operations) -> None:
    ref = await new_job(domain)
    for wanted in (ClearFilter(), ClearFilter(kinds=(JobKind.MEMORY_ENRICH,), deferred=True)):
        with pytest.raises(MemoroError) as refused:
            await operations.service.clear(operations.principal, wanted, within=LONG)
        assert refused.value.reason is Reason.INVALID_FIELD
    assert await states_of(domain, [ref]) == [JobState.QUEUED]


async def test_cleared_jobs_are_announced_to_webhooks(domain: Domain, operations: Operations) -> None:
    refs = [await new_job(domain) for _ in range(3)]
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            "INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, event_types, description, state, secret,"
            " created_at) SELECT current_tenant(), gen_random_uuid(), 'https://hooks.invalid/', types, '', 'ENABLED',"
            " '\\x00', now() FROM (VALUES ('{}'::text[]), ('{job.cancelled}'), ('{job.failed}')) AS wanted (types)"
        )
    await operations.service.clear(operations.principal, ClearFilter(tenant_id=domain.tenant), within=LONG)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch(
            "SELECT event_id, event_type, payload::jsonb #>> '{data,job_id}' AS job_id FROM webhook_deliveries"
        )
    assert Counter(row["job_id"] for row in rows) == {str(ref.job_id): 2 for ref in refs}
    assert {row["event_type"] for row in rows} == {"job.cancelled"}
    assert len({row["event_id"] for row in rows}) == 3


async def test_a_job_is_either_claimed_or_cleared(domain: Domain, operations: Operations) -> None:
    refs = [await new_job(domain) for _ in range(60)]

    async def claim_all() -> int:
        count = 0
        for place in range(0, 60, 5):
            count += len(await try_claim(domain.run_store, refs[place : place + 5]))
        return count

    async def clear_all() -> int:
        events = [
            await operations.queues.cancel_all(domain.tenant, [ref.job_id], deferred=False, now=now())
            for ref in reversed(refs)
        ]
        return sum(map(len, events))

    claimed, cleared = await asyncio.gather(claim_all(), clear_all())
    counts = Counter(await states_of(domain, refs))
    assert (counts[JobState.RUNNING], counts[JobState.CANCELLED]) == (claimed, cleared)
    for ref in refs:
        await events_of(domain, ref)


async def test_clearing_at_the_same_time_cancels_each_job_once(domain: Domain, operations: Operations) -> None:
    refs = [await new_job(domain) for _ in range(30)]
    mine = ClearFilter(tenant_id=domain.tenant)
    answers = await asyncio.gather(
        *(operations.service.clear(operations.principal, mine, within=LONG) for _ in range(4))
    )
    assert sum(answer.cancelled for answer in answers) == 30
    for ref in refs:
        await events_of(domain, ref)


# Workers and queues


async def test_workers_are_listed_with_what_they_run(domain: Domain, operations: Operations) -> None:
    names = {place: f"{fresh_name()}-{place}" for place in ("busy", "idle", "silent")}
    started = now() - HOUR
    async with domain.database.system_tx() as connection:
        for place, name in names.items():
            seen = now() - (timedelta(seconds=31) if place == "silent" else timedelta(seconds=1))
            await connection.execute(
                "INSERT INTO workers (worker_id, host, process_id, version, concurrency, stopping, started_at, seen_at)"
                " VALUES ($1, 'here', 7, '1.0', 16, $2, $3, $4)",
                name,
                place == "idle",
                started if place == "busy" else started + HOUR / 2,
                seen,
            )
    refs = [await new_job(domain) for _ in range(3)]
    for ref in refs:
        await domain.run_store.claim([ref], worker_id=names["busy"], now=now(), lease_until=now() + HOUR, limits=LIMITS)
    workers = {worker.id: worker for worker in await operations.service.workers()}
    assert [name for name in workers if name in names.values()] == [names["busy"], names["idle"]]
    busy, idle = workers[names["busy"]], workers[names["idle"]]
    assert (busy.host, busy.process_id, busy.version, busy.concurrency, busy.stopping) == ("here", 7, "1.0", 16, False)
    assert (busy.running, [job.ref for job in busy.jobs]) == (3, refs)
    assert {(job.kind, job.attempt) for job in busy.jobs} == {(JobKind.MEMORY_ENRICH, 1)}
    assert (idle.running, idle.jobs, idle.stopping) == (0, [], True)
    (cut,) = [
        worker
        for worker in await operations.queues.workers(seen_from=started, limit=1000, jobs_each=2)
        if worker.id == names["busy"]
    ]
    assert (cut.running, [job.ref for job in cut.jobs]) == (3, refs[:2])


async def test_a_queue_tells_how_its_tenants_jobs_stand(domain: Domain, operations: Operations, pro: TenantId) -> None:
    before = await queue(operations)
    waiting, hinted, later, running, deferred, good, bad, cancelled = [await operations.job(pro) for _ in range(8)]
    async with domain.database.tenant_tx(pro) as connection:
        await connection.execute("UPDATE jobs SET hinted_at = NULL WHERE job_id = $1", waiting.job_id)
        await connection.execute("UPDATE jobs SET hinted_at = now() WHERE job_id = $1", hinted.job_id)
    held = await claim(domain.run_store, later)
    await domain.run_store.finish(held, retried(held, at=now() + HOUR), now=now())
    await claim(domain.run_store, running)
    await operations.deferrals.defer(pro, [deferred.job_id], until=now() + HOUR, now=now())
    held = await claim(domain.run_store, good)
    await domain.run_store.finish(held, succeeded(held), now=now())
    await operations.fail(bad)
    await domain.job_store.cancel(pro, cancelled.job_id, now=now())

    after = await queue(operations)
    assert after.waiting - before.waiting == 3
    assert after.active - before.active == 1
    assert after.deferred - before.deferred == 1
    assert after.oldest_due_at == (await job_of(domain, waiting)).run_at
    assert after.rate == pytest.approx(3 / 60)
    (today,) = [one for one in await operations.queues.queues(now=now(), day_start=now() - HOUR) if is_theirs(one)]
    assert (today.succeeded_today, today.failed_today) == (1, 1)
    (tomorrow,) = [one for one in await operations.queues.queues(now=now(), day_start=now()) if is_theirs(one)]
    assert (tomorrow.succeeded_today, tomorrow.failed_today, tomorrow.rate) == (0, 0, after.rate)


async def test_there_is_a_queue_per_tier_also_when_it_is_empty(operations: Operations) -> None:
    tiers = [one.tier for one in await operations.service.queues()]
    # Other tests make tiers, which are queues too.
    assert [tier for tier in tiers if tier in BUILT_IN_TIERS] == list(BUILT_IN_TIERS)


async def test_a_queue_is_paused_and_resumed(operations: Operations) -> None:
    service, principal = operations.service, operations.principal
    try:
        paused = {one.tier: one.paused_at for one in await service.pause(principal, PRO_TIER)}
        assert (paused[PRO_TIER] is None, paused[FREE_TIER]) == (False, None)
        again = {one.tier: one.paused_at for one in await service.pause(principal, PRO_TIER)}
        assert again == paused
        everything = await service.pause(principal, None)
        assert all(one.paused_at for one in everything)
        assert {one.tier: one.paused_at for one in everything}[PRO_TIER] == paused[PRO_TIER]
        resumed = await service.resume(principal, PRO_TIER)
        assert [one.tier for one in resumed if one.paused_at is None] == [PRO_TIER]
    finally:
        assert not any(one.paused_at for one in await service.resume(principal, None))


async def test_every_action_is_logged_with_the_key_that_asked_for_it(domain: Domain, operations: Operations) -> None:
    service, principal = operations.service, operations.principal
    await new_job(domain)
    with structlog.testing.capture_logs() as lines:
        await service.clear(principal, ClearFilter(tenant_id=domain.tenant), limit=7, within=LONG)
        await service.requeue(principal, RequeueFilter(reason=fresh_reason()), within=LONG)
        await service.trigger(principal, domain.tenant, within=LONG)
        await service.resume(principal, PRO_TIER)
    told = [line for line in lines if line.get("api_key_id") == str(principal.api_key_id)]
    assert [line["event"] for line in told] == [
        "queue_cleared",
        "jobs_requeued",
        "processing_triggered",
        "queues_resumed",
    ]
    first = told[0]
    assert (first["tenant_id"], first["limit"], first["cancelled"], first["more"]) == (
        str(domain.tenant),
        7,
        1,
        False,
    )


async def queue(operations: Operations) -> QueueStatus:
    (found,) = [one for one in await operations.service.queues() if is_theirs(one)]
    return found


def is_theirs(status: QueueStatus) -> bool:
    return status.tier == PRO_TIER


async def test_large_batches_are_cleared_and_requeued_whole(domain: Domain, operations: Operations) -> None:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            """
            WITH job AS (
                INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts,
                                  run_at, last_seq, created_at)
                SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', 'QUEUED', 2, 'u',
                       ARRAY[gen_random_uuid(), gen_random_uuid()], '[]', 5, now(), 0, now()
                FROM generate_series(1, 1200)
                RETURNING job_id, memory_ids
            )
            INSERT INTO memories (tenant_id, memory_id, user_id, kind, text, content_hash, status, occurred_at, job_id,
                                  created_at, updated_at)
            SELECT current_tenant(), unnest(memory_ids), 'u', 'TEXT', 'tea', '\\x00', 'PENDING', now(), job_id, now(),
                   now()
            FROM job
            """
        )
    mine = ClearFilter(tenant_id=domain.tenant)
    found = await operations.queues.waiting(mine, limit=5_000)
    assert [len(job_ids) for _, job_ids in batches(found)] == [500, 500, 200]
    cleared = await operations.service.clear(operations.principal, mine, limit=1_200, within=LONG)
    assert (cleared.cancelled, cleared.more) == (1_200, False)
    wanted = RequeueFilter(states=(JobState.CANCELLED,), tenant_id=domain.tenant)
    requeued = await operations.service.requeue(operations.principal, wanted, limit=5_000, within=LONG)
    assert (requeued.requeued, requeued.skipped, requeued.more) == (1_200, 0, False)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        wrong = await connection.fetchval(
            "SELECT count(*) FROM memories JOIN jobs USING (tenant_id, job_id)"
            " WHERE status <> 'PENDING' OR jobs.state <> 'QUEUED' OR NOT memory_id = ANY (memory_ids)"
        )
    assert wrong == 0
    assert await domain.count("job_events") == 2_400
