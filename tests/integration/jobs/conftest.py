"""The live tail over real Redis, and runners over the test's own domain."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import pytest_asyncio

from memoro_core.jobs.runner import JobRunner
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.operations import Operations, operations_of
from tests.support.runners import open_runner

MakeRunner = Callable[..., AbstractAsyncContextManager[JobRunner]]


@pytest_asyncio.fixture
async def tail(settings: Settings) -> AsyncIterator[RedisEventTail]:
    """A live tail with a connection of its own."""
    async with open_redis(settings) as redis, RedisEventTail(redis) as opened:
        yield opened


@pytest.fixture
def operations(domain: Domain, tail: RedisEventTail) -> Operations:
    """What operators do."""
    return operations_of(domain, tail)


@pytest.fixture
def make_runner(domain: Domain, tail: RedisEventTail, settings: Settings) -> MakeRunner:
    """Opens runners: `open_runner` without what every test has."""
    return functools.partial(open_runner, domain, settings, tail)
