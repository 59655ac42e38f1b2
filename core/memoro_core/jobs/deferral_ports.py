"""What putting jobs off, and letting them go, needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobEvent, JobRef


@dataclass(frozen=True, slots=True)
class Waiting:
    """The place of a job among those of its tenant that are put off."""

    run_at: datetime
    job_id: JobId


@dataclass(frozen=True, slots=True)
class Released:
    """Jobs that were let go, and the last one that was looked at; None: all were."""

    events: Sequence[tuple[JobRef, JobEvent]]
    last: Waiting | None


class DeferralStore(Protocol):
    """Puts jobs off, and lets them go again. Only jobs that wait are touched; each that moves gets its event.

    A job that may cost something is let go with a hold of its cost_bound, in one transaction: as far as the tenant's
    credits and all budgets allow, in the order in which they were put off. One that stays has the reason, and the time
    at which it is tried again at the latest: when the next day begins.
    """

    async def defer(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, until: datetime, now: datetime
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        """Those of a tenant's jobs that are QUEUED become DEFERRED, to be let go at `until`."""
        ...

    async def release(
        self, *, now: datetime, limit: int, tenant_id: TenantId | None = None, due_only: bool = True
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        """DEFERRED jobs that cost nothing become QUEUED and due, the earliest first; they rank after all that waits.

        Of one tenant or of all, at most `limit`; with `due_only` those whose time has come. What another transaction
        holds is left out.
        """
        ...

    async def tenants_with_candidates(self, *, now: datetime, limit: int) -> Sequence[TenantId]:
        """Tenants with DEFERRED jobs that may cost something and could be let go, by their oldest, at most `limit`.

        Those are jobs whose time has come, those held back by a budget that lets some through again, and those that
        there are credits for now.
        """
        ...

    async def release_candidates(
        self, tenant_id: TenantId, *, now: datetime, limit: int
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        """Lets such jobs of a tenant go, as far as they fit; at most `limit` are looked at."""
        ...

    async def tenants_deferred(self, *, after: TenantId | None, limit: int) -> Sequence[TenantId]:
        """Tenants with DEFERRED jobs that may cost something, by their ids, from after one on, at most `limit`."""
        ...

    async def release_after(self, tenant_id: TenantId, after: Waiting | None, *, now: datetime, limit: int) -> Released:
        """Lets jobs of a tenant go that may cost something, as far as they fit, whenever their time comes.

        At most `limit` are looked at, from after one on.
        """
        ...

    async def hasten(
        self, *, now: datetime, limit: int, tenant_id: TenantId | None = None
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        """QUEUED jobs that would be due later are due now, at most `limit`, of one tenant or of all."""
        ...
