"""Prices in the database: set once, listed, in force everywhere soon, and what requests are estimated by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from memoro_core.billing.bounds import CostBounds
from memoro_core.billing.model import Price
from memoro_core.billing.price_ports import PriceFilter
from memoro_core.billing.prices import PriceBook
from memoro_core.billing.pricing import NewPrice, PricingService
from memoro_core.clock import SystemClock
from memoro_core.container import open_container
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, ConversationId, UserId, new_id
from memoro_core.limits.model import NO_LIMITS
from memoro_core.llm.model import Operation
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from memoro_core.memory.model import NewConversation, NewMemory, NewMessage
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.price_store import PostgresPriceStore
from memoro_core.settings import Settings
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from tests.support.domain import Domain, fresh_name

HOUR = timedelta(hours=1)
ALICE = UserId("alice")


class World:
    """The service over the test's database, and a model whose prices are nobody else's."""

    def __init__(self, domain: Domain, book: PriceBook) -> None:
        self.domain = domain
        self.book = book
        self.model = fresh_name()
        endpoint = OpenAIEndpoint(api_key="no call is made")
        self.bounds = CostBounds(
            book,
            OpenAIEmbeddingProvider(endpoint, model=self.model, dimensions=8),
            OpenAIExtractionProvider(endpoint, model=self.model),
            margin_basis_points=5_000,
        )
        self.service = PricingService(
            PostgresPriceStore(domain.database), book, self.bounds, PostgresCreditStore(domain.database), SystemClock()
        )
        self.principal = Principal(domain.tenant, ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER, NO_LIMITS)

    def new(
        self, operation: Operation = Operation.EMBED, *, cost: int = 0, fee: int = 0, at: datetime | None = None
    ) -> NewPrice:
        return NewPrice("openai", self.model, operation, cost, 2 * cost, fee, at)

    async def set(self, new: NewPrice, *, request: Idempotency | None = None) -> Price:
        return await self.service.set_price(self.principal, new, idempotency=request)

    async def listed(self, *, all_times: bool = False, size: int = 100) -> list[Price]:
        found: list[Price] = []
        position: tuple[str, ...] | None = None
        while True:
            page = await self.service.list_prices(
                PriceFilter(model=self.model, all_times=all_times), size=size, position=position
            )
            assert len(page.items) <= size
            found += page.items
            position = page.next_position
            if position is None:
                return found


@pytest_asyncio.fixture
async def world(domain: Domain) -> AsyncIterator[World]:
    async with PriceBook(PostgresPriceStore(domain.database), SystemClock(), refresh=0.05) as book:
        yield World(domain, book)


async def test_a_price_holds_from_the_call_that_sets_it_until_the_next(world: World) -> None:
    first = await world.set(world.new(cost=5))
    assert world.book.price("openai", world.model, Operation.EMBED, datetime.now(UTC)) == first
    second = await world.set(world.new(cost=6))
    later = await world.set(world.new(cost=7, at=datetime.now(UTC) + HOUR))
    assert await world.listed() == [second]
    for size in (1, 2, 100):
        assert await world.listed(all_times=True, size=size) == [later, second, first]
    assert world.book.price("openai", world.model, Operation.EMBED, later.valid_from - HOUR / 2) == second
    assert world.book.price("openai", world.model, Operation.EMBED, later.valid_from) == later


async def test_lists_go_by_provider_model_operation_and_time(world: World) -> None:
    other = await world.set(NewPrice("local", world.model, Operation.EXTRACT, 1, 1, 1))
    extract = await world.set(world.new(Operation.EXTRACT, cost=1))
    embed = await world.set(world.new(cost=1))
    for size in (1, 2, 3):
        assert await world.listed(size=size) == [other, embed, extract]
    page = await world.service.list_prices(PriceFilter(provider="local"), size=500, position=None)
    assert {price.provider for price in page.items} == {"local"}
    assert other in page.items


@pytest.mark.parametrize("position", [("x",), ("p", "m", "embed", "yesterday"), ("p", "m", "embed", "2026-01-01"), ()])
async def test_a_made_up_position_is_refused(world: World, position: tuple[str, ...]) -> None:
    with pytest.raises(MemoroError) as caught:
        await world.service.list_prices(PriceFilter(), size=1, position=position)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_the_past_is_not_changed(world: World) -> None:
    later = datetime.now(UTC) + HOUR
    await world.set(world.new(cost=5, at=later))
    for at in (datetime.now(UTC) - HOUR, later):
        with pytest.raises(MemoroError) as caught:
            await world.set(world.new(cost=6, at=at), request=Idempotency(fresh_name(), b"\x01" * 32))
        assert caught.value.reason is Reason.INVALID_FIELD
        assert [violation.field for violation in caught.value.violations] == ["valid_from"]
    assert [price.input_price for price in await world.listed(all_times=True)] == [5]
    assert await world.domain.count("idempotency_records") == 0


async def test_a_repeated_request_sets_one_price_and_tells_of_it(world: World) -> None:
    request = Idempotency(fresh_name(), b"\x01" * 32)
    answers = await asyncio.gather(*(world.set(world.new(cost=5), request=request) for _ in range(5)))
    assert len({answer.valid_from for answer in answers}) == 1
    assert await world.listed(all_times=True) == [answers[0]]
    with pytest.raises(MemoroError) as caught:
        await world.set(world.new(cost=6), request=Idempotency(request.request_id, b"\x02" * 32))
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_another_process_knows_a_price_soon(world: World) -> None:
    async with PriceBook(PostgresPriceStore(world.domain.database), SystemClock(), refresh=0.05) as other:
        price = await world.set(world.new(cost=5))
        async with asyncio.timeout(5):
            while True:
                try:
                    assert other.price("openai", world.model, Operation.EMBED, datetime.now(UTC)) == price
                except MemoroError:
                    await asyncio.sleep(0.01)
                else:
                    break


async def test_an_estimate_is_what_would_be_held(world: World) -> None:
    await world.set(world.new(cost=20, fee=3))
    await world.set(world.new(Operation.EXTRACT, cost=150, fee=5))
    await world.domain.money.give(world.domain.tenant, 12_345)
    talk = NewConversation(ALICE, ConversationId("c"), [NewMessage("Hello Ann."), NewMessage("Hi.", speaker="Ann")])
    parts = [await world.service.estimate(world.domain.tenant, [new]) for new in (NewMemory(ALICE, "I met Ann."), talk)]
    both = await world.service.estimate(world.domain.tenant, [NewMemory(ALICE, "I met Ann."), talk])
    assert both.amount == sum(part.amount for part in parts) > 3 * (3 + 5)
    assert (both.available, both.margin_basis_points) == (12_345, 5_000)
    embed, extract = both.lines
    assert (embed.usage.operation, embed.usage.items) == (Operation.EMBED, 3)
    assert (extract.usage.operation, extract.usage.items) == (Operation.EXTRACT, 3)
    assert embed.pico_dollars == 20 * embed.usage.input_tokens
    assert extract.pico_dollars == 150 * extract.usage.input_tokens + 300 * extract.usage.output_tokens
    assert await world.domain.count("jobs") == await world.domain.count("credit_holds") == 0


async def test_a_process_whose_model_has_no_price_starts_and_accepts_nothing(
    settings: Settings, domain: Domain
) -> None:
    unknown = settings.model_copy(update={"extraction_provider": "openai", "openai_extraction_model": fresh_name()})
    keyed = Settings.model_validate({**unknown.model_dump(), "openai_api_key": "sk-none"})
    async with open_container(keyed) as container:
        with pytest.raises(MemoroError) as caught:
            await container.memories.create(domain.tenant, NewMemory(ALICE, "I met Ann."))
        assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, Reason.PRICE_UNKNOWN)
        with pytest.raises(MemoroError) as caught:
            await container.pricing.estimate(domain.tenant, [NewMemory(ALICE, "I met Ann.")])
        assert caught.value.reason is Reason.PRICE_UNKNOWN
    assert await domain.count("memories") == await domain.count("jobs") == 0
