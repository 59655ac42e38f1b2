"""Finding entities and facts in memories that are embedded already: screen, extract, resolve, commit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from memoro_core.billing.model import DeferralReason
from memoro_core.clock import Clock
from memoro_core.jobs.model import Finish, JobEvent, Stage
from memoro_core.jobs.run_ports import RunContext
from memoro_core.memory.enrichment import screen
from memoro_core.memory.enrichment_ports import EnrichmentStore, RelationSlots
from memoro_core.memory.finding import NOTHING, GraphFinder, skip_finding
from memoro_core.memory.stages import begin, ending


class RelatingHandler:
    """Gives memories their place in the graph, which an earlier job left out. A `JobHandler`.

    A memory that was changed or deleted meanwhile is not this job's any more. One that runs before its turn, because an
    operator let it go say, is put off again. Without `slots` there is no limit; without `finder` nothing is found.
    """

    def __init__(
        self, store: EnrichmentStore, finder: GraphFinder | None, slots: RelationSlots | None, clock: Clock
    ) -> None:
        self._store = store
        self._finder = finder
        self._slots = slots
        self._clock = clock

    async def run(self, context: RunContext) -> JobEvent:
        work = await screen(context, self._store)
        items, per_hour = work.items, work.relation_detections
        findings, whole = NOTHING, True
        if self._finder is None:
            await skip_finding(context)
        else:
            if self._slots is not None and per_hour is not None:
                now = self._clock.now()
                if not await self._slots.take(context.claim, per_hour, now=now):
                    return await self._slots.put_off(context.claim, per_hour, _waiting(context), now=now)
            findings, whole = await self._finder.find(context, items)
        await begin(context, Stage.COMMIT, len(items))
        return await self._store.commit_graph(
            context.claim,
            [item.memory.id for item in items],
            findings,
            ending(context, len(items), partial=not whole),
            now=self._clock.now(),
        )


def _waiting(context: RunContext) -> Callable[[datetime], Finish]:
    """The end of a run that came too early."""
    return lambda until: context.put_off(until, DeferralReason.RELATIONS)
