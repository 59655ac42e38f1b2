"""What questions cost: tenants nothing, and the house what its provider charges, written behind the callers' backs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC

import pytest
import pytest_asyncio

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.questions import CostMeter, QuestionCost, QuestionPlace
from memoro_core.billing.usage import UsageService
from memoro_core.billing.usage_model import OperationCost
from memoro_core.clock import SystemClock
from memoro_core.errors import MemoroError, ProviderError, Reason, unavailable
from memoro_core.ids import UserId
from memoro_core.llm.model import Operation
from memoro_core.memory.model import SearchQuery
from memoro_core.memory.search import SearchService
from memoro_core.postgres.search_store import PostgresSearchStore
from memoro_core.postgres.usage_store import PostgresUsageStore
from memoro_core.settings import Settings
from tests.fakes.openai_server import Fault
from tests.support.deferrals import breakers_of
from tests.support.domain import Domain
from tests.support.job_world import SetClock
from tests.support.jobs import now
from tests.support.spending import EMBEDDER, PRICES, Spender, open_spender

QUESTION = "Where does Ann live now?"


@dataclass
class Store:
    """The real store, which is away for the first `away` times."""

    inner: PostgresUsageStore
    away: int = 0
    written: list[Mapping[QuestionPlace, QuestionCost]] = field(default_factory=list)

    async def add(self, costs: Mapping[QuestionPlace, QuestionCost]) -> None:
        self.away -= 1
        if self.away >= 0:
            raise unavailable("database")
        self.written.append(costs)
        await self.inner.add(costs)


@dataclass
class Asker:
    """A tenant that asks, and operators who look at what it costs."""

    spender: Spender
    store: Store
    meter: CostMeter
    search: SearchService
    usage: UsageService

    async def ask(self, text: str = QUESTION) -> None:
        await self.search.search(self.spender.domain.tenant, SearchQuery(UserId("alice"), text))

    async def costs(self) -> list[OperationCost]:
        """What the tenant's questions have cost, once all is written."""
        await self.meter.close()
        told = await self.usage.costs(tenant_id=self.spender.domain.tenant, recent=1)
        assert told.cost_pico_dollars == sum(one.cost_pico_dollars for one in told.operations)
        assert all(one.for_questions for one in told.operations)
        return list(told.operations)


@pytest_asyncio.fixture
async def asker(domain: Domain, settings: Settings) -> AsyncIterator[Asker]:
    async with open_spender(domain, settings) as spender:
        costs = PostgresUsageStore(domain.database)
        store = Store(costs)
        calendar = Calendar(UTC)
        meter = CostMeter(store, domain.money.prices, calendar, SystemClock(), interval=0.05)
        found = PostgresSearchStore(domain.database, exact_limit=10_000)
        search = SearchService(found, spender.embedder, None, meter=meter)
        usage = UsageService(costs, breakers_of(domain.database, SetClock(now())), calendar, SystemClock())
        yield Asker(spender, store, meter, search, usage)
        await meter.close()


async def test_the_house_pays_for_questions_and_no_tenant_does(asker: Asker) -> None:
    questions = [f"{QUESTION} {number}" for number in range(20)]
    await asyncio.gather(*map(asker.ask, questions))
    tokens = sum(map(asker.spender.provider.tokens_of, questions))
    [cost] = await asker.costs()
    # Not even a tenant without credits is refused.
    assert cost == OperationCost(
        Operation.EMBED, "openai", EMBEDDER, 20, tokens, 0, tokens * PRICES[EMBEDDER][0], for_questions=True
    )
    assert cost.cost_pico_dollars == asker.spender.bill()
    assert await asker.spender.rows("SELECT * FROM ledger_entries") == []
    assert await asker.spender.rows("SELECT * FROM ai_calls") == []
    # Together, not one by one (on a busy machine some come later); and a second process's questions are added.
    assert 1 <= len(asker.store.written) <= 4
    await asker.ask()
    assert [one.calls for one in await asker.costs()] == [21]


async def test_without_a_price_nothing_is_asked(asker: Asker) -> None:
    del asker.spender.domain.money.prices.prices[Operation.EMBED]
    with pytest.raises(MemoroError) as refused:
        await asker.ask()
    assert refused.value.reason is Reason.PRICE_UNKNOWN
    assert asker.spender.provider.requests == []


@pytest.mark.parametrize("fee", [0, 5])
async def test_of_what_costs_the_house_nothing_nothing_is_written(asker: Asker, fee: int) -> None:
    asker.spender.domain.money.prices.set(Operation.EMBED, fee=fee)
    await asker.ask()
    assert await asker.costs() == []
    assert asker.store.written == []


async def test_what_could_not_be_written_is_written_later(asker: Asker) -> None:
    asker.store.away = 2
    await asker.ask()
    async with asyncio.timeout(10):
        while not asker.store.written:
            await asyncio.sleep(0.02)
    await asker.ask()
    assert [one.calls for one in await asker.costs()] == [2]


@pytest.mark.parametrize(
    ("fault", "counted"),
    [(Fault(status=500), False), (Fault(drop=True), True), (Fault(body='{"data": []}'), True)],
    ids=str,
)
async def test_an_answer_that_is_lost_or_tells_nothing_counts_at_its_most(
    asker: Asker, fault: Fault, counted: bool
) -> None:
    asker.spender.provider.script("embeddings", fault)
    with pytest.raises(ProviderError):
        await asker.ask()
    most = asker.spender.embedder.bound([QUESTION]).input_tokens
    assert [one.input_tokens for one in await asker.costs()] == ([most] if counted else [])
