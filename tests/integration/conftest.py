"""What the integration tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from memoro_core.settings import Settings
from tests.support.domain import Domain, open_domain


@pytest_asyncio.fixture
async def domain(settings: Settings) -> AsyncIterator[Domain]:
    """A fresh tenant, and the services over its data."""
    async with open_domain(settings) as opened:
        yield opened
