"""The life of jobs in PostgreSQL: claims, fences, retries, ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from memoro_core.ids import JobId, UserId, new_id
from memoro_core.jobs.model import (
    JobFilter,
    JobKind,
    JobRef,
    JobState,
    JobUsage,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.run_ports import LeaseLost
from memoro_core.memory.model import MemoryStatus
from memoro_core.postgres.run_store import PostgresRunStore, finish_in
from tests.support.domain import Domain
from tests.support.jobs import (
    LEASE,
    MAY_PASS,
    claim,
    events_of,
    job_of,
    new_job,
    now,
    reap,
    retried,
    succeeded,
    try_claim,
)

EMBEDDING = StageProgress(Stage.EMBED, StageStatus.RUNNING, 3, 7)


async def memory_status(domain: Domain, ref: JobRef) -> MemoryStatus:
    (memory,) = await domain.memory_store.get(domain.tenant, (await job_of(domain, ref)).memory_ids)
    return memory.status


async def test_of_fifty_claimers_one_gets_the_job(domain: Domain) -> None:
    ref = await new_job(domain)
    stores = [PostgresRunStore(domain.database, domain.money.holds) for _ in range(50)]
    answers = await asyncio.gather(*(try_claim(store, [ref]) for store in stores))
    (won,) = [item for answer in answers for item in answer]
    assert (won.lease, won.job.attempt, won.job.state, won.ref) == (1, 1, JobState.RUNNING, ref)
    event = (await events_of(domain, ref))[-1]
    assert (event.seq, event.state, event.attempt) == (won.job.sequence, JobState.RUNNING, 1) == (2, event.state, 1)


async def test_overlapping_batches_share_out_the_jobs(domain: Domain) -> None:
    refs = [await new_job(domain) for _ in range(30)]
    answers = await asyncio.gather(
        *(try_claim(domain.run_store, refs[start:] + refs[:start]) for start in range(0, 30, 3))
    )
    assert Counter(won.ref for answer in answers for won in answer) == Counter(refs)


async def test_a_job_named_twice_in_one_batch_is_claimed_once(domain: Domain) -> None:
    ref = await new_job(domain)
    others = [await new_job(domain) for _ in range(3)]
    # A user's cap is 64 here: nobody is turned away because one is named more often than that.
    claims = await try_claim(domain.run_store, [ref] * 100 + others)
    assert [won.ref for won in claims] == [ref, *others]
    assert (await job_of(domain, ref)).attempt == 1


async def test_a_job_is_not_claimed_before_its_time(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    await domain.run_store.finish(held, retried(held, at=now() + timedelta(minutes=1)), now=now())
    assert not await try_claim(domain.run_store, [ref])
    later = now() + timedelta(minutes=1)
    assert await try_claim(domain.run_store, [ref], at=later)


async def test_progress_is_told_in_order_and_stands_in_the_row(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    stages = (StageProgress(Stage.SCREEN, StageStatus.SUCCEEDED, 1, 1), EMBEDDING)
    for progress in stages:
        event, asked = await domain.run_store.report(held, stages, progress, now=now())
        assert (event.stage, event.state, asked) == (progress, JobState.RUNNING, False)
    await domain.run_store.finish(held, succeeded(held), now=now())
    events = await events_of(domain, ref)
    assert [event.stage for event in events] == [None, None, *stages, None]
    assert events[-1].result is not None
    assert events[-1].usage == JobUsage(10, 2)
    job = await job_of(domain, ref)
    assert (job.state, job.usage, job.error) == (JobState.SUCCEEDED, JobUsage(10, 2), None)
    assert job.result == events[-1].result
    assert job.ended_at == events[-1].at


async def test_progress_of_many_runs_at_once_goes_to_each_job_its_own(domain: Domain) -> None:
    claims = [await claim(domain.run_store, await new_job(domain)) for _ in range(20)]
    await asyncio.gather(
        *(
            domain.run_store.report(
                held, (progress := StageProgress(Stage.EMBED, StageStatus.RUNNING, number, 20),), progress, now=now()
            )
            for number, held in enumerate(claims)
        )
    )
    for number, held in enumerate(claims):
        last = (await events_of(domain, held.ref))[-1]
        assert last.stage is not None
        assert (last.seq, last.stage.completed) == (3, number)
        assert (await job_of(domain, held.ref)).stages == (last.stage,)


async def test_a_worker_that_lost_its_lease_touches_nothing(domain: Domain) -> None:
    ref = await new_job(domain)
    stale = await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    await reap(domain, now=now())
    fresh = await claim(domain.run_store, ref)
    assert fresh.lease == stale.lease + 1
    before = await job_of(domain, ref), await events_of(domain, ref)
    with pytest.raises(LeaseLost):
        await domain.run_store.report(stale, (EMBEDDING,), EMBEDDING, now=now())
    for finish in (succeeded(stale), retried(stale)):
        with pytest.raises(LeaseLost):
            await domain.run_store.finish(stale, finish, now=now())
    assert await domain.lease_store.extend([stale], lease_until=now() + LEASE) == {}
    assert await domain.run_store.release([stale], now=now()) == []
    assert (await job_of(domain, ref), await events_of(domain, ref)) == before
    assert await domain.lease_store.extend([fresh, stale], lease_until=now() + LEASE) == {ref: True}


async def test_what_a_stale_worker_stored_beside_its_end_is_rolled_back(domain: Domain) -> None:
    ref = await new_job(domain)
    stale = await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    await reap(domain, now=now())

    async def commit() -> None:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("UPDATE memories SET status = 'READY' WHERE tenant_id = $1", domain.tenant)
            await finish_in(connection, domain.money.holds, stale, succeeded(stale), now=now())

    with pytest.raises(LeaseLost):
        await commit()
    assert await memory_status(domain, ref) is MemoryStatus.PENDING


async def test_in_one_statement_a_stale_run_takes_nothing_from_the_present_one(domain: Domain) -> None:
    ref = await new_job(domain)
    stale = await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    await reap(domain, now=now())
    held = await claim(domain.run_store, ref)
    reports = await asyncio.gather(
        *(domain.run_store.report(run, (EMBEDDING,), EMBEDDING, now=now()) for run in (stale, held)),
        return_exceptions=True,
    )
    ends = await asyncio.gather(
        *(domain.run_store.finish(run, succeeded(run), now=now()) for run in (stale, held)), return_exceptions=True
    )
    assert [type(answer) for answer in (reports[0], ends[0])] == [LeaseLost, LeaseLost]
    events = await events_of(domain, ref)
    assert [reports[1], ends[1]] == [(events[-2], False), events[-1]]


async def test_a_run_after_one_that_was_given_back_begins_with_the_first_stage(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    await domain.run_store.report(held, (EMBEDDING,), EMBEDDING, now=now())
    await domain.run_store.release([held], now=now())
    assert (await claim(domain.run_store, ref)).job.stages == (StageProgress(Stage.EMBED),)


async def test_a_job_that_waits_and_is_asked_to_cancel_is_not_begun(domain: Domain) -> None:
    """No call leaves a job so; should it come about, running it would be wrong."""
    ref = await new_job(domain)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute("UPDATE jobs SET cancel_requested = true WHERE job_id = $1", ref.job_id)
    assert not await try_claim(domain.run_store, [ref])


async def test_an_ended_job_stays_as_it_is(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    await domain.run_store.finish(held, succeeded(held), now=now())
    before = await job_of(domain, ref)
    for finish in (succeeded(held, memories=2), retried(held)):
        with pytest.raises(LeaseLost):
            await domain.run_store.finish(held, finish, now=now())
    assert not await try_claim(domain.run_store, [ref])
    assert await domain.job_store.cancel(domain.tenant, ref.job_id, now=now()) == (before, None)
    assert await job_of(domain, ref) == before


async def test_a_second_attempt_begins_with_the_first_stage_and_keeps_the_error(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    stages = tuple(StageProgress(stage, StageStatus.SUCCEEDED, 1, 1) for stage in Stage)
    await domain.run_store.report(held, stages, stages[-1], now=now())
    event = await domain.run_store.finish(held, retried(held), now=now())
    assert (event.state, event.error, event.attempt) == (JobState.QUEUED, MAY_PASS, 1)
    assert event.run_at is not None
    again = await claim(domain.run_store, ref)
    assert (again.job.attempt, again.lease, again.job.error) == (2, 2, MAY_PASS)
    assert again.job.stages == tuple(StageProgress(stage) for stage in Stage)
    assert again.job.usage == JobUsage(10, 2)
    await domain.run_store.finish(again, succeeded(again), now=now())
    assert (await job_of(domain, ref)).error is None
    assert len(await events_of(domain, ref)) == 6


async def test_a_waiting_job_is_cancelled_at_once_and_only_once(domain: Domain) -> None:
    ref = await new_job(domain)
    cancelled = await domain.job_store.cancel(domain.tenant, ref.job_id, now=now())
    assert cancelled is not None
    job, event = cancelled
    assert (job.state, job.cancel_requested) == (JobState.CANCELLED, True)
    assert event == (await events_of(domain, ref))[-1]
    assert await memory_status(domain, ref) is MemoryStatus.FAILED
    assert await domain.job_store.cancel(domain.tenant, ref.job_id, now=now()) == (job, None)
    assert not await try_claim(domain.run_store, [ref])


async def test_a_running_job_is_asked_and_never_runs_again(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    asked = await domain.job_store.cancel(domain.tenant, ref.job_id, now=now())
    assert asked is not None
    assert (asked[0].state, asked[0].cancel_requested, asked[1]) == (JobState.RUNNING, True, None)
    assert await domain.lease_store.cancel_requests([held]) == [ref]
    assert (await domain.run_store.report(held, (EMBEDDING,), EMBEDDING, now=now()))[1]
    event = await domain.run_store.finish(held, retried(held), now=now())
    assert event.state is JobState.CANCELLED
    assert await memory_status(domain, ref) is MemoryStatus.FAILED
    await events_of(domain, ref)


async def test_claiming_and_cancelling_at_once_ends_in_one_or_the_other(domain: Domain) -> None:
    for _ in range(15):
        ref = await new_job(domain)
        claims, cancelled = await asyncio.gather(
            try_claim(domain.run_store, [ref]),
            domain.job_store.cancel(domain.tenant, ref.job_id, now=now()),
        )
        assert cancelled is not None
        job = await job_of(domain, ref)
        assert job.state is (JobState.RUNNING if claims else JobState.CANCELLED)
        assert job.cancel_requested
        await events_of(domain, ref)


async def test_a_lost_worker_s_job_is_queued_again(domain: Domain) -> None:
    ref, kept = await new_job(domain), await new_job(domain)
    await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    await claim(domain.run_store, kept)
    expired = dict(await reap(domain, now=now()))
    assert kept not in expired
    assert expired[ref] == (await events_of(domain, ref))[-1]
    job = await job_of(domain, ref)
    assert (job.state, job.attempt) == (JobState.QUEUED, 1)
    assert job.error is not None
    assert job.error.reason == "WORKER_LOST"
    assert await memory_status(domain, ref) is MemoryStatus.PENDING
    assert (await claim(domain.run_store, ref)).job.attempt == 2


async def test_a_job_that_loses_every_worker_fails_in_the_end(domain: Domain) -> None:
    ref = await new_job(domain)
    attempts = (await job_of(domain, ref)).max_attempts
    for _ in range(attempts):
        await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
        await reap(domain, now=now())
    job = await job_of(domain, ref)
    assert (job.state, job.attempt) == (JobState.FAILED, attempts)
    assert await memory_status(domain, ref) is MemoryStatus.FAILED
    assert len(await events_of(domain, ref)) == 1 + 2 * attempts


async def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(domain: Domain) -> None:
    ref = await new_job(domain)
    await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    await domain.job_store.cancel(domain.tenant, ref.job_id, now=now())
    assert (dict(await reap(domain, now=now())))[ref].state is JobState.CANCELLED
    await events_of(domain, ref)


async def test_a_heartbeat_in_time_keeps_the_job(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    assert await domain.lease_store.extend([held], lease_until=now() + LEASE) == {ref: True}
    assert await domain.lease_store.cancel_requests([held]) == []
    assert ref not in dict(await reap(domain, now=now()))


async def test_a_run_that_hangs_in_a_transaction_does_not_keep_others_from_their_leases(domain: Domain) -> None:
    hanging, well = [await claim(domain.run_store, await new_job(domain)) for _ in range(2)]
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute("SELECT FROM jobs WHERE job_id = $1 FOR UPDATE", hanging.ref.job_id)
        extended = await domain.lease_store.extend([hanging, well], lease_until=now() + LEASE)
    assert extended == {hanging.ref: False, well.ref: True}
    assert await domain.lease_store.extend([hanging], lease_until=now() + LEASE) == {hanging.ref: True}


async def test_reapers_at_once_requeue_a_job_once(domain: Domain) -> None:
    refs = [await new_job(domain) for _ in range(10)]
    for ref in refs:
        await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    answers = await asyncio.gather(*(reap(domain, now=now()) for _ in range(8)))
    expired = Counter(ref for answer in answers for ref, _ in answer)
    assert {ref: expired[ref] for ref in refs} == dict.fromkeys(refs, 1)
    for ref in refs:
        assert len(await events_of(domain, ref)) == 3


async def test_a_job_that_was_given_back_can_run_at_once_and_has_lost_no_attempt(domain: Domain) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    ((released, event),) = await domain.run_store.release([held], now=now())
    assert (released, event.state, event.attempt) == (ref, JobState.QUEUED, 0)
    assert (await claim(domain.run_store, ref)).job.attempt == 1
    await events_of(domain, ref)


async def test_jobs_of_another_tenant_are_not_there(domain: Domain) -> None:
    ref = await new_job(domain)
    other = await domain.new_tenant()
    assert await domain.job_store.get(other, ref.job_id) is None
    assert await domain.job_store.events_after(other, ref.job_id, 0, limit=10) == []
    assert await domain.job_store.cancel(other, ref.job_id, now=now()) is None
    assert await domain.job_store.list_jobs(other, JobFilter(), limit=10, before=None) == []
    assert not await try_claim(domain.run_store, [JobRef(other, ref.job_id)])
    assert (await job_of(domain, ref)).state is JobState.QUEUED


async def test_listing_filters_and_goes_on_from_a_place(domain: Domain) -> None:
    refs = [await new_job(domain) for _ in range(5)]
    await domain.job_store.cancel(domain.tenant, refs[1].job_id, now=now())

    async def ids(job_filter: JobFilter, *, before: JobId | None = None) -> list[JobId]:
        return [job.id for job in await domain.job_store.list_jobs(domain.tenant, job_filter, limit=10, before=before)]

    newest_first = [ref.job_id for ref in reversed(refs)]
    assert await ids(JobFilter()) == newest_first
    assert await ids(JobFilter(), before=refs[2].job_id) == newest_first[3:]
    assert await ids(JobFilter(states=[JobState.CANCELLED])) == [refs[1].job_id]
    assert await ids(JobFilter(kinds=[JobKind.MEMORY_ENRICH], user_id=UserId("alice"))) == newest_first
    assert await ids(JobFilter(user_id=UserId("bob"))) == []
    third = await job_of(domain, refs[2])
    assert await ids(JobFilter(created_from=third.created_at)) == newest_first[:3]
    assert await ids(JobFilter(created_until=third.created_at)) == newest_first[3:]


async def test_sequences_tell_how_far_jobs_are(domain: Domain) -> None:
    first, second = await new_job(domain), await new_job(domain)
    await claim(domain.run_store, second)
    gone = JobRef(domain.tenant, JobId(new_id()))
    assert await domain.job_store.sequences([first, second, gone]) == {first: 1, second: 2}
