"""Jobs that cost something: a tenant with credits, providers that send bills, and what became of the money."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from memoro_core.billing.model import EntryKind, HoldRequest, LedgerAccount
from memoro_core.billing.money import charge
from memoro_core.clock import SystemClock
from memoro_core.ids import JobId, UserId
from memoro_core.jobs.model import Job, JobRef
from memoro_core.jobs.runner import JobRunner
from memoro_core.llm.model import EmbeddingModel, Embeddings, Operation, Usage
from memoro_core.llm.openai import OpenAIEmbeddingProvider, OpenAIEndpoint, OpenAIExtractionProvider
from memoro_core.llm.ports import Admit, EmbeddingProvider, ExtractionProvider
from memoro_core.memory.enrichment import EnrichmentHandler
from memoro_core.memory.finding import GraphFinder
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from memoro_core.settings import Settings
from tests.fakes.openai_server import FakeOpenAI
from tests.support.domain import Domain
from tests.support.enrichment import LOCAL, SilentTail
from tests.support.jobs import job_of, now
from tests.support.pricing import MARGIN
from tests.support.runners import open_runner

EMBEDDER, EXTRACTOR = "embedder", "extractor"
PRICES = {EMBEDDER: (20_000, 0), EXTRACTOR: (150_000, 600_000)}
"""What the fake provider charges, in pico-dollars for a token in and one out, and what is known of it here."""
PLENTY = 10_000_000
TIMEOUT = 1.0
"""Seconds after which an answer is no longer waited for."""


@dataclass
class NamedLocal:
    """An embedding provider that goes by the local one's name: all tests share a deployment, with vectors of one model.

    `most` is what it says a call uses at most, if that is not to be the truth.
    """

    inner: OpenAIEmbeddingProvider
    model: EmbeddingModel = LOCAL
    most: int | None = None

    async def embed(self, texts: Sequence[str], *, admit: Admit | None = None) -> Embeddings:
        return await self.inner.embed(texts, admit=admit)

    def bound(self, texts: Sequence[str]) -> Usage:
        told = self.inner.bound(texts)
        tokens = told.input_tokens if self.most is None else self.most
        return Usage(told.provider, told.model, told.operation, tokens, items=told.items)


@dataclass
class Spender:
    """A tenant whose jobs are run with a provider that costs."""

    domain: Domain
    provider: FakeOpenAI
    credits: PostgresCreditStore
    embedder: NamedLocal
    extractor: ExtractionProvider
    settings: Settings

    async def grant(self, amount: int) -> None:
        """Gives the tenant credits."""
        await self.domain.money.give(self.domain.tenant, amount)

    async def job(self, *, text: str = "Ann moved to Lyon.", held: int = PLENTY) -> JobRef:
        """A job as a call leaves it, with so much set aside."""
        with self.gratis():
            accepted = await self.domain.memories.create(self.domain.tenant, NewMemory(UserId("alice"), text))
        assert accepted.job is not None
        ref = JobRef(self.domain.tenant, accepted.job.id)
        if held:
            request = HoldRequest(ref.job_id, UserId("alice"), held)
            async with self.domain.database.tenant_tx(ref.tenant_id) as connection:
                await self.domain.money.holds.hold_in(connection, ref.tenant_id, [request], now=now())
                await connection.execute("UPDATE jobs SET cost_bound = $2 WHERE job_id = $1", ref.job_id, held)
        return ref

    @contextmanager
    def gratis(self) -> Iterator[None]:
        """What is accepted within the block has nothing set aside for it."""
        prices = self.domain.money.prices
        set_before, prices.prices = prices.prices, dict.fromkeys(Operation, (0, 0, 0))
        yield
        prices.prices = set_before

    @asynccontextmanager
    async def runner(
        self, *, embedder: EmbeddingProvider | None = None, timeout: float = 30.0
    ) -> AsyncIterator[JobRunner]:
        """A runner of the tenant's jobs."""
        store = PostgresEnrichmentStore(self.domain.database, self.domain.money.holds)
        finder = GraphFinder(store, self.extractor)
        handler = EnrichmentHandler(store, embedder or self.embedder, finder, None, SystemClock())
        async with open_runner(self.domain, self.settings, SilentTail(), handler, timeout=timeout) as runner:
            yield runner

    async def execute(self, ref: JobRef) -> Job:
        """Runs a job until it has ended."""
        async with self.runner() as runner:
            return await runner.execute(ref)

    async def rows(self, query: str, *arguments: Any) -> Sequence[Mapping[str, Any]]:
        """What the tenant sees of its rows."""
        async with self.domain.database.tenant_tx(self.domain.tenant) as connection:
            return [dict(row) for row in await connection.fetch(query, *arguments)]

    async def calls(self, ref: JobRef) -> Sequence[Mapping[str, Any]]:
        """The calls that stand written for a job."""
        return await self.rows("SELECT * FROM ai_calls WHERE job_id = $1 ORDER BY attempt, call", ref.job_id)

    async def hold(self, ref: JobRef) -> Mapping[str, Any]:
        """What is or was set aside for a job."""
        (hold,) = await self.rows("SELECT * FROM credit_holds WHERE job_id = $1", ref.job_id)
        return hold

    async def entries(self, job_id: JobId) -> Sequence[tuple[EntryKind, Mapping[LedgerAccount, int]]]:
        """What the ledger says of a job, in order."""
        rows = await self.rows("SELECT * FROM ledger_entries WHERE job_id = $1 ORDER BY seq", job_id)
        return [(EntryKind(row["kind"]), {place: row[place] for place in LedgerAccount if row[place]}) for row in rows]

    async def check(self) -> None:
        """The ledger is whole, and nothing is set aside for jobs that have ended."""
        verified = await self.credits.verify(self.domain.tenant, within=10.0)
        assert verified.valid, verified
        assert not await self.rows(
            "SELECT job_id FROM credit_holds JOIN jobs USING (tenant_id, job_id)"
            " WHERE credit_holds.state = 'PENDING' AND ended_at IS NOT NULL"
        )

    def bill(self) -> int:
        """What the provider charges, in pico-dollars."""
        return self.provider.bill(PRICES)

    def charge(self) -> int:
        """What a job costs that alone made up the provider's bill."""
        return charge(self.bill(), 0, margin_basis_points=MARGIN)

    async def job_of(self, ref: JobRef) -> Job:
        """The job as it is now."""
        return await job_of(self.domain, ref)


@asynccontextmanager
async def open_spender(domain: Domain, settings: Settings) -> AsyncIterator[Spender]:
    """Of the domain's tenant, with plenty of credits."""
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(FakeOpenAI(dimensions=LOCAL.dimensions))
        endpoint = await opened.enter_async_context(
            OpenAIEndpoint(api_key=server.api_key, base_url=server.base_url, timeout=TIMEOUT, max_concurrency=8)
        )
        embedding = OpenAIEmbeddingProvider(endpoint, model=EMBEDDER, dimensions=LOCAL.dimensions)
        opened.push_async_callback(embedding.close)
        for operation, model in ((Operation.EMBED, EMBEDDER), (Operation.EXTRACT, EXTRACTOR)):
            input_price, output_price = PRICES[model]
            domain.money.prices.set(operation, input_price=input_price, output_price=output_price)
        extraction = OpenAIExtractionProvider(endpoint, model=EXTRACTOR)
        credits = PostgresCreditStore(domain.database)
        yield Spender(domain, server, credits, NamedLocal(embedding), extraction, settings)
