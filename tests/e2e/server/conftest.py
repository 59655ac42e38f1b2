"""What the tests of the server share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from memoro_core.settings import Settings
from tests.support.deployment import Deployment, deployed


@pytest_asyncio.fixture
async def deployment(settings: Settings) -> AsyncIterator[Deployment]:
    """A server in this process on a free port."""
    async with deployed(settings) as running:
        yield running
