"""No job is forgotten: lost hints, lost workers, lost leaders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from memoro_core.clock import SystemClock
from memoro_core.jobs.model import JobState
from memoro_core.jobs.scheduler import Scheduler
from memoro_core.postgres import leader
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from memoro_core.postgres.leader import Leadership
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.queue.tasks import FIELD, encode
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.redis.keys import hint_stream
from memoro_core.settings import Settings
from memoro_core.tenancy.model import Tier
from tests.support.domain import Domain
from tests.support.jobs import claim, events_of, job_of, new_job, now, retried, until

LOCK = 0x7E57


@pytest_asyncio.fixture
async def hints(settings: Settings) -> AsyncIterator[RedisHintQueue]:
    async with open_redis(settings) as client:
        yield RedisHintQueue(client)


def scheduler(domain: Domain, hints: RedisHintQueue, tail: RedisEventTail, *, batch: int = 500) -> Scheduler:
    requests = PostgresRequestStore(domain.database)
    return Scheduler(domain.job_store, requests, hints, tail, SystemClock(), hint_timeout=0.0, batch=batch)


async def hinted(redis_url: str) -> list[bytes]:
    """The messages that wait for the workers of the test's tier."""
    async with Redis.from_url(redis_url) as redis:
        entries: Any = await redis.xrange(hint_stream(Tier.PRO))
    return [fields[FIELD] for _, fields in entries]


async def test_a_job_whose_hint_was_lost_is_hinted_again(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail, redis_url: str
) -> None:
    ref = await new_job(domain)
    await scheduler(domain, hints, tail).round()
    assert encode(ref) in await hinted(redis_url)


async def test_a_retry_is_hinted_when_its_time_has_come(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail, redis_url: str
) -> None:
    ref, later = await new_job(domain), await new_job(domain)
    for one, wait in ((ref, 0.0), (later, 60.0)):
        held = await claim(domain.run_store, one)
        await domain.run_store.finish(held, retried(held, at=now() + timedelta(seconds=wait)), now=now())
    await scheduler(domain, hints, tail).round()
    waiting = await hinted(redis_url)
    assert encode(ref) in waiting
    assert encode(later) not in waiting


async def test_the_job_of_a_lost_worker_is_told_and_hinted_in_one_round(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail, redis_url: str
) -> None:
    ref = await new_job(domain)
    await claim(domain.run_store, ref, lease=timedelta(seconds=-1))
    async with tail.subscribe(ref.tenant_id, ref.job_id) as inbox:
        await scheduler(domain, hints, tail).round()
        event = await asyncio.wait_for(inbox.next(), 5) or await asyncio.wait_for(inbox.next(), 5)
    assert event == (await events_of(domain, ref))[-1]
    assert encode(ref) in await hinted(redis_url)


async def test_while_many_hints_wait_no_more_are_sent(
    domain: Domain, hints: RedisHintQueue, tail: RedisEventTail, redis_url: str
) -> None:
    ref = await new_job(domain)
    await hints.send([ref] * 10, tier=Tier.PRO)
    await scheduler(domain, hints, tail, batch=10).round()
    assert len(await hinted(redis_url)) == 10


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
