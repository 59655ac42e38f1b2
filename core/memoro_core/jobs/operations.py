"""Operating the queues: what operators see of them, and what they do to the jobs of all tenants at once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, TypeVar

import structlog

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import Clock
from memoro_core.errors import invalid_field
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId
from memoro_core.jobs.model import JobEvent, JobRef
from memoro_core.jobs.operation_model import (
    Cleared,
    ClearFilter,
    QueueStatus,
    Requeued,
    RequeueFilter,
    Triggered,
    WorkerStatus,
    batches,
)
from memoro_core.jobs.operation_ports import AnswerStore, QueueStore, RetryStore
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.releasing import Releaser
from memoro_core.tenancy.model import Principal, TierName
from memoro_core.tenancy.tiers import tier_not_found

DEFAULT_LIMIT: Final = 1_000
MAX_WORKERS: Final = 1_000
MAX_JOBS_OF_WORKER: Final = 100
SILENCE: Final = timedelta(seconds=30)
"""A worker that gave no sign of life for so long is not listed."""
_log = structlog.get_logger(__name__)

A = TypeVar("A", Requeued, Cleared, Triggered)


class OperationsService:
    """What operators do, over all tenants; callers have shown the scope admin. Days begin in `time_zone`.

    Each action is logged with the key that asked for it. Bulk actions go batch by batch and begin no more of them
    `within` so many seconds. Every method raises UNAVAILABLE when the database is away; what a bulk action has done by
    then stays done.
    """

    def __init__(
        self,
        queues: QueueStore,
        retries: RetryStore,
        releaser: Releaser,
        answers: AnswerStore,
        tail: EventTail,
        clock: Clock,
        *,
        max_attempts: int,
        time_zone: tzinfo = UTC,
    ) -> None:
        self._queues = queues
        self._retries = retries
        self._releaser = releaser
        self._answers = answers
        self._tail = tail
        self._clock = clock
        self._max_attempts = max_attempts
        self._time_zone = time_zone

    async def workers(self) -> Sequence[WorkerStatus]:
        """The workers that live, by their start."""
        return await self._queues.workers(
            seen_from=self._clock.now() - SILENCE, limit=MAX_WORKERS, jobs_each=MAX_JOBS_OF_WORKER
        )

    async def queues(self) -> Sequence[QueueStatus]:
        """How all queues stand."""
        now = self._clock.now()
        return await self._queues.queues(now=now, day_start=day_start(now, self._time_zone))

    async def pause(self, principal: Principal, tier: TierName | None) -> Sequence[QueueStatus]:
        """Begins no more jobs of a queue, or of any for None; all queues as they then are. Raises TIER_NOT_FOUND."""
        await self._check(tier)
        changed = await self._queues.pause(tier, now=self._clock.now())
        _tell("queues_paused", principal, tier=tier, changed=changed)
        return await self.queues()

    async def resume(self, principal: Principal, tier: TierName | None) -> Sequence[QueueStatus]:
        """Lets a queue run again, or all for None; all queues as they then are. Raises TIER_NOT_FOUND."""
        await self._check(tier)
        changed = await self._queues.resume(tier)
        _tell("queues_resumed", principal, tier=tier, changed=changed)
        return await self.queues()

    async def requeue(
        self,
        principal: Principal,
        requeue_filter: RequeueFilter,
        *,
        limit: int = DEFAULT_LIMIT,
        within: float,
        idempotency: Idempotency | None = None,
    ) -> Requeued:
        """Retries ended jobs that fit, the earliest ended first, at most `limit`. Raises REQUEST_ID_REUSED."""

        async def work() -> Requeued:
            done = await self._requeue(requeue_filter, limit, time.monotonic() + within)
            _tell("jobs_requeued", principal, limit=limit, **asdict(requeue_filter), **asdict(done))
            return done

        return await self._once(principal, idempotency, Requeued, work)

    async def clear(
        self,
        principal: Principal,
        clear_filter: ClearFilter,
        *,
        all_tenants: bool = False,
        limit: int = DEFAULT_LIMIT,
        within: float,
        idempotency: Idempotency | None = None,
    ) -> Cleared:
        """Cancels waiting jobs that fit, the oldest first, at most `limit`.

        Raises INVALID_FIELD when neither a queue nor a tenant is named and `all_tenants` does not say that it is meant,
        TIER_NOT_FOUND, REQUEST_ID_REUSED.
        """
        await self._check(clear_filter.tier)
        if clear_filter.tier is None and clear_filter.tenant_id is None and not all_tenants:
            raise invalid_field("queue", "name a queue or a tenant_id, or set all_tenants to mean the jobs of all")

        async def work() -> Cleared:
            done = await self._clear(clear_filter, limit, time.monotonic() + within)
            _tell("queue_cleared", principal, limit=limit, **asdict(clear_filter), **asdict(done))
            return done

        return await self._once(principal, idempotency, Cleared, work)

    async def trigger(
        self,
        principal: Principal,
        tenant_id: TenantId | None,
        *,
        within: float,
        idempotency: Idempotency | None = None,
    ) -> Triggered:
        """Lets jobs that are put off, and jobs between two attempts, run now; the former as far as they fit.

        A job that credits are missing for, or whose budget is used up, stays where it is. Raises REQUEST_ID_REUSED.
        """

        async def work() -> Triggered:
            until = time.monotonic() + within
            released = await self._releaser.release_all(tenant_id, until=until)
            due = await self._releaser.hasten_all(tenant_id, until=until)
            done = Triggered(released, due)
            _tell("processing_triggered", principal, tenant_id=tenant_id, **asdict(done))
            return done

        return await self._once(principal, idempotency, Triggered, work)

    async def _check(self, tier: TierName | None) -> None:
        if tier is not None and not await self._queues.has_queue(tier):
            raise tier_not_found(tier)

    async def _requeue(self, requeue_filter: RequeueFilter, limit: int, until: float) -> Requeued:
        requeued = skipped = 0
        after = None
        more = True
        # What had no work left does not count, so that it can't stand for ever in the way of what came later.
        while more and requeued < limit:
            room = limit - requeued
            found = await self._retries.not_retried(requeue_filter, after=after, limit=room + 1)
            more = len(found) > room
            for tenant_id, job_ids in batches(found[:room]):
                if time.monotonic() >= until:
                    return Requeued(requeued, skipped, more=True)
                batch = await self._retries.retry_all(
                    tenant_id, job_ids, max_attempts=self._max_attempts, now=self._clock.now()
                )
                await self._publish(batch.made)
                requeued += len(batch.made)
                skipped += batch.skipped
            after = found[room - 1] if more else None
        return Requeued(requeued, skipped, more)

    async def _clear(self, clear_filter: ClearFilter, limit: int, until: float) -> Cleared:
        found = await self._queues.waiting(clear_filter, limit=limit + 1)
        cancelled = 0
        for tenant_id, job_ids in batches(found[:limit]):
            if time.monotonic() >= until:
                return Cleared(cancelled, more=True)
            events = await self._queues.cancel_all(
                tenant_id, job_ids, deferred=clear_filter.deferred, now=self._clock.now()
            )
            await self._publish(events)
            cancelled += len(events)
        return Cleared(cancelled, more=len(found) > limit)

    async def _publish(self, events: Sequence[tuple[JobRef, JobEvent]]) -> None:
        for ref, event in events:
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])

    async def _once(
        self,
        principal: Principal,
        idempotency: Idempotency | None,
        kind: Callable[..., A],
        work: Callable[[], Awaitable[A]],
    ) -> A:
        """Does the work, or tells what came of it when this very request did it before.

        A request that broke off is not known: repeated, it does what is left.
        """
        if idempotency is None:
            return await work()
        answer = await self._answers.find(principal.tenant_id, idempotency)
        if answer is not None:
            return kind(**answer)
        done = await work()
        await self._answers.record(principal.tenant_id, idempotency, asdict(done), now=self._clock.now())
        return done


def day_start(now: datetime, time_zone: tzinfo) -> datetime:
    """When the day of `now` began in a time zone, in UTC."""
    calendar = Calendar(time_zone)
    return calendar.day_start(calendar.day(now))


def _tell(action: str, principal: Principal, **what: Any) -> None:
    """One line for the audit: what was done, to which jobs, and by whose key."""
    shown = {name: _shown(value) for name, value in what.items() if value is not None and value != ()}
    _log.info(action, **principal.credential, **shown)


def _shown(value: Any) -> Any:
    if isinstance(value, (bool, int)):
        return value
    return [str(item) for item in value] if isinstance(value, (tuple, list)) else str(value)
