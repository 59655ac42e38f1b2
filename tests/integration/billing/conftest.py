"""A tenant's money for the tests of a module."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio

from tests.support.billing import NOW
from tests.support.credit_world import CreditWorld, open_credit_world
from tests.support.domain import Domain

_WORLDS = itertools.count()


@pytest_asyncio.fixture
async def world(domain: Domain, owner_database_url: str) -> AsyncIterator[CreditWorld]:
    """A tenant without credits, on days of its own."""
    start = NOW + timedelta(days=10 * next(_WORLDS))
    async with open_credit_world(domain.database, owner_database_url, start) as opened:
        yield opened
