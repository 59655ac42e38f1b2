"""Hints over Redis in each of its topologies."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from memoro_core.queue.hints import RedisHintQueue
from memoro_core.redis.client import RedisClient, open_redis
from memoro_core.redis_address import Topology
from memoro_core.settings import Settings
from tests.support.topologies import OPEN, Deployment


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=list(Topology))
async def shared_deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    """A server, a cluster, a master with Sentinels: each in turn, and not for killing."""
    async with OPEN[request.param]() as opened:
        yield opened


@pytest_asyncio.fixture
async def deployment(shared_deployment: Deployment) -> Deployment:
    """The same, empty."""
    await shared_deployment.empty()
    return shared_deployment


@pytest_asyncio.fixture
async def redis(settings: Settings) -> AsyncIterator[RedisClient]:
    """A client of the Redis that the settings name."""
    async with open_redis(settings) as client:
        yield client


@pytest_asyncio.fixture
async def hints(redis: RedisClient) -> RedisHintQueue:
    """What servers and the scheduler send hints with."""
    return RedisHintQueue(redis)
