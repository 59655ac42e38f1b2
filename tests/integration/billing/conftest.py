"""A tenant's money for the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.billing import NOW
from tests.support.credit_world import CreditWorld, open_credit_world
from tests.support.domain import Domain


@pytest_asyncio.fixture
async def world(domain: Domain, owner_database_url: str) -> AsyncIterator[CreditWorld]:
    """A tenant without credits."""
    async with open_credit_world(domain.database, owner_database_url, NOW) as opened:
        yield opened
