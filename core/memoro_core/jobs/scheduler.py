"""Sees to it that no job is forgotten: hints those that wait, and takes them from workers that are gone.

And that request ids are, when their time is over.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.idempotency import RETENTION, RequestStore
from memoro_core.jobs.hints import HINT_SIZE
from memoro_core.jobs.ports import EventTail, HintQueue, JobStore

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
        # While hints wait that are older than the timeout, others are not lost but late: more would only grow the heap.
        try:
            oldest = await self._hints.oldest()
        except MemoroError:
            return
        now = self._clock.now()
        if all(sent is None or sent > now - self._hint_timeout for sent in oldest.values()):
            await self._hint(now)

    async def _expire(self) -> None:
        expired = await self._store.expire(now=self._clock.now(), limit=self._batch)
        for ref, event in expired:
            _log.warning("worker_lost", job_id=str(ref.job_id), attempt=event.attempt, state=str(event.state))
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])

    async def _hint(self, now: datetime) -> None:
        due = await self._store.due(now=now, hinted_before=now - self._hint_timeout, limit=self._batch)
        refs = [ref for ref, _ in due]
        groups = [refs[start : start + HINT_SIZE] for start in range(0, len(refs), HINT_SIZE)]
        if not groups:
            return
        try:
            await self._hints.send_backlog(groups)
        except MemoroError as error:
            _log.warning("hints_not_sent", jobs=len(refs), reason=str(error))
