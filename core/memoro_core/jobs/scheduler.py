"""Sees to it that no job is forgotten: takes those whose worker is gone, and gives lost hints anew."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError
from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.ports import EventTail, HintQueue
from memoro_core.jobs.releasing import Releaser
from memoro_core.jobs.retry import RetryPolicy
from memoro_core.jobs.run_ports import RunStore
from memoro_core.jobs.scheduling_ports import SchedulingStore
from memoro_core.jobs.states import lost

SECOND_LOOK: Final = 0.8
"""Seconds for which a lease must be seen to be out.

A run that hung in the middle of a transaction held its job, so that its lease could not be extended: when it goes on,
the next heartbeat comes first.
"""
_CLOCK_SKEW: Final = timedelta(seconds=2)
"""How far the clocks of Redis and of those who mark jobs hinted may differ."""
_BATCH: Final = 500
_log = structlog.get_logger(__name__)


class Scheduler:
    """One round looks after the jobs of all tenants. Rounds of two schedulers at once do no harm, only double work."""

    def __init__(
        self,
        runs: RunStore,
        releaser: Releaser,
        waiting: SchedulingStore,
        hints: HintQueue,
        tail: EventTail,
        clock: Clock,
        retry: RetryPolicy,
        *,
        hint_timeout: float,
        second_look: float = SECOND_LOOK,
    ) -> None:
        self._runs = runs
        self._releaser = releaser
        self._waiting = waiting
        self._hints = hints
        self._tail = tail
        self._clock = clock
        self._retry = retry
        self._hint_timeout = timedelta(seconds=hint_timeout)
        self._second_look = timedelta(seconds=second_look)
        self._suspects: dict[tuple[JobRef, int], datetime] = {}
        """Runs whose lease is out, by when that was first seen."""

    async def round(self) -> None:
        """Ends or requeues lost runs; lets jobs wait again that were put off and can go, or lost their hint."""
        await self.reap()
        await self._find_lost_hints()
        await self._releaser.round()

    @property
    def suspects(self) -> int:
        """Runs whose lease was out when it was last looked, and that wait for the second look."""
        return len(self._suspects)

    async def reap(self) -> None:
        """Ends or requeues lost runs: the part of a round that is worth another look soon while there are suspects."""
        now = self._clock.now()
        expired = {(one.claim.ref, one.claim.lease): one for one in await self._runs.expired(now=now, limit=_BATCH)}
        self._suspects = {run: self._suspects.get(run, now) for run in expired}
        ends = [
            (
                one.claim,
                lost(
                    one.claim.job,
                    timed_out=one.timed_out,
                    retry_at=self._retry.retry_lost_at(now, one.claim.job.attempt),
                ),
            )
            for run, one in expired.items()
            if now - self._suspects[run] >= self._second_look
        ]
        for ref, event in await self._runs.reap(ends, now=now):
            _log.warning("run_reaped", job_id=str(ref.job_id), attempt=event.attempt, state=str(event.state))
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])
        for claim, _ in ends:
            del self._suspects[claim.ref, claim.lease]

    async def _find_lost_hints(self) -> None:
        """A hint that is older than all of its class that wait to be read was read in vain or lost."""
        before = self._clock.now() - self._hint_timeout
        try:
            oldest = await self._hints.oldest()
        except MemoroError:
            # While Redis is away no hint is read.
            oldest = {}
        limits = dict.fromkeys(HintClass, before) | {
            hint_class: min(before, sent - _CLOCK_SKEW) for hint_class, sent in oldest.items() if sent is not None
        }
        forgotten = await self._waiting.forget_hints(
            fresh_before=limits[HintClass.FRESH], before=limits[HintClass.BACKLOG], limit=10 * _BATCH
        )
        if forgotten:
            _log.info("hints_lost", jobs=forgotten)
