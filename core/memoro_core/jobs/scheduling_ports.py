"""What the scheduler needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memoro_core.ids import TenantId, UserId
from memoro_core.jobs.fairness import WaitingTenant
from memoro_core.jobs.model import JobRef


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """How busy the workers are: jobs that they may run at once, that run, and that they have been told of."""

    workers: int
    concurrency: int
    running: int
    hinted: int


@dataclass(frozen=True, slots=True)
class Allotment:
    """How many of a tenant's jobs to choose. `after_user`: where to go on among its users, if they are many."""

    tenant_id: TenantId
    quota: int
    after_user: UserId


@dataclass(frozen=True, slots=True)
class Choice:
    """A tenant's chosen jobs, in order. `last_user`: how far its users were looked at; None: all of them."""

    jobs: Sequence[JobRef]
    last_user: UserId | None


class SchedulingStore(Protocol):
    """Waiting jobs of all tenants in the database."""

    async def load(self, *, seen_since: datetime) -> WorkerLoad:
        """How busy the workers are that have shown themselves since."""
        ...

    async def tenants_waiting(self, *, now: datetime, limit: int) -> Sequence[WaitingTenant]:
        """Tenants with jobs that wait without a hint and could begin now; at most `limit` are counted of each.

        Those that had been put off are counted apart, for a while.

        Caps of in-flight jobs and paused queues are honoured.
        """
        ...

    async def hint(self, allotments: Sequence[Allotment], *, now: datetime) -> Mapping[TenantId, Choice]:
        """Chooses jobs by their rank, within each user's cap, and marks them hinted."""
        ...

    async def take_back(self, refs: Sequence[JobRef]) -> None:
        """Marks these jobs as not hinted, if no worker has taken them up: they wait for their turn again."""
        ...

    async def forget_hints(self, *, fresh_before: datetime, before: datetime, limit: int) -> int:
        """Jobs whose hints are older wait for their turn again; how many. Fresh hints came with their jobs."""
        ...
