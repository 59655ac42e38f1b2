"""The prices that a process knows: asked for each job and each call, so never read from the database then."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Self

import structlog

from memoro_core.billing.errors import price_unknown
from memoro_core.billing.model import Price
from memoro_core.billing.price_ports import PriceStore
from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.llm.model import Operation
from memoro_core.tasks import end_task

_KEPT: Final = timedelta(days=1)
"""For how long a price is known that no longer holds: work that began before it changed may ask for it."""
_log: Final = structlog.get_logger(__name__)


class PriceBook:
    """Prices in memory, as new as `refresh` seconds. Use with `async with`, which raises UNAVAILABLE.

    While the database is away, the prices that were known last hold on.
    """

    def __init__(self, store: PriceStore, clock: Clock, *, refresh: float) -> None:
        self._store = store
        self._clock = clock
        self._refresh = refresh
        self._prices: Mapping[tuple[str, str, Operation], Sequence[Price]] = MappingProxyType({})
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.load()
        self._stack.push_async_callback(end_task, asyncio.create_task(self._keep_fresh()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def price(self, provider: str, model: str, operation: Operation, at: datetime) -> Price:
        """The price in force at that time. Raises PRICE_UNKNOWN."""
        for price in self._prices.get((provider, model, operation), ()):
            if price.valid_from <= at:
                return price
        raise price_unknown(provider, model, operation, at)

    async def load(self) -> None:
        """Reads the prices anew. Raises UNAVAILABLE."""
        found: defaultdict[tuple[str, str, Operation], list[Price]] = defaultdict(list)
        for price in await self._store.load(since=self._clock.now() - _KEPT):
            found[price.provider, price.model, price.operation].append(price)
        for prices in found.values():
            prices.sort(key=lambda price: price.valid_from, reverse=True)
        self._prices = found

    async def _keep_fresh(self) -> None:
        stale = False
        while True:
            await asyncio.sleep(self._refresh)
            try:
                await self.load()
            except MemoroError as error:
                if not stale:
                    _log.warning("prices_not_read", reason=error.message)
                stale = True
            else:
                stale = False
