"""Deployments for killing, and the lots that are drawn in doing so."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.chaos import Deployment, open_deployment
from tests.support.chaos_load import Load
from tests.support.stacks import temporary_data_dir, temporary_stack

SEED = int(os.environ.get("MEMORO_CHAOS_SEED") or random.randrange(2**32))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mistreated() -> AsyncIterator[Deployment]:
    """A durable deployment for the tests of a module: each finds it as the one before left it, and whole again."""
    async with temporary_stack(durable=True) as stack:
        with temporary_data_dir() as folder:
            async with open_deployment(stack, folder) as deployment:
                yield deployment


@pytest_asyncio.fixture(loop_scope="module")
async def deployment(mistreated: Deployment, request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    """PostgreSQL, Redis, a server and two workers, running. What a test draws by lot follows from the seed."""
    print(f"MEMORO_CHAOS_SEED={SEED}")  # shown with what fails
    mistreated.random.seed(f"{SEED} {request.node.name}")
    await mistreated.restore()
    yield mistreated


@pytest_asyncio.fixture(loop_scope="module")
async def load(deployment: Deployment) -> AsyncIterator[Load]:
    """Callers of a tenant of the test's own."""
    async with deployment.load() as opened:
        yield opened
