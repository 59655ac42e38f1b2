"""The broker against what happens to Redis: every hint is read in the end, and harmless when it is read twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from taskiq import Context, TaskiqDepends
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver

from memoro_core.embedded.stack import Stack
from memoro_core.errors import Code, MemoroError
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobRef
from memoro_core.queue.broker import HintBroker
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.queue.tasks import FIELD, RUN_JOB, decode, encode
from memoro_core.redis.client import open_redis
from memoro_core.redis.keys import HINT_GROUP, hint_stream
from memoro_core.settings import Settings
from memoro_core.tenancy.model import Tier
from tests.support.jobs import until

FREE = hint_stream(Tier.FREE)


def new_ref() -> JobRef:
    return JobRef(TenantId(uuid4()), JobId(uuid4()))


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest_asyncio.fixture
async def hints(settings: Settings) -> AsyncIterator[RedisHintQueue]:
    async with open_redis(settings) as client:
        yield RedisHintQueue(client)


class Worker:
    """A broker and its receiver, as a worker has them; notes what it reads."""

    def __init__(self, url: str, *, slots: int = 8, work: Callable[[], Awaitable[object]] | None = None) -> None:
        self._stop = asyncio.Event()
        self.broker = HintBroker(url, self._stop, reclaim_every=0.2, reclaim_idle=0.5)
        self.refs: list[JobRef] = []
        self.at_once = 0
        self.most_at_once = 0
        self._work = work

        async def run_job(tenant_id: str, job_id: str, context: Context = TaskiqDepends()) -> None:  # noqa: B008
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await context.ack()
            ref = decode(tenant_id, job_id)
            assert ref is not None
            self.refs.append(ref)
            if self._work is not None:
                await self._work()
            self.at_once -= 1

        self.broker.register_task(run_job, task_name=RUN_JOB)
        self.receiver = Receiver(
            self.broker, max_async_tasks=slots, ack_type=AcknowledgeType.MANUAL, validate_params=False
        )

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Worker]:
        receiving = asyncio.create_task(self.receiver.listen(self._stop))
        try:
            yield self
        finally:
            self._stop.set()
            async with asyncio.timeout(10):
                await receiving
            await self.broker.shutdown()

    async def has_read(self, refs: list[JobRef]) -> None:
        async def all_read() -> bool:
            return set(refs) <= set(self.refs)

        await until(all_read)


async def backlog_is(hints: RedisHintQueue, count: int) -> None:
    async def holds() -> bool:
        return await hints.backlog() == count

    await until(holds)


async def test_hints_of_all_tiers_are_read_and_leave_nothing_behind(redis_url: str, hints: RedisHintQueue) -> None:
    refs = [new_ref() for _ in range(60)]
    async with Worker(redis_url).listening() as worker:
        for number, tier in enumerate(Tier):
            await hints.send(refs[number * 20 : number * 20 + 20], tier=tier)
        await worker.has_read(refs)
        await backlog_is(hints, 0)
        assert len(worker.refs) == 60


async def test_hints_that_came_before_any_worker_are_read(redis_url: str, hints: RedisHintQueue) -> None:
    refs = [new_ref() for _ in range(5)]
    await hints.send(refs)
    assert await hints.backlog() == 5
    async with Worker(redis_url).listening() as worker:
        await worker.has_read(refs)


async def test_a_lost_group_is_made_again(redis_url: str, hints: RedisHintQueue, redis: Redis) -> None:
    async with Worker(redis_url).listening() as worker:
        first, second = [new_ref()], [new_ref()]
        await hints.send(first)
        await worker.has_read(first)
        await redis.xgroup_destroy(FREE, HINT_GROUP)
        await hints.send(second)
        await worker.has_read(second)


async def test_hints_after_a_flush_are_read(redis_url: str, hints: RedisHintQueue, redis: Redis) -> None:
    async with Worker(redis_url).listening() as worker:
        for _ in range(3):
            refs = [new_ref() for _ in range(5)]
            await hints.send(refs)
            await worker.has_read(refs)
            await redis.flushall()


async def test_a_dropped_connection_is_made_again(redis_url: str, hints: RedisHintQueue, redis: Redis) -> None:
    async with Worker(redis_url).listening() as worker:
        for _ in range(3):
            refs = [new_ref() for _ in range(5)]
            await hints.send(refs)
            await worker.has_read(refs)
            await redis.client_kill_filter(_type="normal", skipme=True)


async def test_a_worker_starts_before_redis_and_outlives_it(
    stack_factory: Callable[[], Awaitable[Stack]], settings: Settings
) -> None:
    stack = await stack_factory()
    url = stack.redis_url
    async with open_redis(settings.model_copy(update={"redis_url": url})) as client:
        hints = RedisHintQueue(client)
        await stack.redis.stop()
        async with Worker(url).listening() as worker:
            with pytest.raises(MemoroError) as away:
                await hints.send([new_ref()])
            assert away.value.code is Code.UNAVAILABLE
            await stack.redis.start()
            refs = [new_ref()]
            await hints.send(refs)
            await worker.has_read(refs)
            assert stack.redis.pid is not None
            os.kill(stack.redis.pid, signal.SIGKILL)
            await stack.redis.wait()
            await stack.redis.start()
            more = [new_ref()]
            await hints.send(more)
            await worker.has_read(more)


async def test_what_a_dead_worker_read_goes_to_another_without_new_hints(
    redis_url: str, hints: RedisHintQueue, redis: Redis
) -> None:
    refs = [new_ref() for _ in range(40)]
    await hints.send(refs)
    await redis.xgroup_create(FREE, HINT_GROUP, id="0")
    read: Any = await redis.xreadgroup(HINT_GROUP, "dead", {FREE: ">"}, count=100)
    assert len(read[0][1]) == 40
    async with Worker(redis_url).listening() as worker:
        await worker.has_read(refs)
        await backlog_is(hints, 0)


async def test_a_worker_that_stops_leaves_what_it_has_not_taken_up_to_others(
    redis_url: str, hints: RedisHintQueue
) -> None:
    blocked = asyncio.Event()
    refs = [new_ref() for _ in range(30)]
    await hints.send(refs)
    async with Worker(redis_url, slots=1, work=blocked.wait).listening() as stopping:

        async def busy() -> bool:
            return stopping.at_once == 1

        await until(busy)
        # One more is read by now, or being read, while there is no slot for it.
        await asyncio.sleep(0.1)
        blocked.set()
    async with Worker(redis_url).listening() as other:
        await other.has_read([ref for ref in refs if ref not in stopping.refs])
        await backlog_is(hints, 0)


async def test_no_more_is_read_than_there_are_slots_for(redis_url: str, hints: RedisHintQueue, redis: Redis) -> None:
    blocked = asyncio.Event()
    refs = [new_ref() for _ in range(50)]
    await hints.send(refs)
    async with Worker(redis_url, slots=4, work=blocked.wait).listening() as worker:

        async def full() -> bool:
            return worker.at_once == 4

        await until(full)
        await asyncio.sleep(0.2)
        # The four are acknowledged; nothing else has left the stream for this worker.
        summary: Any = await redis.xpending(FREE, HINT_GROUP)
        assert summary["pending"] == 0
        assert await hints.backlog() == 46
        blocked.set()
        await worker.has_read(refs)
        assert worker.most_at_once == 4


async def test_what_no_worker_understands_is_dropped_and_stops_nobody(
    redis_url: str, hints: RedisHintQueue, redis: Redis
) -> None:
    unknown = json.loads(encode(new_ref())) | {"task_name": "memoro.of_tomorrow"}
    await redis.xadd(FREE, {FIELD: b"\xff not json"})
    await redis.xadd(FREE, {FIELD: json.dumps(unknown).encode()})
    await redis.xadd(FREE, {"other": "field"})
    refs = [new_ref()]
    await hints.send(refs)
    async with Worker(redis_url).listening() as worker:
        await worker.has_read(refs)
        await backlog_is(hints, 0)
        assert worker.refs == refs


async def test_a_hint_that_is_not_acknowledged_comes_back(redis_url: str, hints: RedisHintQueue) -> None:
    refs = [new_ref()]
    await hints.send(refs)
    first = HintBroker(redis_url, asyncio.Event(), reclaim_every=0.2, reclaim_idle=0.3)
    reading = first.listen()
    message = await anext(reading)
    again = await asyncio.wait_for(anext(reading), 5)
    assert again.data == message.data == encode(refs[0])
    await again.ack()  # type: ignore[misc]
    assert await hints.backlog() == 0
    await reading.aclose()
    await first.shutdown()


async def test_sending_fails_soon_while_redis_hangs(settings: Settings) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"})
        async with open_redis(away) as client, asyncio.timeout(3):
            with pytest.raises(MemoroError) as unavailable:
                await RedisHintQueue(client).send([new_ref()])
        assert unavailable.value.code is Code.UNAVAILABLE


def test_a_message_holds_the_job_and_nothing_else() -> None:
    ref = new_ref()
    message = json.loads(encode(ref))
    assert message["args"] == [str(ref.tenant_id), str(ref.job_id)]
    assert decode(*message["args"]) == ref
    assert decode("x", str(ref.job_id)) is None
