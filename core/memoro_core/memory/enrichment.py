"""The enrichment of memories: screen, embed, extract, resolve, commit."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_core import to_json

from memoro_core.clock import Clock
from memoro_core.jobs.model import JobEvent, Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import RunContext
from memoro_core.llm.model import Vector
from memoro_core.llm.ports import EmbeddingProvider
from memoro_core.memory.enrichment_ports import (
    Enrichable,
    Enrichment,
    EnrichmentStore,
    Relating,
    RelationBounds,
    RelationSlots,
    Work,
)
from memoro_core.memory.finding import NOTHING, GraphFinder, skip_finding
from memoro_core.memory.model import Memory
from memoro_core.memory.stages import begin, ending, skip


class RelationLimit:
    """Entities and facts are found for so many jobs of a user in an hour; more are left to later jobs."""

    def __init__(self, slots: RelationSlots, bounds: RelationBounds, clock: Clock) -> None:
        self._slots = slots
        self._bounds = bounds
        self._clock = clock

    async def relating(self, context: RunContext, work: Work) -> Relating | None:
        """What is to be found by a later job, because the limit is reached; None: this one may, and counts."""
        per_hour, now = work.relation_detections, self._clock.now()
        if per_hour is None or await self._slots.take(context.claim, per_hour, now=now):
            return None
        bound = self._bounds.bound_relations([item.memory for item in work.items], at=now)
        return Relating(per_hour, bound)


class EnrichmentHandler:
    """Gives memories their vectors and their place in the graph. A `JobHandler`; without `finder`, vectors only.

    No connection is held while a provider works. What an extraction provider refuses for good leaves that one memory
    without a graph and the job partial; everything else that a provider refuses ends the run, to be tried again if that
    may help. A job beyond the user's limit leaves the graph to a later one; it is not partial.
    """

    def __init__(
        self,
        store: EnrichmentStore,
        embedder: EmbeddingProvider,
        finder: GraphFinder | None,
        limit: RelationLimit | None,
        clock: Clock,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._finder = finder
        self._limit = limit
        self._clock = clock

    async def run(self, context: RunContext) -> JobEvent:
        work = await screen(context, self._store)
        items = work.items
        vectors = await self._embed(context, items)
        findings, whole, relating = NOTHING, True, None
        if self._finder is None:
            await skip_finding(context)
        elif self._limit and (relating := await self._limit.relating(context, work)):
            for stage in (Stage.EXTRACT, Stage.RESOLVE):
                await context.report(StageProgress(stage, StageStatus.DEFERRED, 0, len(items)))
        else:
            findings, whole = await self._finder.find(context, items)
        await begin(context, Stage.COMMIT, len(items))
        enrichment = Enrichment(
            self._embedder.model,
            [(item.memory.id, vector) for item, vector in zip(items, vectors, strict=True)],
            findings,
            relating,
        )
        return await self._store.commit(
            context.claim, enrichment, ending(context, len(items), partial=not whole), now=self._clock.now()
        )

    async def _embed(self, context: RunContext, items: Sequence[Enrichable]) -> Sequence[Vector]:
        if not items:
            await skip(context, Stage.EMBED)
            return ()
        await begin(context, Stage.EMBED, len(items))
        texts = [text_to_embed(item.memory) for item in items]
        async with context.spending(self._embedder.bound(texts), to_json(texts)) as call:
            embeddings = await self._embedder.embed(texts, admit=call.admit)
            call.used(embeddings.usage)
        await context.report(StageProgress(Stage.EMBED, StageStatus.SUCCEEDED, len(items), len(items)))
        return embeddings.vectors


async def screen(context: RunContext, store: EnrichmentStore) -> Work:
    """The stage SCREEN: what of a job's memories is still to be done."""
    job = context.claim.job
    total = len(job.memory_ids)
    await begin(context, Stage.SCREEN, total)
    work = await store.load(context.claim.ref.tenant_id, job.id, job.memory_ids)
    status = StageStatus.SUCCEEDED if work.items else StageStatus.SKIPPED
    await context.report(StageProgress(Stage.SCREEN, status, total, total))
    return work


def text_to_embed(memory: Memory) -> str:
    """What a memory's vector is made of: who said it, and what. Questions name people, turns say "I"."""
    return f"{memory.speaker}: {memory.text}" if memory.speaker else memory.text
