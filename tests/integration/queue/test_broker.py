"""The broker's contract: every hint is read in the end, by a worker that has room for it, whatever happens to Redis.

It holds over a single server, a cluster, and a master behind Sentinel.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memoro_core.jobs.hints import HINT_SIZE, HintClass
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.queue.reader import ReclaimPolicy
from memoro_core.queue.streams import DATA, STREAMS
from memoro_core.queue.tasks import RUN_JOBS, encode
from memoro_core.redis.client import RedisClient
from memoro_core.redis.keys import BACKLOG_STREAM, HINT_GROUP, hint_stream
from memoro_core.settings import Settings
from memoro_core.tenancy.model import BUILT_IN_TIERS, FREE_TIER, PRO_TIER, TierName
from tests.support.hints import NEVER, listening, new_refs, singly
from tests.support.jobs import until
from tests.support.topologies import Deployment

FREE = hint_stream(FREE_TIER)
ALL_STREAMS = [stream for streams in STREAMS.values() for stream in streams]


@pytest.fixture
def settings(deployment: Deployment) -> Settings:
    return Settings(redis_url=deployment.url)


async def nothing_waits(redis: RedisClient) -> None:
    """Waits until no hint is left, acknowledged or not."""

    async def empty() -> bool:
        return not any([await redis.xlen(stream) for stream in ALL_STREAMS])

    await until(empty)


async def unacknowledged(redis: RedisClient, stream: str) -> int:
    summary: Any = await redis.xpending(stream, HINT_GROUP)
    return int(summary["pending"])


async def test_hints_of_all_tiers_and_of_the_backlog_are_read_and_leave_nothing_behind(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    refs = new_refs(100)
    async with listening(settings) as worker:
        for number, tier in enumerate((*BUILT_IN_TIERS, TierName("startup"), TierName("backlog"))):
            await hints.send_fresh(singly(refs[number * 12 : number * 12 + 12]), tier)
        await hints.send_backlog([refs[60:76], refs[76:92], refs[92:]])
        await worker.has_read(refs)
        await nothing_waits(redis)
        assert len(worker.runner.refs) == 100
        await worker.is_idle()


async def test_hints_that_came_before_any_worker_are_read(settings: Settings, hints: RedisHintQueue) -> None:
    refs = new_refs(25)
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert await hints.oldest() == {HintClass.FRESH: None, HintClass.BACKLOG: None}
    await hints.send_fresh(singly(refs[:5]), PRO_TIER)
    await hints.send_backlog([refs[5:21], refs[21:]])
    for sent in (await hints.oldest()).values():
        assert sent is not None
        assert before < sent < datetime.now(UTC) + timedelta(seconds=1)
    async with listening(settings) as worker:
        await worker.has_read(refs)


async def test_a_lost_group_is_made_again(settings: Settings, hints: RedisHintQueue, redis: RedisClient) -> None:
    async with listening(settings) as worker:
        for _ in range(2):
            refs = new_refs(4)
            await hints.send_fresh(singly(refs[:2]), FREE_TIER)
            await hints.send_backlog([refs[2:]])
            await worker.has_read(refs)
            for stream in (FREE, BACKLOG_STREAM):
                await redis.xgroup_destroy(stream, HINT_GROUP)


async def test_hints_after_a_flush_are_read(settings: Settings, hints: RedisHintQueue, deployment: Deployment) -> None:
    async with listening(settings) as worker:
        for _ in range(3):
            refs = new_refs(6)
            await hints.send_fresh(singly(refs[:3]), FREE_TIER)
            await hints.send_backlog([refs[3:]])
            await worker.has_read(refs)
            await deployment.empty()
        assert worker.broker.unreachable_since is None


async def test_a_dropped_connection_is_made_again(
    settings: Settings, hints: RedisHintQueue, deployment: Deployment
) -> None:
    async with listening(settings) as worker:
        for _ in range(3):
            refs = new_refs(6)
            await hints.send_fresh(singly(refs[:3]), FREE_TIER)
            await hints.send_backlog([refs[3:]])
            await worker.has_read(refs)
            await deployment.drop_connections()


async def test_what_a_dead_worker_read_goes_to_another_without_new_hints(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    refs = new_refs(100)
    await hints.send_fresh(singly(refs[:40]), FREE_TIER)
    await hints.send_backlog([refs[40:56], refs[56:72], refs[72:88], refs[88:]])
    for stream in (FREE, BACKLOG_STREAM):
        await redis.xgroup_create(stream, HINT_GROUP, id="0")
        await redis.xreadgroup(HINT_GROUP, "dead", {stream: ">"}, count=100)
    async with listening(settings) as worker:
        await worker.has_read(refs)
        await nothing_waits(redis)


async def test_a_dead_worker_s_entry_that_is_gone_stops_nobody(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    refs = new_refs(3)
    await hints.send_fresh(singly(refs), FREE_TIER)
    await redis.xgroup_create(FREE, HINT_GROUP, id="0")
    read: Any = await redis.xreadgroup(HINT_GROUP, "dead", {FREE: ">"}, count=100)
    await redis.xdel(FREE, read[0][1][0][0])
    async with listening(settings) as worker:
        await worker.has_read(refs[1:])
        await nothing_waits(redis)
        assert await unacknowledged(redis, FREE) == 0


async def test_a_worker_that_stops_leaves_what_it_has_not_taken_up_to_others_at_once(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    blocked = asyncio.Event()
    refs = new_refs(HINT_SIZE)
    async with listening(settings, slots=1, policy=NEVER, work=blocked.wait) as stopping:
        await hints.send_backlog([refs])
        await stopping.runs(1)
        assert await unacknowledged(redis, BACKLOG_STREAM) == 1
        stopping.stop.set()
        blocked.set()
    async with listening(settings, policy=NEVER) as other:
        await other.has_read([ref for ref in refs if ref not in stopping.runner.refs])
        await nothing_waits(redis)


async def test_a_slow_worker_holds_no_more_than_it_can_run_and_others_get_the_rest(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    blocked = asyncio.Event()
    fresh, backlog = new_refs(30), new_refs(20)
    async with listening(settings, slots=4, policy=NEVER, work=blocked.wait) as slow:
        await hints.send_fresh(singly(fresh), FREE_TIER)
        await slow.runs(4)
        await hints.send_backlog(singly(backlog))
        await asyncio.sleep(0.2)
        # The four are acknowledged; nothing else has left the streams for this worker.
        assert await unacknowledged(redis, FREE) == await unacknowledged(redis, BACKLOG_STREAM) == 0
        async with listening(settings, policy=NEVER) as quick:
            await quick.has_read([ref for ref in fresh + backlog if ref not in slow.runner.refs])
        assert len(slow.runner.refs) == slow.runner.most_at_once == 4
        blocked.set()


async def test_a_worker_without_room_hands_back_what_it_was_waiting_for(
    settings: Settings, hints: RedisHintQueue
) -> None:
    blocked = asyncio.Event()
    async with listening(settings, slots=4, policy=NEVER, work=blocked.wait) as slow:
        # Its reader of the backlog waits inside Redis by now, and will for a second, while fresh jobs fill the slots.
        await asyncio.sleep(0.2)
        await hints.send_fresh(singly(new_refs(4)), FREE_TIER)
        await slow.runs(4)
        refs = new_refs(2)
        await hints.send_backlog([refs])
        async with listening(settings, policy=NEVER) as quick:
            await quick.has_read(refs)
        assert slow.slots.room(HintClass.FRESH) == 0
        blocked.set()


async def test_a_message_larger_than_the_free_slots_starts_what_fits_and_then_the_rest(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    turns = asyncio.Semaphore(0)
    refs = new_refs(HINT_SIZE)
    async with listening(settings, slots=4, policy=NEVER, work=turns.acquire) as worker:
        await hints.send_backlog([refs])
        # One slot stays free of the backlog, and the message is not acknowledged before its last job is claimed.
        await worker.runs(3)
        await asyncio.sleep(0.1)
        assert (worker.runner.at_once, worker.slots.free) == (3, 1)
        assert await unacknowledged(redis, BACKLOG_STREAM) == 1
        for _ in refs:
            turns.release()
        await worker.has_read(refs)
        await nothing_waits(redis)
        assert worker.runner.most_at_once == 3


async def test_the_backlog_leaves_slots_for_fresh_hints(settings: Settings, hints: RedisHintQueue) -> None:
    blocked = asyncio.Event()
    async with listening(settings, slots=16, work=blocked.wait) as worker:
        await hints.send_backlog(singly(new_refs(50)))
        await worker.runs(14)
        fresh = new_refs(2)
        await hints.send_fresh(singly(fresh), FREE_TIER)
        await worker.has_read(fresh)
        assert worker.runner.at_once == 16
        blocked.set()


async def test_fresh_hints_go_before_the_backlog(settings: Settings, hints: RedisHintQueue) -> None:
    turns = asyncio.Semaphore(0)
    async with listening(settings, slots=2, work=turns.acquire) as worker:
        await hints.send_backlog([new_refs(HINT_SIZE)])
        await worker.runs(1)
        fresh = new_refs(5)
        await hints.send_fresh(singly(fresh), FREE_TIER)
        for started in range(2, 7):

            async def has_started(count: int = started) -> bool:
                return len(worker.runner.refs) == count

            await until(has_started)
            turns.release()
        assert set(worker.runner.refs[1:6]) == set(fresh)
        for _ in range(20):
            turns.release()


async def test_prefetch_reads_ahead_of_free_slots(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    blocked = asyncio.Event()
    refs = new_refs(20)
    await hints.send_fresh(singly(refs), FREE_TIER)
    async with listening(settings, slots=2, prefetch=3, policy=NEVER, work=blocked.wait) as worker:
        await worker.runs(2)

        async def ahead() -> bool:
            return await unacknowledged(redis, FREE) == 3

        await until(ahead)
        await asyncio.sleep(0.1)
        assert await ahead()
        blocked.set()
        await worker.has_read(refs)


async def test_what_no_worker_understands_is_dropped_and_stops_nobody(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    refs = new_refs(2)
    whole = json.loads(encode(refs[:1]))
    pair = whole["args"][0][0]
    strange: list[bytes] = [b"\xff not json", b"", b"{}", b"[]"]
    strange.append(json.dumps(whole | {"task_name": "memoro.of_tomorrow"}).encode())
    arguments: list[list[object]] = [
        [],
        ["x"],
        [[]],
        [[], "more"],
        [[pair] * (HINT_SIZE + 1)],
        [[["x", pair[1]], [1, 2], pair[:1], pair]],
    ]
    strange += [json.dumps(whole | {"args": these}).encode() for these in arguments]
    for message in strange:
        for stream in (FREE, BACKLOG_STREAM):
            await redis.xadd(stream, {DATA: message})
    await redis.xadd(FREE, {"other": "field"})
    await redis.xadd(FREE, {DATA: encode(refs[1:]), "jobs": "-7"})
    async with listening(settings) as worker:
        await worker.has_read(refs)
        await nothing_waits(redis)
        assert set(worker.runner.refs) == set(refs)
        await worker.is_idle()


async def test_a_hint_whose_claims_can_t_be_decided_comes_back(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    refs = new_refs(3)
    async with listening(settings, undecidable=2) as worker:
        await hints.send_fresh([refs], FREE_TIER)
        await worker.has_read(refs)
        await nothing_waits(redis)


async def test_a_hint_that_fails_every_time_is_dropped_in_the_end(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    soon = ReclaimPolicy(every=0.05, idle=0.05, deliveries=3)
    async with listening(settings, policy=soon, broken=True) as worker:
        await hints.send_fresh([new_refs(3)], FREE_TIER)
        await hints.send_backlog([new_refs(3)])
        await nothing_waits(redis)
        await worker.is_idle()


async def test_a_hint_that_is_worked_on_is_not_read_again_here(
    settings: Settings, hints: RedisHintQueue, redis: RedisClient
) -> None:
    turns = asyncio.Semaphore(0)
    refs = new_refs(8)
    async with listening(settings, slots=2, work=turns.acquire) as worker:
        await hints.send_fresh([refs], FREE_TIER)
        await worker.runs(2)
        turns.release()
        await asyncio.sleep(0.9)
        assert await unacknowledged(redis, FREE) == 1
        for _ in refs:
            turns.release()
        await worker.has_read(refs)
        await nothing_waits(redis)
        assert len(worker.runner.refs) == 8


def test_a_message_holds_the_jobs_and_nothing_else() -> None:
    refs = new_refs(2)
    message = json.loads(encode(refs))
    assert message["task_name"] == RUN_JOBS
    assert message["args"] == [[[str(ref.tenant_id), str(ref.job_id)] for ref in refs]]


@pytest.mark.parametrize("slots", [1, 2])
async def test_few_slots_are_enough(settings: Settings, hints: RedisHintQueue, slots: int) -> None:
    refs = new_refs(20)
    async with listening(settings, slots=slots) as worker:
        await hints.send_fresh([refs[:10]], FREE_TIER)
        await hints.send_backlog([refs[10:]])
        await worker.has_read(refs)
