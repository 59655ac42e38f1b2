"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from memoro_core.settings import Settings
from tests.support.deployment import Deployment, deployed


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The usual ones, with the waits of a test."""
    return settings.model_copy(update={"watch_heartbeat": 1.0, "drain_notice": 0.3, "drain_grace": 5.0})


@pytest_asyncio.fixture
async def deployment(settings: Settings) -> AsyncIterator[Deployment]:
    """A server in this process on a free port."""
    async with deployed(settings) as running:
        yield running
