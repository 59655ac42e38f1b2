"""Redis as the limiter sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from memoro_core.redis.client import RedisClient, open_redis
from memoro_core.settings import Settings


@pytest_asyncio.fixture
async def redis(settings: Settings) -> AsyncIterator[RedisClient]:
    """A client of the Redis that the settings name."""
    async with open_redis(settings) as client:
        yield client
