"""Sees to it that no job is forgotten: hints those that wait, and takes them from workers that are gone.

And that request ids are, when their time is over.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Final

import structlog

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.idempotency import RETENTION, RequestStore
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.ports import EventTail, HintQueue, JobStore
from memoro_core.tenancy.model import Tier

_FORGOTTEN_AT_ONCE: Final = 10_000
"""Request ids that one round forgets at most: more than arrive between two rounds."""
_log = structlog.get_logger(__name__)


class Scheduler:
    """One round looks after the jobs of all tenants. Rounds of two schedulers at once do no harm, only double work."""

    def __init__(
        self,
        store: JobStore,
        requests: RequestStore,
        hints: HintQueue,
        tail: EventTail,
        clock: Clock,
        *,
        hint_timeout: float,
        batch: int = 500,
    ) -> None:
        self._store = store
        self._requests = requests
        self._hints = hints
        self._tail = tail
        self._clock = clock
        self._hint_timeout = timedelta(seconds=hint_timeout)
        self._batch = batch

    async def round(self) -> None:
        """Requeues what lost its worker, then hints what is due and has no fresh hint. Raises UNAVAILABLE."""
        await self._expire()
        await self._requests.forget(before=self._clock.now() - RETENTION, limit=_FORGOTTEN_AT_ONCE)
        # While many hints wait unread, older ones are not lost but late: more of them would only grow the heap.
        try:
            waiting = await self._hints.backlog()
        except MemoroError:
            return
        if waiting < self._batch:
            await self._hint()

    async def _expire(self) -> None:
        expired = await self._store.expire(now=self._clock.now(), limit=self._batch)
        for ref, event in expired:
            _log.warning("worker_lost", job_id=str(ref.job_id), attempt=event.attempt, state=str(event.state))
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])

    async def _hint(self) -> None:
        now = self._clock.now()
        due = await self._store.due(now=now, hinted_before=now - self._hint_timeout, limit=self._batch)
        by_tier: defaultdict[Tier, list[JobRef]] = defaultdict(list)
        for ref, tier in due:
            by_tier[tier].append(ref)
        for tier, refs in by_tier.items():
            try:
                await self._hints.send(refs, tier=tier)
            except MemoroError as error:
                _log.warning("hints_not_sent", jobs=len(refs), reason=str(error))
