"""Hints over a Redis that is the test's own to break."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from redis.asyncio import Redis

from memoro_core.queue.hints import RedisHintQueue
from memoro_core.redis.client import RedisClient, open_redis
from memoro_core.settings import Settings


@pytest_asyncio.fixture
async def redis(settings: Settings) -> AsyncIterator[RedisClient]:
    """A client of the Redis that the settings name, which is empty."""
    async with open_redis(settings) as client:
        yield client


@pytest_asyncio.fixture
async def hints(redis: Redis) -> RedisHintQueue:
    """What servers and the scheduler send hints with."""
    return RedisHintQueue(redis)
