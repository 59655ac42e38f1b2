"""Following all jobs of a tenant while Redis or PostgreSQL is killed under it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import asyncpg

from memoro_core.embedded.stack import Stack
from memoro_core.errors import MemoroError
from memoro_core.jobs.feed_ports import FeedFilter
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.tenant_watch import TenantWatcher
from memoro_core.postgres.feed_store import PostgresFeedStore
from memoro_core.redis.client import open_redis
from memoro_core.redis.events import RedisEventTail
from memoro_core.settings import Settings
from tests.integration.jobs.test_feed import begun, numbers_of, run_through, taken, until_ended
from tests.support.domain import Domain, open_domain
from tests.support.jobs import new_job, until
from tests.support.stacks import StackFactory

NEVER = 3600.0
WHOLE = [1, 2, 3, 4, 5]


@asynccontextmanager
async def watched(stack: Stack, *, poll: float) -> AsyncIterator[tuple[Domain, RedisEventTail, TenantWatcher]]:
    """A tenant on servers of the test's own, and a watcher of it."""
    settings = Settings.model_validate({"database_url": stack.database_url, "redis_url": stack.redis_url})
    async with (
        open_domain(settings) as domain,
        open_redis(settings) as redis,
        RedisEventTail(redis) as tail,
        TenantWatcher(PostgresFeedStore(domain.database), tail, heartbeat=NEVER, poll=poll) as watcher,
    ):
        yield domain, tail, watcher


async def test_a_watch_goes_on_when_redis_is_killed_and_comes_back(stack_factory: StackFactory) -> None:
    stack = await stack_factory()
    async with (
        watched(stack, poll=0.2) as (domain, tail, watcher),
        begun(watcher, domain.tenant) as (messages, _),
    ):
        refs = [await new_job(domain) for _ in range(3)]
        await run_through(domain, refs[0], tail)
        await taken(messages, until_ended(refs[0]))
        assert stack.redis.pid is not None
        os.kill(stack.redis.pid, signal.SIGKILL)
        await stack.redis.wait()
        await run_through(domain, refs[1], tail)
        assert numbers_of(await taken(messages, until_ended(refs[1])), refs[1])[-1] == 5
        await stack.redis.start()
        await run_through(domain, refs[2], tail)
        assert numbers_of(await taken(messages, until_ended(refs[2])), refs[2])[-1] == 5


async def test_a_crash_of_the_database_leaves_nothing_out(stack_factory: StackFactory) -> None:
    stack = await stack_factory()
    async with (
        watched(stack, poll=0.2) as (domain, tail, watcher),
        begun(watcher, domain.tenant) as (messages, _),
    ):
        before = await new_job(domain)
        await run_through(domain, before, tail)
        token = (await taken(messages, until_ended(before)))[-1].token
        await _crash(stack)
        after: list[JobRef] = []

        async def recovered() -> bool:
            try:
                after.append(await new_job(domain))
            except MemoroError:
                return False
            return True

        await until(recovered)
        await run_through(domain, after[-1], tail)
        # Transaction ids that the crash took back are given out anew, so that the last moments are told again.
        async with aclosing(watcher.watch(domain.tenant, FeedFilter(), token)) as resumed:
            for one in (messages, resumed):
                told = await taken(one, until_ended(after[-1]))
                assert numbers_of(told, after[-1]) == WHOLE
                assert numbers_of(told, before) == WHOLE


async def _crash(stack: Stack) -> None:
    """A process of the server is killed, upon which all end and the server recovers from its log."""
    victim = await asyncpg.connect(stack.owner_url)
    os.kill(await victim.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    async with asyncio.timeout(10):
        while not victim.is_closed():
            await asyncio.sleep(0.02)
