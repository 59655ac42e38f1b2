"""Enriching memories in a test's own tenant, with providers that say what the test tells them to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from memoro_core.clock import SystemClock
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Claim, JobEvent, JobRef
from memoro_core.jobs.ports import EventSubscription
from memoro_core.jobs.run import Run
from memoro_core.llm.model import ExtractedEntity, ExtractedRelationship, Extraction
from memoro_core.memory.enrichment import EnrichmentHandler
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from tests.support.domain import Domain
from tests.support.jobs import try_claim
from tests.support.providers import DirectionEmbedder, ScriptedExtractor


def fact(source: str, predicate: str, target: str, *, types: tuple[str, str] = ("PERSON", "PLACE")) -> Extraction:
    """A text that states one thing."""
    return facts((source, predicate, target), types=types)


def facts(*triples: tuple[str, str, str], types: tuple[str, str] = ("PERSON", "PLACE")) -> Extraction:
    """A text that states some things, all of them between things of these two types."""
    names = [(name, kind) for triple in triples for name, kind in zip(triple[::2], types, strict=True)]
    entities = {name: ExtractedEntity(name, kind) for name, kind in names}
    return Extraction(tuple(entities.values()), [ExtractedRelationship(*triple) for triple in triples], ())


class SilentTail:
    """An event tail that nobody listens to."""

    async def publish(self, tenant_id: TenantId, job_id: JobId, events: Sequence[JobEvent]) -> None:
        pass

    def subscribe(self, tenant_id: TenantId, job_id: JobId) -> AbstractAsyncContextManager[EventSubscription]:
        raise NotImplementedError

    def follow(self, tenant_id: TenantId) -> AbstractAsyncContextManager[EventSubscription]:
        raise NotImplementedError


async def claim(domain: Domain, ref: JobRef, *, now: datetime | None = None) -> Claim:
    """Takes a job as a worker would."""
    now = now or datetime.now(UTC)
    (claimed,) = await try_claim(domain.run_store, [ref], at=now, lease=timedelta(seconds=60))
    return claimed


def run_of(domain: Domain, claimed: Claim) -> Run:
    """What a handler gets to run a claimed job with."""
    return Run(claimed, domain.run_store, SilentTail(), domain.guard, SystemClock())


@dataclass
class Enricher:
    """Runs the jobs that a test's calls have left."""

    domain: Domain
    extractor: ScriptedExtractor = field(default_factory=ScriptedExtractor)
    extracts: bool = True
    embedder: DirectionEmbedder = field(default_factory=DirectionEmbedder)

    def handler(self) -> EnrichmentHandler:
        """The handler over the test's providers."""
        store = PostgresEnrichmentStore(self.domain.database, self.domain.holds)
        return EnrichmentHandler(store, self.embedder, self.extractor if self.extracts else None, SystemClock())

    async def run(self, ref: JobRef | None = None) -> JobEvent:
        """Runs one job, the latest by default; the terminal event."""
        claimed = await claim(self.domain, ref or self.domain.hinted[-1])
        return await self.handler().run(run_of(self.domain, claimed))

    async def run_all(self) -> list[JobEvent]:
        """Runs all jobs that were hinted and forgets the hints."""
        events = [await self.run(ref) for ref in self.domain.hinted]
        self.domain.hinted.clear()
        return events
