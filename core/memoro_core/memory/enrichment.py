"""The enrichment of memories: screen, embed, extract, resolve, commit."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from pydantic_core import to_json

from memoro_core.clock import Clock
from memoro_core.errors import ProviderError
from memoro_core.graph.resolution import Findings, Reading, names_to_find, resolve
from memoro_core.jobs.model import Finish, JobEvent, JobResult, Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import RunContext
from memoro_core.llm.model import Extraction, ExtractionSource, Vector
from memoro_core.llm.ports import EmbeddingProvider, ExtractionProvider
from memoro_core.memory.enrichment_ports import Enrichable, Enrichment, EnrichmentStore
from memoro_core.memory.model import Memory

MAX_CONCURRENT_EXTRACTIONS: Final = 8
"""How many texts of one job are with the extraction provider at once."""
REPORT_EVERY: Final = 25
"""Texts between two reports of progress within a stage."""


class EnrichmentHandler:
    """Gives memories their vectors and their place in the graph. A `JobHandler`; without `extractor`, vectors only.

    No connection is held while a provider works. What an extraction provider refuses for good leaves that one memory
    without a graph and the job partial; everything else that a provider refuses ends the run, to be tried again if that
    may help.
    """

    def __init__(
        self, store: EnrichmentStore, embedder: EmbeddingProvider, extractor: ExtractionProvider | None, clock: Clock
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._extractor = extractor
        self._clock = clock

    async def run(self, context: RunContext) -> JobEvent:
        items = await self._screen(context)
        vectors = await self._embed(context, items)
        readings, whole = await self._extract(context, items)
        findings = await self._resolve(context, readings)
        await _begin(context, Stage.COMMIT, len(items))
        enrichment = Enrichment(
            self._embedder.model,
            [(item.memory.id, vector) for item, vector in zip(items, vectors, strict=True)],
            findings,
        )
        return await self._store.commit(
            context.claim, enrichment, _ending(context, len(items), partial=not whole), now=self._clock.now()
        )

    async def _screen(self, context: RunContext) -> Sequence[Enrichable]:
        job, tenant_id = context.claim.job, context.claim.ref.tenant_id
        await _begin(context, Stage.SCREEN, len(job.memory_ids))
        items = await self._store.load(tenant_id, job.id, job.memory_ids)
        total = len(job.memory_ids)
        if items:
            await context.report(StageProgress(Stage.SCREEN, StageStatus.SUCCEEDED, total, total))
        else:
            await context.report(StageProgress(Stage.SCREEN, StageStatus.SKIPPED, total, total))
        return items

    async def _embed(self, context: RunContext, items: Sequence[Enrichable]) -> Sequence[Vector]:
        if not items:
            await _skip(context, Stage.EMBED)
            return ()
        await _begin(context, Stage.EMBED, len(items))
        texts = [text_to_embed(item.memory) for item in items]
        async with context.spending(self._embedder.bound(texts), to_json(texts)) as call:
            embeddings = await self._embedder.embed(texts, admit=call.admit)
            call.used(embeddings.usage)
        await context.report(StageProgress(Stage.EMBED, StageStatus.SUCCEEDED, len(items), len(items)))
        return embeddings.vectors

    async def _extract(self, context: RunContext, items: Sequence[Enrichable]) -> tuple[Sequence[Reading], bool]:
        """What was found in each text, and whether that is all there was to find."""
        if not items or self._extractor is None:
            await _skip(context, Stage.EXTRACT)
            return (), True
        total = len(items)
        await _begin(context, Stage.EXTRACT, total)
        limit = asyncio.Semaphore(MAX_CONCURRENT_EXTRACTIONS)
        tasks = [asyncio.create_task(_read(context, self._extractor, item, limit)) for item in items]
        try:
            for completed, next_done in enumerate(asyncio.as_completed(tasks), start=1):
                await next_done
                if completed % REPORT_EVERY == 0 and completed < total:
                    await context.report(StageProgress(Stage.EXTRACT, StageStatus.RUNNING, completed, total))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        extractions = [task.result() for task in tasks]
        readings = [
            Reading(item.memory.id, item.memory.occurred_at, extraction)
            for item, extraction in zip(items, extractions, strict=True)
            if extraction is not None
        ]
        status = StageStatus.SUCCEEDED
        if not readings:
            status = StageStatus.FAILED
        elif len(readings) < total or any(reading.extraction.partial for reading in readings):
            status = StageStatus.PARTIAL
        await context.report(StageProgress(Stage.EXTRACT, status, len(readings), total))
        return readings, status is StageStatus.SUCCEEDED

    async def _resolve(self, context: RunContext, readings: Sequence[Reading]) -> Findings:
        names = names_to_find(readings)
        if not names.names:
            await _skip(context, Stage.RESOLVE)
            return Findings((), ())
        await _begin(context, Stage.RESOLVE, len(names.names))
        claim = context.claim
        known = await self._store.find_entities(claim.ref.tenant_id, claim.job.user_id, names)
        findings = resolve(readings, known)
        total = len(names.names)
        await context.report(StageProgress(Stage.RESOLVE, StageStatus.SUCCEEDED, total, total))
        return findings


def text_to_embed(memory: Memory) -> str:
    """What a memory's vector is made of: who said it, and what. Questions name people, turns say "I"."""
    return f"{memory.speaker}: {memory.text}" if memory.speaker else memory.text


async def _read(
    context: RunContext, extractor: ExtractionProvider, item: Enrichable, limit: asyncio.Semaphore
) -> Extraction | None:
    """What is in one text; None when the provider refuses it for good."""
    memory = item.memory
    source = ExtractionSource(memory.text, memory.speaker, memory.occurred_at, item.preceding)
    async with limit:
        try:
            async with context.spending(extractor.bound(source), to_json(source)) as call:
                extraction = await extractor.extract(source, admit=call.admit)
                call.used(extraction.usage)
        except ProviderError as error:
            if error.retryable:
                raise
            return None
    return extraction


def _ending(context: RunContext, committed: int, *, partial: bool) -> Callable[[JobResult], Finish]:
    """The run's last write, which tells of the commit that it is part of."""

    def finish(result: JobResult) -> Finish:
        done = StageProgress(Stage.COMMIT, StageStatus.SUCCEEDED, committed, committed)
        end = context.success(result, partial=partial)
        return dataclasses.replace(
            end, stages=tuple(done if stage.stage is Stage.COMMIT else stage for stage in end.stages)
        )

    return finish


async def _begin(context: RunContext, stage: Stage, total: int) -> None:
    await context.report(StageProgress(stage, StageStatus.RUNNING, 0, total))


async def _skip(context: RunContext, stage: Stage) -> None:
    await context.report(StageProgress(stage, StageStatus.SKIPPED))
