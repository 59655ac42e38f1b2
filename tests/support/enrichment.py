"""Enriching memories in a test's own tenant, with providers that say what the test tells them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from memoro_core.clock import SystemClock
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Claim, JobEvent, JobRef
from memoro_core.jobs.ports import EventSubscription
from memoro_core.jobs.run import Run
from memoro_core.llm.model import (
    EmbeddingModel,
    Embeddings,
    ExtractedEntity,
    ExtractedRelationship,
    Extraction,
    ExtractionSource,
    Operation,
    Usage,
)
from memoro_core.llm.ports import Admit
from memoro_core.memory.enrichment import EnrichmentHandler
from memoro_core.memory.finding import GraphFinder
from memoro_core.postgres.enrichment_store import PostgresEnrichmentStore
from tests.support.domain import Domain
from tests.support.jobs import try_claim

NOTHING = Extraction((), (), ())
LOCAL = EmbeddingModel("local", "wordllama-l2-supercat", 256)


def fact(source: str, predicate: str, target: str, *, types: tuple[str, str] = ("PERSON", "PLACE")) -> Extraction:
    """A text that states one thing."""
    return facts((source, predicate, target), types=types)


def facts(*triples: tuple[str, str, str], types: tuple[str, str] = ("PERSON", "PLACE")) -> Extraction:
    """A text that states some things, all of them between things of these two types."""
    names = [(name, kind) for triple in triples for name, kind in zip(triple[::2], types, strict=True)]
    entities = {name: ExtractedEntity(name, kind) for name, kind in names}
    return Extraction(tuple(entities.values()), [ExtractedRelationship(*triple) for triple in triples], ())


@dataclass
class ScriptedExtractor:
    """Finds in each text what it is told is there; raises what it is told to raise."""

    answers: Mapping[str, Extraction | Exception] = field(default_factory=dict)
    sources: list[ExtractionSource] = field(default_factory=list)

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        if admit is not None:
            await admit()
        self.sources.append(source)
        answer = self.answers.get(source.text, NOTHING)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def bound(self, source: ExtractionSource) -> Usage:
        return Usage("test", "scripted", Operation.EXTRACT, len(source.text.encode()), 10)


@dataclass
class DirectionEmbedder:
    """The axis of a text's first letter, of 256: texts are alike or have nothing in common.

    It goes by the local provider's name, because a deployment, which all tests share, has vectors of one model only.
    """

    model: EmbeddingModel = LOCAL
    calls: list[Sequence[str]] = field(default_factory=list)
    error: Exception | None = None

    async def embed(self, texts: Sequence[str], *, admit: Admit | None = None) -> Embeddings:
        if admit is not None:
            await admit()
        self.calls.append(texts)
        if self.error is not None:
            raise self.error
        vectors = np.eye(256, dtype=np.float32)
        return Embeddings(
            [vectors[ord(text[0]) % 256] for text in texts],
            (Usage(self.model.provider, self.model.name, Operation.EMBED, len(texts)),),
        )

    def bound(self, texts: Sequence[str]) -> Usage:
        return Usage(self.model.provider, self.model.name, Operation.EMBED, len(texts), items=len(texts))


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
    return Run(claimed, domain.run_store, SilentTail(), domain.money.guard, SystemClock())


@dataclass
class Enricher:
    """Runs the jobs that a test's calls have left."""

    domain: Domain
    extractor: ScriptedExtractor = field(default_factory=ScriptedExtractor)
    extracts: bool = True
    embedder: DirectionEmbedder = field(default_factory=DirectionEmbedder)

    def handler(self) -> EnrichmentHandler:
        """The handler over the test's providers."""
        store = PostgresEnrichmentStore(self.domain.database, self.domain.money.holds)
        finder = GraphFinder(store, self.extractor) if self.extracts else None
        return EnrichmentHandler(store, self.embedder, finder, None, SystemClock())

    async def run(self, ref: JobRef | None = None) -> JobEvent:
        """Runs one job, the latest by default; the terminal event."""
        claimed = await claim(self.domain, ref or self.domain.hinted[-1])
        return await self.handler().run(run_of(self.domain, claimed))

    async def run_all(self) -> list[JobEvent]:
        """Runs all jobs that were hinted and forgets the hints."""
        events = [await self.run(ref) for ref in self.domain.hinted]
        self.domain.hinted.clear()
        return events
