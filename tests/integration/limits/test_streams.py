"""Open streams over several servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import TenantId
from memoro_core.limits.streams import SharedOpenStreams
from memoro_core.redis.client import open_redis
from memoro_core.redis.keys import open_streams
from memoro_core.redis.open_streams import RedisStreamCounts
from memoro_core.settings import Settings
from tests.support.jobs import until


@asynccontextmanager
async def server(settings: Settings) -> AsyncIterator[SharedOpenStreams]:
    async with (
        open_redis(settings) as redis,
        SharedOpenStreams(RedisStreamCounts(redis), lambda: 2, timeout=1.0) as streams,
    ):
        yield streams


async def test_the_maximum_is_that_of_all_servers(settings: Settings) -> None:
    tenant, other = TenantId(uuid4()), TenantId(uuid4())
    async with server(settings) as one, server(settings) as two, AsyncExitStack() as held:
        for number in range(5):
            await held.enter_async_context((one, two)[number % 2].one_more(tenant, maximum=5))
        for streams in (one, two):
            with pytest.raises(MemoroError) as refused:
                await held.enter_async_context(streams.one_more(tenant, maximum=5))
            assert refused.value.reason is Reason.RATE_LIMITED
            assert refused.value.metadata == {"limit": "open_streams", "maximum": "5"}
        async with two.one_more(other, maximum=1), two.one_more(tenant, maximum=None):
            pass
        await held.aclose()

        async def all_free() -> bool:
            async with AsyncExitStack() as again:
                try:
                    for _ in range(5):
                        await again.enter_async_context(two.one_more(tenant, maximum=5))
                except MemoroError:
                    return False
            return True

        await until(all_free, seconds=3)


async def test_of_many_that_open_at_once_none_is_one_too_many(settings: Settings) -> None:
    tenant, most, now = TenantId(uuid4()), 0, 0

    async def open_one(streams: SharedOpenStreams) -> bool:
        nonlocal most, now
        try:
            async with streams.one_more(tenant, maximum=10):
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.05)
                now -= 1
        except MemoroError:
            return False
        return True

    async with server(settings) as one, server(settings) as two:
        opened = await asyncio.gather(*(open_one(streams) for _ in range(20) for streams in (one, two)))
    assert 1 <= most <= 10
    assert sum(opened) <= 10


async def test_what_a_dead_server_had_open_counts_until_it_ends(settings: Settings, redis: Redis) -> None:
    tenant = TenantId(uuid4())
    await redis.hset(open_streams(tenant), mapping={"dead": "7:1", "alive": f"3:{2**50}", "strange": "x"})
    async with server(settings) as streams, AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(streams.one_more(tenant, maximum=5))
        with pytest.raises(MemoroError):
            await held.enter_async_context(streams.one_more(tenant, maximum=5))
        assert set(await redis.hkeys(open_streams(tenant))) >= {b"alive"}
        assert b"dead" not in await redis.hkeys(open_streams(tenant))
        assert 10_000 < await redis.pttl(open_streams(tenant)) <= 15_000


async def test_without_redis_each_server_allows_its_share(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    tenant = TenantId(uuid4())
    async with server(away) as streams, AsyncExitStack() as held:
        for _ in range(5):
            await held.enter_async_context(streams.one_more(tenant, maximum=10))
        with pytest.raises(MemoroError):
            await held.enter_async_context(streams.one_more(tenant, maximum=10))
        async with streams.one_more(TenantId(uuid4()), maximum=1):
            pass
