"""Watching jobs: in order, without a gap, to the end, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import JobId, new_id
from memoro_core.jobs import resume
from memoro_core.jobs.model import Job, JobEvent, JobRef, JobState, Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import RunContext
from memoro_core.jobs.watch import JobWatcher, WatchMessage
from memoro_core.redis import events
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.redis.keys import event_channel
from memoro_core.settings import Settings
from tests.integration.jobs.conftest import MakeRunner
from tests.support.domain import Domain
from tests.support.jobs import (
    StubHandler,
    claim,
    events_of,
    job_of,
    jobs_service,
    new_job,
    now,
    retried,
    succeeded,
    until,
)

NEVER = 3600.0
REPORTS = 700
"""More than the tail keeps for a reader, and than two reads of the database bring."""


@asynccontextmanager
async def watching(
    domain: Domain, tail: RedisEventTail, *, heartbeat: float = NEVER, poll: float = NEVER
) -> AsyncIterator[JobWatcher]:
    async with JobWatcher(domain.job_store, tail, heartbeat=heartbeat, poll=poll) as watcher:
        yield watcher
        assert watcher.open_watches == 0


@pytest_asyncio.fixture
async def unreachable_tail(settings: Settings) -> AsyncIterator[RedisEventTail]:
    """A live tail whose Redis is away."""
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with open_redis(away) as redis, RedisEventTail(redis) as opened:
        yield opened


async def told(watcher: JobWatcher, ref: JobRef, token: str | None = None) -> list[WatchMessage]:
    """All that a watch tells, to its end."""
    async with asyncio.timeout(20):
        return [message async for message in watcher.watch(ref.tenant_id, ref.job_id, token)]


def numbers(messages: list[WatchMessage]) -> list[int]:
    """The numbers of the events among them."""
    return [message.event.seq for message in messages if isinstance(message.event, JobEvent)]


async def watched(watcher: JobWatcher, count: int = 1) -> None:
    async def open_now() -> bool:
        return watcher.open_watches == count

    await until(open_now)


async def end(domain: Domain, ref: JobRef) -> None:
    held = await claim(domain.run_store, ref)
    await domain.run_store.finish(held, succeeded(held), now=now())


async def test_a_watch_begins_with_a_snapshot_and_ends_with_the_end(
    domain: Domain, tail: RedisEventTail, make_runner: MakeRunner
) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail) as watcher, make_runner(StubHandler(domain.run_store)) as runner:
        watches = [asyncio.create_task(told(watcher, ref)) for _ in range(5)]
        await watched(watcher, 5)
        await runner.run(ref)
        for messages in await asyncio.gather(*watches):
            snapshot = messages[0].event
            assert isinstance(snapshot, Job)
            assert (snapshot.state, messages[0].sequence) == (JobState.QUEUED, 1)
            assert numbers(messages) == [2, 3, 4, 5]
            assert [message.sequence for message in messages] == [1, 2, 3, 4, 5]
            assert [message.event for message in messages[1:]] == (await events_of(domain, ref))[1:]


async def test_a_job_that_has_ended_tells_its_end(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    await end(domain, ref)
    async with watching(domain, tail) as watcher:
        snapshot, last = await told(watcher, ref)
        assert isinstance(snapshot.event, Job)
        assert snapshot.event.state is JobState.SUCCEEDED
        assert last.event == (await events_of(domain, ref))[-1]
        # Whoever resumes behind the end is told it again.
        assert [again.event for again in await told(watcher, ref, last.token)] == [last.event]


async def test_a_watch_goes_on_after_any_of_its_tokens(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    for done in range(3):
        progress = StageProgress(Stage.EMBED, StageStatus.RUNNING, done, 3)
        await domain.run_store.report(held, (progress,), progress, now=now())
    await domain.run_store.finish(held, retried(held), now=now())
    await end(domain, ref)
    async with watching(domain, tail) as watcher:
        assert (await told(watcher, ref))[-1].sequence == 8
        for seq in range(8):
            assert numbers(await told(watcher, ref, resume.token(ref, seq))) == list(range(seq + 1, 9))


async def test_a_gap_is_filled_from_the_database(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail) as watcher:
        watch = asyncio.create_task(told(watcher, ref))
        await watched(watcher)
        await end(domain, ref)
        claimed, ended = (await events_of(domain, ref))[1:]
        # Out of order, twice, and the first too late.
        await tail.publish(ref.tenant_id, ref.job_id, [ended, claimed, ended, claimed])
        assert numbers(await watch) == [2, 3]


async def test_a_watch_goes_on_while_redis_is_away(domain: Domain, unreachable_tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    async with watching(domain, unreachable_tail, poll=0.1) as watcher:
        watch = asyncio.create_task(told(watcher, ref))
        await watched(watcher)
        await end(domain, ref)
        await unreachable_tail.publish(ref.tenant_id, ref.job_id, [(await events_of(domain, ref))[-1]])
        assert numbers(await watch) == [2, 3]


async def test_a_watch_survives_the_loss_of_its_connection(
    domain: Domain, tail: RedisEventTail, redis_url: str
) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail) as watcher, Redis.from_url(redis_url) as redis:
        watch = asyncio.create_task(told(watcher, ref))
        await watched(watcher)
        assert await redis.client_kill_filter(_type="pubsub") == 1
        await end(domain, ref)
        # Nothing is published: that events may have been missed is seen from the connection alone.
        assert numbers(await watch) == [2, 3]


async def test_a_watch_survives_what_nobody_understands(domain: Domain, tail: RedisEventTail, redis_url: str) -> None:
    ref, other = await new_job(domain), await new_job(domain)
    channel, name = event_channel(domain.tenant), str(ref.job_id).encode()
    garbage = (b"", b"\n\n", b"\xff\xfe", name, name + b"{", name + b'{"seq": 2, "state": "TELEPORTED"}', b"\xff" * 99)
    async with watching(domain, tail) as watcher, Redis.from_url(redis_url) as redis:
        watches = [asyncio.create_task(told(watcher, each)) for each in (ref, other)]
        await watched(watcher, 2)
        for message in garbage:
            # Heard by the connection that there was at first: it is not given up.
            assert await redis.publish(channel, message) == 1
        for each in (ref, other):
            await end(domain, each)
            # Told live: nothing else would send these watches to the database.
            await tail.publish(each.tenant_id, each.job_id, (await events_of(domain, each))[1:])
        assert [numbers(messages) for messages in await asyncio.gather(*watches)] == [[2, 3], [2, 3]]


async def test_a_watch_survives_an_error_that_nobody_has_thought_of(
    domain: Domain, tail: RedisEventTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail) as watcher:
        watch = asyncio.create_task(told(watcher, ref))
        await watched(watcher)
        with monkeypatch.context() as broken:
            broken.setattr(events, "_ID_LENGTH", "not a number")
            await end(domain, ref)
            await tail.publish(ref.tenant_id, ref.job_id, (await events_of(domain, ref))[1:])
            assert numbers(await watch) == [2, 3]


async def test_what_redis_forgets_no_watch_forgets(
    domain: Domain, tail: RedisEventTail, redis_url: str, make_runner: MakeRunner
) -> None:
    async def flush(_: RunContext) -> None:
        await redis.flushall()

    async with Redis.from_url(redis_url) as redis, watching(domain, tail, poll=0.2) as watcher:
        refs = [await new_job(domain) for _ in range(10)]
        watches = [asyncio.create_task(told(watcher, ref)) for ref in refs]
        await watched(watcher, 10)
        async with make_runner(StubHandler(domain.run_store, flush)) as runner:
            await asyncio.gather(*(runner.run(ref) for ref in refs))
        for messages in await asyncio.gather(*watches):
            assert numbers(messages) == [2, 3, 4, 5]


async def test_a_reader_who_is_too_slow_is_not_told_of_overtaken_progress(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    async with watching(domain, tail) as watcher, aclosing(watcher.watch(ref.tenant_id, ref.job_id)) as messages:
        snapshot = await anext(messages)
        assert snapshot.sequence == 2
        reports = [StageProgress(Stage.EMBED, StageStatus.RUNNING, done, REPORTS) for done in range(REPORTS)]
        for progress in reports:
            told_now, _ = await domain.run_store.report(held, (progress,), progress, now=now())
            await tail.publish(ref.tenant_id, ref.job_id, [told_now])
        last = await domain.run_store.finish(held, succeeded(held), now=now())
        await tail.publish(ref.tenant_id, ref.job_id, [last])
        async with asyncio.timeout(20):
            read = [message async for message in messages]
    seen = numbers(read)
    assert seen == sorted(set(seen))
    # What the tail had no room for came in pages of the database: of all but the last only the latest progress.
    assert len(seen) < REPORTS / 2
    assert [message.sequence for message in read] == seen
    assert read[-1].event == last
    assert isinstance(read[-2].event, JobEvent)
    assert read[-2].event.stage == reports[-1]


async def test_a_quiet_watch_has_a_heartbeat(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail, heartbeat=0.05) as watcher:
        async with aclosing(watcher.watch(ref.tenant_id, ref.job_id)) as messages:
            got = [await anext(messages) for _ in range(4)]
        assert [message.event for message in got[1:]] == [None, None, None]
        assert {message.sequence for message in got} == {1}
        assert len({message.token for message in got}) == 1


async def test_a_cancelled_job_ends_its_watch(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    service = jobs_service(domain, tail)
    async with watching(domain, tail) as watcher:
        watch = asyncio.create_task(told(watcher, ref))
        await watched(watcher)
        assert (await service.cancel(ref.tenant_id, ref.job_id)).state is JobState.CANCELLED
        last = (await watch)[-1].event
        assert isinstance(last, JobEvent)
        assert last.state is JobState.CANCELLED
    assert (await service.cancel(ref.tenant_id, ref.job_id)).state is JobState.CANCELLED


async def test_an_ended_job_cannot_be_cancelled(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    await end(domain, ref)
    service = jobs_service(domain, tail)
    with pytest.raises(MemoroError) as refused:
        await service.cancel(ref.tenant_id, ref.job_id)
    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, Reason.JOB_NOT_CANCELLABLE)
    assert refused.value.metadata == {"state": "SUCCEEDED"}


async def test_only_the_tenant_s_own_jobs_can_be_watched(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    other = await domain.new_tenant()
    async with watching(domain, tail) as watcher:
        for stranger in (JobRef(other, ref.job_id), JobRef(domain.tenant, JobId(new_id()))):
            with pytest.raises(MemoroError) as missing:
                await told(watcher, stranger)
            assert missing.value.reason is Reason.JOB_NOT_FOUND


async def test_a_token_of_another_job_is_refused(domain: Domain, tail: RedisEventTail) -> None:
    ref, other = await new_job(domain), await new_job(domain)
    await end(domain, other)
    async with watching(domain, tail) as watcher:
        token = (await told(watcher, other))[0].token
        with pytest.raises(MemoroError) as refused:
            await told(watcher, ref, token)
        assert refused.value.reason is Reason.RESUME_TOKEN_INVALID


async def test_a_token_behind_which_events_are_gone_has_expired(
    domain: Domain, tail: RedisEventTail, owner_database_url: str
) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail) as watcher:
        async with aclosing(watcher.watch(ref.tenant_id, ref.job_id)) as messages:
            token = (await anext(messages)).token
        await end(domain, ref)
        owner = await asyncpg.connect(owner_database_url)
        try:
            await owner.execute("DELETE FROM job_events WHERE job_id = $1 AND seq <= 2", ref.job_id)
        finally:
            await owner.close()
        with pytest.raises(MemoroError) as expired:
            await told(watcher, ref, token)
        assert (expired.value.code, expired.value.reason) == (Code.OUT_OF_RANGE, Reason.RESUME_TOKEN_EXPIRED)
        assert numbers(await told(watcher, ref)) == [3]


async def test_a_watch_whose_progress_a_crash_took_back_still_ends(domain: Domain, tail: RedisEventTail) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail, poll=0.1) as watcher:
        watch = asyncio.create_task(told(watcher, ref, resume.token(ref, 40)))
        await watched(watcher)
        await end(domain, ref)
        assert numbers(await watch) == [3]
    assert (await job_of(domain, ref)).sequence == 3
