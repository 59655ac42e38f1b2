"""Following all jobs of a tenant: every event, in order, whoever else writes and whatever becomes of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import TenantId, UserId
from memoro_core.jobs.feed_order import in_order
from memoro_core.jobs.feed_ports import FeedEvent, FeedFilter, before_transaction
from memoro_core.jobs.model import Job, JobKind, JobRef, JobState, Stage, StageProgress, StageStatus
from memoro_core.jobs.resume import FeedSpot, FeedTokens
from memoro_core.jobs.tenant_watch import TenantWatcher, TenantWatchMessage
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.database import Connection
from memoro_core.postgres.feed_store import PostgresFeedStore
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.jobs import claim, events_of, jobs_service, new_job, now, retried, succeeded, until

NEVER = 3600.0
ALL = FeedFilter()
Messages = AsyncGenerator[TenantWatchMessage, None]
Told = tuple[JobRef, int]


@asynccontextmanager
async def watching(
    domain: Domain, tail: RedisEventTail, *, heartbeat: float = NEVER, poll: float = NEVER
) -> AsyncIterator[TenantWatcher]:
    async with TenantWatcher(PostgresFeedStore(domain.database), tail, heartbeat=heartbeat, poll=poll) as watcher:
        yield watcher
        assert watcher.open_watches == 0


@asynccontextmanager
async def begun(
    watcher: TenantWatcher, tenant: TenantId, feed_filter: FeedFilter = ALL
) -> AsyncIterator[tuple[Messages, list[TenantWatchMessage]]]:
    """A watch past its beginning, and what it was told there."""
    async with aclosing(watcher.watch(tenant, feed_filter)) as messages:
        beginning = await taken(messages, until_heartbeat)
        yield messages, beginning


async def taken(
    messages: Messages, enough: Callable[[list[TenantWatchMessage]], bool], *, seconds: float = 20.0
) -> list[TenantWatchMessage]:
    got: list[TenantWatchMessage] = []
    async with asyncio.timeout(seconds):
        async for message in messages:
            got.append(message)
            if enough(got):
                break
    return got


def until_heartbeat(got: list[TenantWatchMessage]) -> bool:
    return got[-1].event is None


def until_ended(*refs: JobRef) -> Callable[[list[TenantWatchMessage]], bool]:
    """Until each of the jobs has been told to be at its end."""

    def enough(got: list[TenantWatchMessage]) -> bool:
        ended = {event.job_id for event in events_in(got) if event.change.state.terminal}
        return {ref.job_id for ref in refs} <= ended

    return enough


def events_in(messages: list[TenantWatchMessage]) -> list[FeedEvent]:
    return [message.event for message in messages if isinstance(message.event, FeedEvent)]


def numbers_of(messages: list[TenantWatchMessage], ref: JobRef) -> list[int]:
    return [event.change.seq for event in events_in(messages) if event.job_id == ref.job_id]


async def run_through(domain: Domain, ref: JobRef, tail: RedisEventTail | None = None, *, reports: int = 2) -> None:
    """Takes a job to its end, and tells the tail of it."""
    held = await claim(domain.run_store, ref)
    for done in range(reports):
        progress = StageProgress(Stage.EMBED, StageStatus.RUNNING, done, reports)
        await domain.run_store.report(held, (progress,), progress, now=now())
    event = await domain.run_store.finish(held, succeeded(held), now=now())
    if tail is not None:
        await tail.publish(ref.tenant_id, ref.job_id, [event])


async def test_a_watch_begins_with_what_is_under_way(domain: Domain, tail: RedisEventTail) -> None:
    ended, first, second = [await new_job(domain) for _ in range(3)]
    await run_through(domain, ended)
    await claim(domain.run_store, second)
    async with watching(domain, tail) as watcher, begun(watcher, domain.tenant) as (messages, beginning):
        snapshots = [message.event for message in beginning[:-1]]
        assert [(job.id, job.state) for job in snapshots if isinstance(job, Job)] == [
            (first.job_id, JobState.QUEUED),
            (second.job_id, JobState.RUNNING),
        ]
        late = await new_job(domain)
        await run_through(domain, late, tail)
        assert numbers_of(await taken(messages, until_ended(late)), late) == [1, 2, 3, 4, 5]


async def test_all_watches_of_a_tenant_are_told_the_same(domain: Domain, tail: RedisEventTail) -> None:
    async with watching(domain, tail) as watcher, AsyncExitStack() as stack:
        watches = [(await stack.enter_async_context(begun(watcher, domain.tenant)))[0] for _ in range(20)]
        refs = [await new_job(domain) for _ in range(5)]
        for ref in refs:
            await run_through(domain, ref, tail)
        all_told = await asyncio.gather(*(taken(messages, until_ended(*refs)) for messages in watches))
        for told in all_told:
            assert events_in(told) == events_in(all_told[0])
            for ref in refs:
                assert [event.change for event in events_in(told) if event.job_id == ref.job_id] == list(
                    await events_of(domain, ref)
                )


async def test_nothing_is_skipped_while_writers_overtake_each_other(domain: Domain, tail: RedisEventTail) -> None:
    async with watching(domain, tail, poll=0.1) as watcher, begun(watcher, domain.tenant) as (messages, _):
        slow, *quick = [await new_job(domain) for _ in range(4)]

        def enough(got: list[TenantWatchMessage]) -> bool:
            return until_ended(*quick)(got) and numbers_of(got, slow) == [1, 2]

        telling = asyncio.create_task(taken(messages, enough))
        async with domain.database.tenant_tx(domain.tenant) as connection:
            # It has its place in the order now, before all of the others, and commits after them.
            await connection.execute("SELECT pg_current_xact_id()")
            for ref in quick:
                await run_through(domain, ref, tail)
            await asyncio.sleep(0.3)
            assert not telling.done()
            await connection.execute(
                """INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
                   SELECT tenant_id, job_id, 2, event || '{"seq": 2}', created_at FROM job_events
                   WHERE tenant_id = $1 AND job_id = $2 AND seq = 1""",
                domain.tenant,
                slow.job_id,
            )
            await connection.execute(
                "UPDATE jobs SET last_seq = 2 WHERE tenant_id = $1 AND job_id = $2", domain.tenant, slow.job_id
            )
        told = await telling
        for ref in quick:
            assert numbers_of(told, ref) == [1, 2, 3, 4, 5]


async def test_a_crowd_of_writers_is_told_whole_and_in_order(domain: Domain, tail: RedisEventTail) -> None:
    async with watching(domain, tail) as watcher, begun(watcher, domain.tenant) as (messages, _):
        refs = list(await asyncio.gather(*(new_job(domain) for _ in range(40))))
        telling = asyncio.create_task(taken(messages, until_ended(*refs), seconds=40))
        await asyncio.gather(*(run_through(domain, ref, tail, reports=5) for ref in refs))
        told = await telling
        for ref in refs:
            assert numbers_of(told, ref) == list(range(1, 9))


async def test_a_watch_goes_on_after_any_of_its_tokens(domain: Domain, tail: RedisEventTail) -> None:
    waiting = [await new_job(domain) for _ in range(3)]
    async with watching(domain, tail) as watcher:
        async with begun(watcher, domain.tenant) as (messages, beginning):
            refs = [await new_job(domain) for _ in range(3)]
            for ref in refs:
                await run_through(domain, ref, tail)
            told = beginning + await taken(messages, until_ended(*refs))
        for place, message in enumerate(told):
            async with aclosing(watcher.watch(domain.tenant, ALL, message.token)) as again:
                if place == len(told) - 1:
                    late = await new_job(domain)
                    await run_through(domain, late, tail)
                    assert numbers_of(await taken(again, until_ended(late)), late) == [1, 2, 3, 4, 5]
                else:
                    rest = await taken(again, until_ended(refs[-1]))
                    assert events_in(rest) == events_in(told[place + 1 :])
                    snapshots = [one.event.id for one in rest if isinstance(one.event, Job)]
                    assert snapshots == [ref.job_id for ref in waiting[place + 1 :]]


async def test_a_watch_goes_on_while_redis_is_away(domain: Domain, settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with (
        open_redis(away) as redis,
        RedisEventTail(redis) as unreachable,
        watching(domain, unreachable, poll=0.1) as watcher,
        begun(watcher, domain.tenant) as (messages, _),
    ):
        ref = await new_job(domain)
        await run_through(domain, ref)
        assert numbers_of(await taken(messages, until_ended(ref)), ref) == [1, 2, 3, 4, 5]


async def test_a_watch_survives_the_loss_of_its_connection(
    domain: Domain, tail: RedisEventTail, redis_url: str
) -> None:
    async with (
        watching(domain, tail) as watcher,
        Redis.from_url(redis_url) as redis,
        begun(watcher, domain.tenant) as (messages, _),
    ):
        first, second = await new_job(domain), await new_job(domain)
        await run_through(domain, first, tail)
        await taken(messages, until_ended(first))

        async def cut() -> bool:
            return bool(await redis.client_kill_filter(_type="pubsub"))

        await until(cut)
        # Nothing is published: that something may have been missed is seen from the connection alone.
        await run_through(domain, second)
        assert numbers_of(await taken(messages, until_ended(second)), second)[-1] == 5


async def test_a_slow_reader_costs_little_and_hears_every_change_of_state(domain: Domain, tail: RedisEventTail) -> None:
    jobs, reports = 25, 120
    async with watching(domain, tail) as watcher, begun(watcher, domain.tenant) as (slow, _):
        refs = [await new_job(domain) for _ in range(jobs)]
        async with begun(watcher, domain.tenant) as (quick, _):
            telling = asyncio.create_task(taken(quick, until_ended(*refs), seconds=60))
            await asyncio.gather(*(run_through(domain, ref, tail, reports=reports) for ref in refs))
            await telling
        (feed,) = watcher._feeds.values()
        assert len(feed._events) <= 2_500
        told = await taken(slow, until_ended(*refs))
        assert len(events_in(told)) < jobs * reports / 2
        for ref in refs:
            states = [event.change.state for event in events_in(told) if event.job_id == ref.job_id]
            assert (states[0], states[-1]) == (JobState.QUEUED, JobState.SUCCEEDED)
            assert set(states[1:-1]) == {JobState.RUNNING}
            numbers = numbers_of(told, ref)
            assert numbers == sorted(set(numbers))
            # Of the progress, at least the last.
            assert {1, 2, reports + 2, reports + 3} <= set(numbers)


async def test_filters(domain: Domain, tail: RedisEventTail) -> None:
    async def of_bob() -> JobRef:
        accepted = await domain.memories.create(domain.tenant, NewMemory(UserId("bob"), "Hello."))
        assert accepted.job is not None
        return JobRef(domain.tenant, accepted.job.id)

    waiting, theirs = await new_job(domain), await of_bob()
    filters = (
        FeedFilter(user_id=UserId("bob")),
        FeedFilter(states=frozenset({JobState.SUCCEEDED, JobState.RUNNING})),
        FeedFilter(kinds=frozenset({JobKind.MEMORY_ENRICH}), states=frozenset({JobState.QUEUED})),
    )
    async with watching(domain, tail) as watcher, AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(begun(watcher, domain.tenant, one)) for one in filters]
        snapshots = [[message.event for message in beginning[:-1]] for _, beginning in watches]
        assert [[job.id for job in jobs if isinstance(job, Job)] for jobs in snapshots] == [
            [theirs.job_id],
            [],
            [waiting.job_id, theirs.job_id],
        ]
        mine, bobs, last = await new_job(domain), await of_bob(), await of_bob()
        for ref in (mine, bobs, last):
            await run_through(domain, ref, tail)
        of_user, of_states = [await taken(messages, until_ended(last)) for messages, _ in watches[:2]]
        queued = await taken(watches[2][0], lambda got: len(got) == 3)
        assert (numbers_of(of_user, mine), numbers_of(of_user, bobs)) == ([], [1, 2, 3, 4, 5])
        assert numbers_of(of_states, mine) == numbers_of(of_states, bobs) == [2, 3, 4, 5]
        assert [event.job_id for event in events_in(queued)] == [mine.job_id, bobs.job_id, last.job_id]


async def test_watchers_of_two_tenants_hear_of_their_own_only(domain: Domain, tail: RedisEventTail) -> None:
    other = await domain.new_tenant()
    async with (
        watching(domain, tail) as watcher,
        begun(watcher, domain.tenant) as (mine, _),
        begun(watcher, other) as (theirs, _),
    ):
        accepted = await domain.memories.create(other, NewMemory(UserId("alice"), "Hello."))
        assert accepted.job is not None
        ref, foreign = await new_job(domain), JobRef(other, accepted.job.id)
        for one in (ref, foreign):
            await run_through(domain, one, tail)
        assert {event.job_id for event in events_in(await taken(mine, until_ended(ref)))} == {ref.job_id}
        assert {event.job_id for event in events_in(await taken(theirs, until_ended(foreign)))} == {foreign.job_id}


async def test_a_quiet_watch_has_a_heartbeat_whose_token_keeps_up(domain: Domain, tail: RedisEventTail) -> None:
    only_failed = FeedFilter(states=frozenset({JobState.FAILED}))
    async with (
        watching(domain, tail, heartbeat=0.1, poll=0.05) as watcher,
        begun(watcher, domain.tenant, only_failed) as (messages, beginning),
    ):
        ref = await new_job(domain)
        await run_through(domain, ref, tail)
        tokens, last = FeedTokens(domain.tenant, only_failed), (await events_of(domain, ref))[-1].at

        def beyond(got: list[TenantWatchMessage]) -> bool:
            return tokens.spot(got[-1].token).at > last

        told = await taken(messages, beyond)
        assert all(message.event is None for message in told)
        assert tokens.spot(told[-1].token).position > tokens.spot(beginning[-1].token).position


async def refusal(watcher: TenantWatcher, tenant: TenantId, token: str, feed_filter: FeedFilter = ALL) -> MemoroError:
    with pytest.raises(MemoroError) as refused:
        async with aclosing(watcher.watch(tenant, feed_filter, token)) as messages, asyncio.timeout(10):
            await anext(messages)
    return refused.value


async def test_a_token_is_good_for_its_tenant_and_filter_only(domain: Domain, tail: RedisEventTail) -> None:
    other = await domain.new_tenant()
    async with watching(domain, tail) as watcher:
        async with begun(watcher, domain.tenant) as (_, beginning):
            token = beginning[-1].token
        for_bob = FeedFilter(user_id=UserId("bob"))
        for error in (
            await refusal(watcher, other, token),
            await refusal(watcher, domain.tenant, token, for_bob),
            await refusal(watcher, domain.tenant, "x"),
        ):
            assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, Reason.RESUME_TOKEN_INVALID)


async def test_a_token_behind_which_events_may_be_gone_has_expired(domain: Domain, tail: RedisEventTail) -> None:
    tokens = FeedTokens(domain.tenant, ALL)
    async with watching(domain, tail) as watcher:
        async with begun(watcher, domain.tenant) as (_, beginning):
            spot = tokens.spot(beginning[-1].token)
        for age, kept, good in (
            (timedelta(hours=11), None, True),
            (timedelta(hours=13), None, False),
            (timedelta(minutes=20), timedelta(hours=1), True),
            (timedelta(minutes=40), timedelta(hours=1), False),
        ):
            old = tokens.token(FeedSpot(spot.position, spot.origin, datetime.now(UTC) - age))
            ref = await new_job(domain)
            async with aclosing(watcher.watch(domain.tenant, ALL, old, kept=kept)) as messages, asyncio.timeout(10):
                if good:
                    assert events_in([await anext(messages)])
                else:
                    with pytest.raises(MemoroError) as expired:
                        await anext(messages)
                    assert (expired.value.code, expired.value.reason) == (
                        Code.OUT_OF_RANGE,
                        Reason.RESUME_TOKEN_EXPIRED,
                    )
            assert ref


async def test_a_token_of_another_cluster_or_from_the_future_has_expired(domain: Domain, tail: RedisEventTail) -> None:
    tokens = FeedTokens(domain.tenant, ALL)
    async with watching(domain, tail) as watcher:
        async with begun(watcher, domain.tenant) as (_, beginning):
            spot = tokens.spot(beginning[-1].token)
        origin = spot.origin
        elsewhere = type(origin)(origin.cluster + 1, origin.recovery)
        recovered = type(origin)(origin.cluster, origin.recovery - 1)
        beyond = before_transaction(spot.position.transaction_id + 1_000_000)
        for wrong in (
            FeedSpot(spot.position, elsewhere, spot.at),
            FeedSpot(beyond, origin, spot.at),
            FeedSpot(beyond, recovered, spot.at),
        ):
            assert (await refusal(watcher, domain.tenant, tokens.token(wrong))).reason is Reason.RESUME_TOKEN_EXPIRED
        # A crash of this cluster takes little back: it is told again rather than left out.
        ref = await new_job(domain)
        before_crash = tokens.token(FeedSpot(spot.position, recovered, spot.at))
        async with aclosing(watcher.watch(domain.tenant, ALL, before_crash)) as messages:
            assert numbers_of(await taken(messages, lambda got: bool(events_in(got))), ref) == [1]


async def test_a_cancelled_job_is_told(domain: Domain, tail: RedisEventTail) -> None:
    service = jobs_service(domain, tail)
    ref = await new_job(domain)
    async with watching(domain, tail) as watcher, begun(watcher, domain.tenant) as (messages, _):
        await service.cancel(ref.tenant_id, ref.job_id)
        assert events_in(await taken(messages, until_ended(ref)))[-1].change.state is JobState.CANCELLED


async def test_a_feed_that_nobody_reads_ends(domain: Domain, tail: RedisEventTail) -> None:
    async with watching(domain, tail, poll=0.05) as watcher:
        async with begun(watcher, domain.tenant):
            assert watcher._feeds
        ref = await new_job(domain)
        held = await claim(domain.run_store, ref)
        await domain.run_store.finish(held, retried(held), now=now())

        async def ended() -> bool:
            return not watcher._feeds

        await until(ended)


async def test_events_of_a_job_come_by_number_though_their_transactions_overtook_each_other(
    domain: Domain, tail: RedisEventTail
) -> None:
    async with watching(domain, tail, poll=0.05) as watcher, begun(watcher, domain.tenant) as (messages, beginning):
        async with domain.database.tenant_tx(domain.tenant) as early:
            await early.execute("SELECT pg_current_xact_id()")
            ref = await new_job(domain)
            await run_through(domain, ref)
            await write_sixth(early, ref)
        told = await taken(messages, lambda got: len(events_in(got)) == 6)
        assert numbers_of(told, ref) == [1, 2, 3, 4, 5, 6]
        # No token of theirs leaves one of them out.
        for place, message in enumerate(told[:-1]):
            async with aclosing(watcher.watch(domain.tenant, ALL, message.token)) as again:
                rest = await taken(again, lambda got: bool(events_in(got)) and numbers_of(got, ref)[-1] == 6)
                assert set(numbers_of(rest, ref)) >= set(range(place + 2, 7))
        assert beginning


async def write_sixth(connection: Connection, ref: JobRef) -> None:
    """One more event of a job that has five."""
    await connection.execute(
        """INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
           SELECT tenant_id, job_id, 6, event || '{"seq": 6}', created_at FROM job_events
           WHERE tenant_id = $1 AND job_id = $2 AND seq = 3""",
        ref.tenant_id,
        ref.job_id,
    )


async def test_an_event_waits_for_those_before_it_that_can_not_be_told_yet(
    domain: Domain, tail: RedisEventTail
) -> None:
    async with watching(domain, tail, poll=0.05) as watcher, begun(watcher, domain.tenant) as (messages, beginning):
        async with AsyncExitStack() as transactions:
            early = await transactions.enter_async_context(domain.database.tenant_tx(domain.tenant))
            await early.execute("SELECT pg_current_xact_id()")
            async with domain.database.tenant_tx(domain.tenant) as between:
                await between.execute("SELECT pg_current_xact_id()")
                ref = await new_job(domain)
                await run_through(domain, ref)
                await write_sixth(early, ref)
                await transactions.aclose()
                telling = asyncio.create_task(taken(messages, lambda got: len(events_in(got)) == 6))
                again = asyncio.create_task(_numbers_after(watcher, domain.tenant, beginning[-1].token, ref))
                await asyncio.sleep(0.3)
                assert not telling.done()
        assert numbers_of(await telling, ref) == [1, 2, 3, 4, 5, 6]
        assert await again == [1, 2, 3, 4, 5, 6]


async def _numbers_after(watcher: TenantWatcher, tenant: TenantId, token: str, ref: JobRef) -> list[int]:
    async with aclosing(watcher.watch(tenant, ALL, token)) as messages:
        return numbers_of(await taken(messages, lambda got: len(events_in(got)) == 6), ref)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20])
async def test_pages_end_before_an_event_that_stands_before_an_earlier_one(domain: Domain, limit: int) -> None:
    store = PostgresFeedStore(domain.database)
    head, _ = await store.begin(domain.tenant, ALL, after=None, limit=1)
    first = await new_job(domain)
    async with domain.database.tenant_tx(domain.tenant) as early:
        await early.execute("SELECT pg_current_xact_id()")
        ref, other = await new_job(domain), await new_job(domain)
        for one in (other, ref, first):
            await run_through(domain, one)
        await write_sixth(early, ref)
    told: list[FeedEvent] = []
    position, more = head.position, True
    while more:
        page = await store.read(domain.tenant, position, limit=limit)
        told += in_order(page.events)
        assert page.end >= position
        position, more = page.end, page.more
    for one, numbers in ((ref, 6), (other, 5), (first, 5)):
        assert [event.change.seq for event in told if event.job_id == one.job_id] == list(range(1, numbers + 1))


async def test_of_many_jobs_under_way_the_latest_are_told_the_oldest_first(domain: Domain) -> None:
    refs = [await new_job(domain) for _ in range(5)]
    await claim(domain.run_store, refs[3])
    store = PostgresFeedStore(domain.database)
    _, latest = await store.begin(domain.tenant, ALL, after=None, limit=3)
    assert [job.id for job in latest] == [ref.job_id for ref in refs[2:]]
    _, rest = await store.begin(domain.tenant, ALL, after=refs[3].job_id, limit=3)
    assert [job.id for job in rest] == [refs[4].job_id]


async def test_a_feed_that_breaks_breaks_its_watches(
    domain: Domain, tail: RedisEventTail, owner_database_url: str
) -> None:
    ref = await new_job(domain)
    async with watching(domain, tail, poll=0.05) as watcher, begun(watcher, domain.tenant) as (messages, _):
        owner = await asyncpg.connect(owner_database_url)
        try:
            # Nothing that this version has written: it is found by the feed, and by no watch itself.
            await owner.execute(
                """INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
                   VALUES ($1, $2, 2, '{"state": "LOST"}', now())""",
                ref.tenant_id,
                ref.job_id,
            )
            # Whoever goes on with the job goes on after it.
            await owner.execute("UPDATE jobs SET last_seq = 2 WHERE job_id = $1", ref.job_id)
        finally:
            await owner.close()
        with pytest.raises(ValueError, match="LOST"):
            await taken(messages, until_ended(ref))
