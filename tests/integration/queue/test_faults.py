"""Hints while Redis dies, hangs, comes back empty, or loses an answer; and hints that come a hundred times."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from memoro_core.embedded.redis import EmbeddedRedis
from memoro_core.errors import Code, MemoroError
from memoro_core.jobs.model import JobState
from memoro_core.jobs.slots import Slots
from memoro_core.queue.broker import READ_TIMEOUT
from memoro_core.queue.hints import RedisHintQueue
from memoro_core.queue.tasks import RUN_JOBS
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from memoro_core.tenancy.model import FREE_TIER, PRO_TIER
from tests.support.domain import Domain
from tests.support.hints import Worker, listening, listening_with, new_refs, singly
from tests.support.jobs import StubHandler, events_of, job_of, new_job, until
from tests.support.proxy import Proxy, proxy_to
from tests.support.runners import open_runner


@pytest.fixture
def on_mortal(settings: Settings, mortal: EmbeddedRedis) -> Settings:
    """Settings for it."""
    return settings.model_copy(update={"redis_url": mortal.url()})


async def reads(worker: Worker, hints: RedisHintQueue) -> None:
    """Sends hints of both classes until one went through, and waits until they are read."""
    refs = new_refs(4)

    async def sent() -> bool:
        try:
            await hints.send_fresh(singly(refs[:2]), FREE_TIER)
            await hints.send_backlog([refs[2:]])
        except MemoroError:
            return False
        return True

    await until(sent, seconds=10)
    await worker.has_read(refs)


async def knows_that_redis_is_away(worker: Worker) -> None:
    async def away() -> bool:
        return worker.broker.unreachable_since is not None

    await until(away, seconds=10)
    assert worker.broker.unreachable_since is not None
    assert 0 <= time.monotonic() - worker.broker.unreachable_since < 10


async def test_a_worker_starts_before_redis_and_outlives_it(mortal: EmbeddedRedis, on_mortal: Settings) -> None:
    async with open_redis(on_mortal) as client:
        hints = RedisHintQueue(client)
        await mortal.stop()
        async with listening(on_mortal) as worker:
            await knows_that_redis_is_away(worker)
            with pytest.raises(MemoroError) as away:
                await hints.send_fresh(singly(new_refs(1)), FREE_TIER)
            assert away.value.code is Code.UNAVAILABLE
            await mortal.start()
            await reads(worker, hints)
            assert worker.broker.unreachable_since is None
            assert mortal.pid is not None
            os.kill(mortal.pid, signal.SIGKILL)
            await mortal.wait()
            await knows_that_redis_is_away(worker)
            await mortal.start()
            await reads(worker, hints)
            assert worker.broker.unreachable_since is None


async def test_a_redis_that_hangs_is_given_up_and_found_again(mortal: EmbeddedRedis, on_mortal: Settings) -> None:
    async with open_redis(on_mortal) as client, listening(on_mortal) as worker:
        hints = RedisHintQueue(client)
        await reads(worker, hints)
        assert mortal.pid is not None
        os.kill(mortal.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(READ_TIMEOUT * 2 + 2):
                await knows_that_redis_is_away(worker)
        finally:
            os.kill(mortal.pid, signal.SIGCONT)
        await reads(worker, hints)


@pytest_asyncio.fixture
async def proxy(settings: Settings) -> AsyncIterator[Proxy]:
    at = urlsplit(settings.redis_url)
    assert at.hostname is not None
    async with proxy_to(at.hostname, at.port or 6379) as opened:
        yield opened


async def test_a_hint_that_was_lost_on_its_way_from_redis_is_read_in_the_end(
    settings: Settings, hints: RedisHintQueue, redis: Redis, proxy: Proxy
) -> None:
    at = urlsplit(settings.redis_url)
    through = settings.model_copy(update={"redis_url": f"redis://:{at.password}@127.0.0.1:{proxy.port}{at.path}"})
    async with listening(through) as worker:
        for _ in range(3):
            refs = new_refs(3)
            proxy.losing = RUN_JOBS.encode()
            await hints.send_fresh([refs[:1]], FREE_TIER)
            await hints.send_backlog([refs[1:]])
            await worker.has_read(refs)
            assert proxy.losing is None


async def test_a_hundred_hints_run_a_job_once(settings: Settings, domain: Domain, hints: RedisHintQueue) -> None:
    ref, handler = await new_job(domain), StubHandler(domain.run_store)
    async with open_redis(settings) as client, RedisEventTail(client) as tail:
        await hints.send_fresh([[ref]] * 50, PRO_TIER)
        await hints.send_backlog([[ref]] * 50)
        async with (
            open_runner(domain, settings, tail, handler, worker_id="one") as one,
            open_runner(domain, settings, tail, handler, worker_id="two") as two,
            listening_with(settings, one, Slots(8)),
            listening_with(settings, two, Slots(8)),
        ):

            async def all_read() -> bool:
                waiting = await hints.oldest()
                return not any(waiting.values()) and (await job_of(domain, ref)).state.terminal

            await until(all_read)
    assert handler.runs == 1
    job = await job_of(domain, ref)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
    await events_of(domain, ref)


async def test_sending_fails_soon_while_redis_hangs(settings: Settings) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{silent.getsockname()[1]}/0"})
        async with open_redis(away) as client, asyncio.timeout(3):
            with pytest.raises(MemoroError) as unavailable:
                await RedisHintQueue(client).send_fresh(singly(new_refs(1)), FREE_TIER)
        assert unavailable.value.code is Code.UNAVAILABLE
