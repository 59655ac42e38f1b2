"""One PostgreSQL and one Redis for the whole run; tests keep apart by their tenants, not by databases."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

# What they find wrong is shown as the tests' own assertions are; so before any of them is imported.
pytest.register_assert_rewrite("tests.support.job_checks", "tests.support.job_machine", "tests.support.job_world")

import pytest_asyncio
from redis import Redis

from memoro_core.embedded.redis import EmbeddedRedis
from memoro_core.embedded.stack import Stack
from memoro_core.settings import Settings
from tests.support.stacks import StackFactory, stack_maker, temporary_data_dir, temporary_stack


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """The tests' own settings only, whatever the caller's environment says."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("MEMORO_") or name == "OPENAI_API_KEY":
                patch.delenv(name)
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    """The embedded servers of this run, migrated. Not for killing: see `stack_factory`."""
    async with temporary_stack(durable=False) as running:
        yield running


@pytest.fixture(scope="session")
def database_url(stack: Stack) -> str:
    """Where services connect, as the role to which row-level security applies."""
    return stack.database_url


@pytest.fixture(scope="session")
def owner_database_url(stack: Stack) -> str:
    """Where the owner of the schema connects, who sees everything."""
    return stack.owner_url


@pytest.fixture
def redis_url(stack: Stack) -> str:
    """An empty Redis."""
    with Redis.from_url(stack.redis_url) as client:
        client.flushall()
    return stack.redis_url


@pytest_asyncio.fixture
async def mortal() -> AsyncIterator[EmbeddedRedis]:
    """A Redis of the test's own, to be killed."""
    with temporary_data_dir() as folder:
        server = EmbeddedRedis(folder)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings for a server or a worker on the embedded servers, on any free ports."""
    return _settings_on(database_url, redis_url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def quiet_stack() -> AsyncIterator[Stack]:
    """Servers of a module's own, for what depends on the statistics of the planner: no other test has been there."""
    async with temporary_stack(durable=False) as running:
        yield running


@pytest.fixture
def quiet_settings(quiet_stack: Stack) -> Settings:
    """The same settings on those servers."""
    return _settings_on(quiet_stack.database_url, quiet_stack.redis_url)


def _settings_on(database_url: str, redis_url: str) -> Settings:
    return Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": redis_url,
            "grpc_port": 0,
            "server_ops_port": 0,
            "worker_ops_port": 0,
        }
    )


@pytest_asyncio.fixture(loop_scope="function")
async def stack_factory() -> AsyncIterator[StackFactory]:
    """Makes stacks of the test's own, durable, to be killed and brought back at will."""
    async with stack_maker() as make:
        yield make
