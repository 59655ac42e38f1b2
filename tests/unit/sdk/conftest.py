"""A server that follows a script."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from memoro import AsyncClient, Client
from tests.support.scripted_server import ScriptedServer, scripted_server

KEY = "mk_test_1f0e"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


@pytest_asyncio.fixture
async def client(server: ScriptedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.endpoint, api_key=KEY) as connected:
        yield connected


@pytest.fixture
def blocking_client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.endpoint, api_key=KEY) as connected:
        yield connected
