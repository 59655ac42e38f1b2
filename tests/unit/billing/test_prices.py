"""The prices that a process knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from memoro_core.billing.model import Price
from memoro_core.billing.prices import PriceBook
from memoro_core.errors import MemoroError, Reason, unavailable
from memoro_core.llm.model import Operation

NOW = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def price(cost: int, valid_from: datetime) -> Price:
    return Price("p", "m", Operation.EMBED, cost, 0, 0, valid_from)


class SetClock:
    def now(self) -> datetime:
        return NOW


@dataclass
class ListedPrices:
    """The part of a `PriceStore` that a book reads, of a test's own."""

    prices: list[Price] = field(default_factory=list)
    away: bool = False
    loads: int = 0

    async def load(self, *, since: datetime) -> Sequence[Price]:
        self.loads += 1
        if self.away:
            raise unavailable("database")
        return self.prices

    async def list_prices(self, *_: object, **__: object) -> Sequence[Price]:
        raise NotImplementedError

    async def set_price(self, *_: object, **__: object) -> Price:
        raise NotImplementedError


async def test_each_price_holds_until_the_next_does() -> None:
    store = ListedPrices([price(2, NOW), price(3, NOW + DAY), price(1, NOW - DAY)])
    async with PriceBook(store, SetClock(), refresh=60) as book:
        for cost, at in ((1, NOW - DAY), (1, NOW - DAY / 2), (2, NOW), (2, NOW + DAY / 2), (3, NOW + 9 * DAY)):
            assert book.price("p", "m", Operation.EMBED, at).input_price == cost
        for unknown in (
            ("p", "m", Operation.EMBED, NOW - 2 * DAY),
            ("p", "m", Operation.EXTRACT, NOW),
            ("p", "other", Operation.EMBED, NOW),
            ("other", "m", Operation.EMBED, NOW),
        ):
            with pytest.raises(MemoroError) as caught:
                book.price(*unknown)
            assert caught.value.reason is Reason.PRICE_UNKNOWN


async def test_a_new_price_is_seen_and_an_old_one_is_kept_while_the_database_is_away() -> None:
    store = ListedPrices([price(1, NOW)])
    async with PriceBook(store, SetClock(), refresh=0.01) as book:
        store.prices = [price(2, NOW)]
        async with asyncio.timeout(5):
            while book.price("p", "m", Operation.EMBED, NOW).input_price != 2:
                await asyncio.sleep(0.01)
        store.away, seen = True, store.loads
        async with asyncio.timeout(5):
            while store.loads < seen + 3:
                await asyncio.sleep(0.01)
        assert book.price("p", "m", Operation.EMBED, NOW).input_price == 2
        store.away, store.prices = False, [price(3, NOW)]
        async with asyncio.timeout(5):
            while book.price("p", "m", Operation.EMBED, NOW).input_price != 3:
                await asyncio.sleep(0.01)


async def test_a_book_does_not_open_while_the_database_is_away() -> None:
    with pytest.raises(MemoroError) as caught:
        async with PriceBook(ListedPrices(away=True), SetClock(), refresh=60):
            pass
    assert caught.value.reason is Reason.DEPENDENCY_UNAVAILABLE
