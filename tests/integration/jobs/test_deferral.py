"""Jobs are put off and let go again, and nothing but jobs that wait is touched."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from memoro_core.jobs.model import JobState
from tests.support.domain import Domain
from tests.support.jobs import claim, events_of, job_of, new_job, now, retried, succeeded, try_claim
from tests.support.operations import LONG, Operations

HOUR = timedelta(hours=1)


async def test_a_job_is_put_off_and_let_go_when_its_time_has_come(domain: Domain, operations: Operations) -> None:
    ref = await new_job(domain)
    until = now() + HOUR
    ((told, event),) = await operations.deferrals.defer(domain.tenant, [ref.job_id], until=until, now=now())
    assert (told, event.seq, event.state, event.run_at) == (ref, 2, JobState.DEFERRED, until)
    job = await job_of(domain, ref)
    assert (job.state, job.run_at) == (JobState.DEFERRED, until)
    assert not await try_claim(domain.run_store, [ref], at=until + HOUR)

    tenant = domain.tenant
    assert not await operations.deferrals.release(now=until - HOUR / 2, limit=10, tenant_id=tenant)
    ((told, event),) = await operations.deferrals.release(now=until, limit=10, tenant_id=tenant)
    assert (told, event.seq, event.state, event.run_at) == (ref, 3, JobState.QUEUED, until)
    states = [event.state for event in await events_of(domain, ref)]
    assert states == [JobState.QUEUED, JobState.DEFERRED, JobState.QUEUED]


async def test_what_was_put_off_ranks_after_what_waits(domain: Domain, operations: Operations) -> None:
    late, waiting = await new_job(domain), await new_job(domain)
    await operations.deferrals.defer(domain.tenant, [late.job_id], until=now(), now=now())
    await operations.deferrals.release(now=now(), limit=10, tenant_id=domain.tenant)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        order = await connection.fetch("SELECT job_id, hinted_at FROM jobs ORDER BY rank_at")
    assert [row["job_id"] for row in order] == [waiting.job_id, late.job_id]
    assert order[1]["hinted_at"] is None


async def test_only_what_is_queued_is_put_off(domain: Domain, operations: Operations) -> None:
    running, ended, waiting = [await new_job(domain) for _ in range(3)]
    stranger = await operations.job(await domain.new_tenant())
    await claim(domain.run_store, running)
    held = await claim(domain.run_store, ended)
    await domain.run_store.finish(held, succeeded(held), now=now())
    refs = [running, ended, waiting, stranger]
    events = await operations.deferrals.defer(
        domain.tenant, [ref.job_id for ref in refs], until=now() + HOUR, now=now()
    )
    assert [ref for ref, _ in events] == [waiting]
    assert [(await job_of(domain, ref)).state for ref in refs] == [
        JobState.RUNNING,
        JobState.SUCCEEDED,
        JobState.DEFERRED,
        JobState.QUEUED,
    ]
    again = await operations.deferrals.defer(domain.tenant, [waiting.job_id], until=now() + HOUR, now=now())
    assert not again


async def test_releasing_goes_by_time_in_bounded_steps_and_twice_at_once_doubles_nothing(
    domain: Domain, operations: Operations
) -> None:
    refs = [await new_job(domain) for _ in range(30)]
    base = now()
    for place, ref in enumerate(refs):
        await operations.deferrals.defer(domain.tenant, [ref.job_id], until=base + timedelta(seconds=place), now=base)
    first = await operations.deferrals.release(now=base + HOUR, limit=5, tenant_id=domain.tenant)
    assert {ref for ref, _ in first} == set(refs[:5])
    rounds = await asyncio.gather(
        *(operations.deferrals.release(now=base + HOUR, limit=50, tenant_id=domain.tenant) for _ in range(5))
    )
    released = [ref for events in rounds for ref, _ in events]
    assert len(released) == len(set(released)) == 25
    for ref in refs:
        await events_of(domain, ref)


async def test_triggering_lets_go_what_is_put_off_and_what_waits_for_another_attempt(
    domain: Domain, operations: Operations
) -> None:
    deferred, between, waiting, running = [await new_job(domain) for _ in range(4)]
    stranger = await operations.job(await domain.new_tenant())
    for ref in (deferred, stranger):
        await operations.deferrals.defer(ref.tenant_id, [ref.job_id], until=now() + HOUR, now=now())
    held = await claim(domain.run_store, between)
    await domain.run_store.finish(held, retried(held, at=now() + HOUR), now=now())
    await claim(domain.run_store, running)

    done = await operations.service.trigger(operations.principal, domain.tenant, within=LONG)
    assert (done.released, done.due) == (1, 1)
    for ref in (deferred, between):
        job = await job_of(domain, ref)
        assert (job.state, job.run_at <= now()) == (JobState.QUEUED, True)
        last = (await events_of(domain, ref))[-1]
        assert (last.state, last.run_at) == (JobState.QUEUED, job.run_at)
    assert (await job_of(domain, between)).attempt == 1
    assert [(await job_of(domain, ref)).sequence for ref in (waiting, running)] == [1, 2]
    assert (await job_of(domain, stranger)).state is JobState.DEFERRED
    again = await operations.service.trigger(operations.principal, domain.tenant, within=LONG)
    assert (again.released, again.due) == (0, 0)
    await claim(domain.run_store, between)


async def test_triggering_reaches_every_job_however_many(domain: Domain, operations: Operations) -> None:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            """
            INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts,
                              run_at, last_seq, created_at)
            SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', state, 2, 'u', '{}', '[]', 5,
                   now() + interval '1 hour', 0, now()
            FROM unnest(ARRAY['QUEUED', 'DEFERRED']) AS state, generate_series(1, 1100)
            """
        )
    done = await operations.service.trigger(operations.principal, domain.tenant, within=LONG)
    assert (done.released, done.due) == (1100, 1100)
    assert await domain.count("job_events") == 2200


async def test_triggering_stops_when_its_time_is_over(domain: Domain, operations: Operations) -> None:
    ref = await new_job(domain)
    await operations.deferrals.defer(domain.tenant, [ref.job_id], until=now() + HOUR, now=now())
    done = await operations.service.trigger(operations.principal, domain.tenant, within=0)
    assert (done.released, done.due) == (0, 0)
    assert (await job_of(domain, ref)).state is JobState.DEFERRED
