"""Finding entities and facts in memories: the stages EXTRACT and RESOLVE, of whichever job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from pydantic_core import to_json

from memoro_core.errors import ProviderError
from memoro_core.graph.resolution import Findings, Reading, names_to_find, resolve
from memoro_core.jobs.model import Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import RunContext
from memoro_core.llm.model import Extraction, ExtractionSource
from memoro_core.llm.ports import ExtractionProvider
from memoro_core.memory.enrichment_ports import Enrichable, EnrichmentStore
from memoro_core.memory.stages import begin, skip

MAX_CONCURRENT_EXTRACTIONS: Final = 8
"""How many texts of one job are with the extraction provider at once."""
REPORT_EVERY: Final = 25
"""Texts between two reports of progress within a stage."""
NOTHING: Final = Findings((), ())


class GraphFinder:
    """Reads memories for what they tell, and matches that with what is known of their user.

    What the provider refuses for good leaves that one memory without a graph; everything else that it refuses ends the
    run.
    """

    def __init__(self, store: EnrichmentStore, extractor: ExtractionProvider) -> None:
        self._store = store
        self._extractor = extractor

    async def find(self, context: RunContext, items: Sequence[Enrichable]) -> tuple[Findings, bool]:
        """What was found, and whether that is all there was to find."""
        if not items:
            await skip_finding(context)
            return NOTHING, True
        readings, whole = await self._extract(context, items)
        return await self._resolve(context, readings), whole

    async def _extract(self, context: RunContext, items: Sequence[Enrichable]) -> tuple[Sequence[Reading], bool]:
        total = len(items)
        await begin(context, Stage.EXTRACT, total)
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
            await skip(context, Stage.RESOLVE)
            return NOTHING
        await begin(context, Stage.RESOLVE, len(names.names))
        claim = context.claim
        known = await self._store.find_entities(claim.ref.tenant_id, claim.job.user_id, names)
        findings = resolve(readings, known)
        total = len(names.names)
        await context.report(StageProgress(Stage.RESOLVE, StageStatus.SUCCEEDED, total, total))
        return findings


async def skip_finding(context: RunContext) -> None:
    """There is nothing to find."""
    await skip(context, Stage.EXTRACT)
    await skip(context, Stage.RESOLVE)


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
