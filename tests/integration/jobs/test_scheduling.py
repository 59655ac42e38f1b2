"""No job is forgotten: lost hints, lost workers, lost leaders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.clock import SystemClock
from memoro_core.ids import JobId, new_id
from memoro_core.jobs.model import JobKind, JobRef, JobState
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.scheduler import Scheduler
from memoro_core.postgres import leader
from memoro_core.postgres.leader import Leadership
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from memoro_core.tenancy.model import ENTERPRISE_TIER
from tests.support.deferrals import releaser_of
from tests.support.domain import Domain
from tests.support.jobs import LEASE, claim, events_of, job_of, new_job, now, until

LOCK = 0x7E57


@pytest_asyncio.fixture
async def hints(settings: Settings) -> AsyncIterator[RedisHintQueue]:
    async with open_redis(settings) as client:
        yield RedisHintQueue(client)


def scheduler(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail, *, hint_timeout: float = 0.0, second_look: float = 0.0
) -> Scheduler:
    return Scheduler(
        domain.run_store,
        releaser_of(domain.database, tail),
        domain.waiting,
        hints,
        tail,
        SystemClock(),
        RetryPolicy(2.0, 60.0),
        hint_timeout=hint_timeout,
        second_look=second_look,
    )


async def waits_for_its_turn(domain: Domain, ref: JobRef) -> bool:
    """Whether the job is without a hint."""
    async with domain.database.tenant_tx(ref.tenant_id) as connection:
        hinted_at = await connection.fetchval("SELECT hinted_at FROM jobs WHERE job_id = $1", ref.job_id)
    return hinted_at is None


async def test_a_job_whose_hint_was_lost_waits_for_its_turn_again(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    ref = await new_job(domain)
    assert not await waits_for_its_turn(domain, ref)
    await scheduler(domain, hints, tail, hint_timeout=60.0).round()
    assert not await waits_for_its_turn(domain, ref)
    await scheduler(domain, hints, tail).round()
    assert await waits_for_its_turn(domain, ref)


async def test_a_hint_that_may_still_be_unread_is_not_lost(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    await hints.send_fresh([[JobRef(domain.tenant, JobId(new_id()))]], ENTERPRISE_TIER)
    ref = await new_job(domain)
    await scheduler(domain, hints, tail).round()
    assert not await waits_for_its_turn(domain, ref)


async def test_a_backlog_that_waits_to_be_read_does_not_hide_that_a_fresh_hint_was_lost(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    await hints.send_backlog([[JobRef(domain.tenant, JobId(new_id()))]])
    fresh, chosen = await new_job(domain), await new_job(domain)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            "UPDATE jobs SET hinted_at = hinted_at + interval '1 ms' WHERE job_id = $1", chosen.job_id
        )
    await asyncio.sleep(0.01)
    await scheduler(domain, hints, tail).round()
    assert await waits_for_its_turn(domain, fresh)
    assert not await waits_for_its_turn(domain, chosen)


async def test_the_job_of_a_lost_worker_is_told_and_waits_in_one_round(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    ref = await new_job(domain)
    await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    async with tail.subscribe(ref.tenant_id, ref.job_id) as inbox:
        await scheduler(domain, hints, tail).round()
        event = await asyncio.wait_for(inbox.next(), 5) or await asyncio.wait_for(inbox.next(), 5)
    assert event == (await events_of(domain, ref))[-1]
    assert await waits_for_its_turn(domain, ref)
    assert (await job_of(domain, ref)).run_at <= now()


async def test_a_lease_that_is_extended_late_but_before_the_second_look_is_kept(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    held = await claim(domain.run_store, await new_job(domain), lease=timedelta(seconds=-1))
    patient = scheduler(domain, hints, tail, second_look=0.2)
    await patient.round()
    await domain.lease_store.extend([held], lease_until=now() + LEASE)
    await asyncio.sleep(0.25)
    await patient.round()
    assert (await job_of(domain, held.ref)).state is JobState.RUNNING


async def test_a_job_that_lost_a_second_worker_backs_off(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    ref = await new_job(domain)
    for _ in range(2):
        await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
        await scheduler(domain, hints, tail).round()
    job = await job_of(domain, ref)
    assert (job.state, job.attempt) == (JobState.QUEUED, 2)
    assert timedelta(seconds=1) < job.run_at - now() < timedelta(seconds=3)


async def test_a_run_beyond_its_limit_has_timed_out_though_its_worker_lives(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail
) -> None:
    ref = await new_job(domain)
    (held,) = await domain.run_store.claim(
        [ref], worker_id="w", now=now(), lease_until=now() + LEASE, limits=dict.fromkeys(JobKind, 0.05)
    )
    assert await domain.lease_store.extend([held], lease_until=now() + LEASE) == {ref: True}
    await asyncio.sleep(0.06)
    await scheduler(domain, hints, tail).round()
    error = (await job_of(domain, ref)).error
    assert error is not None
    assert error.reason == "JOB_TIMED_OUT"


async def test_while_redis_is_away_workers_that_are_lost_are_seen_all_the_same(
    domain: Domain, settings: Settings, tail: RedisEventTail
) -> None:
    ref = await new_job(domain)
    await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with open_redis(away) as client:
        await scheduler(domain, RedisHintQueue(client), tail).round()
    assert (await job_of(domain, ref)).state is JobState.QUEUED


@asynccontextmanager
async def two_candidates(settings: Settings) -> AsyncIterator[tuple[Leadership, Leadership]]:
    candidates = Leadership(settings, LOCK), Leadership(settings, LOCK)
    try:
        yield candidates
    finally:
        for candidate in candidates:
            await candidate.release()


async def test_one_leads_until_it_gives_up(settings: Settings) -> None:
    async with two_candidates(settings) as (first, second):
        assert await first.acquire()
        assert await first.acquire()
        assert not await second.acquire()
        await first.release()
        assert not first.held

        await until(second.acquire)
        assert not await first.acquire()


async def test_a_leader_that_lost_its_connection_leads_no_more(settings: Settings, owner_database_url: str) -> None:
    async with two_candidates(settings) as (first, second):
        assert await first.acquire()
        owner = await asyncpg.connect(owner_database_url)
        try:
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1", LOCK
            )
        finally:
            await owner.close()
        await until(second.acquire)
        assert not await first.acquire()
        assert not await first.acquire()


async def test_a_leader_that_falls_silent_leads_no_more(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "IDLE_LIMIT", 0.3)
    async with two_candidates(settings) as (first, second):
        assert await first.acquire()
        assert not await second.acquire()
        await until(second.acquire, seconds=3)
        assert not await first.acquire()


async def test_nobody_leads_while_the_database_is_away(settings: Settings) -> None:
    away = Leadership(settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/memoro"}), LOCK)
    assert not await away.acquire()
    assert not away.held
