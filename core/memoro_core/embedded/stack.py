"""PostgreSQL, migrated, and Redis, on one data directory: what `memoro dev`, the tests and the benchmarks stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from memoro_core.embedded.data_dir import held_data_dir
from memoro_core.embedded.leftovers import POSTGRES_NAMES, REDIS_NAMES, end_leftovers, servers_in, services_of
from memoro_core.embedded.postgres import EmbeddedPostgres
from memoro_core.embedded.redis import EmbeddedRedis
from memoro_core.postgres.migrate import migrate


@dataclass(frozen=True, slots=True)
class Stack:
    """The two servers of a data directory, running."""

    data_dir: Path
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis

    @property
    def database_url(self) -> str:
        """Where services connect, as a role that owns nothing."""
        return self.postgres.service_url()

    @property
    def owner_url(self) -> str:
        """Where migrations connect, as the owner of the schema."""
        return self.postgres.owner_url()

    @property
    def redis_url(self) -> str:
        """Where everything that uses Redis connects."""
        return self.redis.url()


@asynccontextmanager
async def open_stack(data_dir: Path, *, durable: bool = True) -> AsyncIterator[Stack]:
    """Hold the data directory and run both servers on it, migrated, until the end of the block.

    To be used from the main thread, since the servers end with the thread that started them. `durable=False` spares the
    disk, for tests. Raises `EmbeddedError` and `MigrationError`.
    """
    with held_data_dir(data_dir) as directory:
        async with stack_in(directory, durable=durable) as stack:
            yield stack


@asynccontextmanager
async def stack_in(directory: Path, *, durable: bool = True) -> AsyncIterator[Stack]:
    """As `open_stack`, in a directory that the caller holds. What a killed run left there is ended first."""
    await asyncio.to_thread(_end_services, directory)
    stack = Stack(
        directory,
        EmbeddedPostgres(directory / "postgres", mark=directory, durable=durable),
        EmbeddedRedis(directory / "redis", mark=directory),
    )
    async with AsyncExitStack() as running:
        running.push_async_callback(stack.postgres.stop)
        running.push_async_callback(stack.redis.stop)
        await _start(stack)
        await migrate(stack.owner_url, service_url=stack.database_url)
        yield stack


def kill_all_in(directory: Path) -> None:
    """SIGKILL to everything that runs for this directory, which the caller holds; the next start recovers."""
    servers = (("postgres", POSTGRES_NAMES), ("redis", REDIS_NAMES))
    processes = [found for home, names in servers for found in servers_in(directory / home / "data", names)]
    for process in (*services_of(directory), *processes):
        with suppress(psutil.NoSuchProcess):
            process.kill()


async def _start(stack: Stack) -> None:
    """Start both at once; when one fails, the other is not left starting."""
    starts = [asyncio.create_task(stack.postgres.start()), asyncio.create_task(stack.redis.start())]
    try:
        await asyncio.gather(*starts)
    finally:
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)


def _end_services(directory: Path) -> None:
    """End the servers and workers of an earlier run at once, since they are made to be killed."""
    end_leftovers(services_of(directory), ())
