"""Letting jobs go that were put off: when their time has come, and when there is room for them again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from memoro_core.clock import Clock
from memoro_core.ids import TenantId
from memoro_core.jobs.deferral_ports import DeferralStore, Waiting
from memoro_core.jobs.model import JobEvent, JobRef
from memoro_core.jobs.operation_model import MAX_BATCH_JOBS
from memoro_core.jobs.ports import EventTail

ROUND_TIME: Final = 0.5
"""Seconds after which a round begins with no more tenants: the scheduler has other work too."""
_TENANTS: Final = 100
_log = structlog.get_logger(__name__)


class Breakers(Protocol):
    """The breakers that keep the daily budgets."""

    async def turn(self) -> object:
        """Moves on those that have room again, or that no job waits for."""
        ...


class Releaser:
    """Lets jobs go over all tenants, a transaction for each tenant's next batch, and tells watchers of them.

    Two at once do no harm: what one holds, the other leaves out. Every method raises UNAVAILABLE when the database is
    away.
    """

    def __init__(self, deferrals: DeferralStore, breakers: Breakers, tail: EventTail, clock: Clock) -> None:
        self._deferrals = deferrals
        self._breakers = breakers
        self._tail = tail
        self._clock = clock

    async def round(self) -> None:
        """Lets go what can go now: a batch of each tenant at most, the one whose job is the oldest first."""
        until = time.monotonic() + ROUND_TIME
        await self._breakers.turn()
        await self._publish(await self._deferrals.release(now=self._clock.now(), limit=MAX_BATCH_JOBS))
        for tenant_id in await self._deferrals.tenants_with_candidates(now=self._clock.now(), limit=_TENANTS):
            try:
                events = await self._deferrals.release_candidates(
                    tenant_id, now=self._clock.now(), limit=MAX_BATCH_JOBS
                )
            except Exception:  # noqa: BLE001 - a tenant whose jobs can't be let go must not be in the way of the others
                _log.exception("release_failed", tenant_id=str(tenant_id))
                continue
            await self._publish(events)
            if time.monotonic() >= until:
                break

    async def release_all(self, tenant_id: TenantId | None, *, until: float) -> int:
        """Lets go all that fits, whenever its time comes, of one tenant or of all; how many jobs.

        Begins no more batches when the monotonic clock shows `until`.
        """
        released = await self._in_batches(
            lambda: self._deferrals.release(
                now=self._clock.now(), limit=MAX_BATCH_JOBS, tenant_id=tenant_id, due_only=False
            ),
            until,
        )
        if tenant_id is not None:
            return released + await self._release_tenant(tenant_id, until)
        after: TenantId | None = None
        while tenants := await self._deferrals.tenants_deferred(after=after, limit=_TENANTS):
            for after in tenants:
                released += await self._release_tenant(after, until)
                if time.monotonic() >= until:
                    return released
        return released

    async def hasten_all(self, tenant_id: TenantId | None, *, until: float) -> int:
        """Makes all QUEUED jobs due that would be later, of one tenant or of all; how many."""
        return await self._in_batches(
            lambda: self._deferrals.hasten(now=self._clock.now(), limit=MAX_BATCH_JOBS, tenant_id=tenant_id), until
        )

    async def _in_batches(self, step: Callable[[], Awaitable[Sequence[tuple[JobRef, JobEvent]]]], until: float) -> int:
        """Repeats a step until it finds less than a batch, or the time is over; how many jobs it found."""
        count = 0
        while time.monotonic() < until:
            events = await step()
            await self._publish(events)
            count += len(events)
            if len(events) < MAX_BATCH_JOBS:
                break
        return count

    async def _release_tenant(self, tenant_id: TenantId, until: float) -> int:
        count = 0
        last: Waiting | None = None
        while time.monotonic() < until:
            batch = await self._deferrals.release_after(tenant_id, last, now=self._clock.now(), limit=MAX_BATCH_JOBS)
            await self._publish(batch.events)
            count += len(batch.events)
            last = batch.last
            if last is None:
                break
        return count

    async def _publish(self, events: Sequence[tuple[JobRef, JobEvent]]) -> None:
        for ref, event in events:
            await self._tail.publish(ref.tenant_id, ref.job_id, [event])
