"""What reading, hinting and watching jobs needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.model import Job, JobEvent, JobFilter, JobRef
from memoro_core.tenancy.model import TierName


class JobStore(Protocol):
    """Jobs in the database, as callers see them."""

    async def get(self, tenant_id: TenantId, job_id: JobId) -> Job | None:
        """The job, or None when this tenant has none of that id."""
        ...

    async def list_jobs(
        self, tenant_id: TenantId, job_filter: JobFilter, *, limit: int, before: JobId | None
    ) -> Sequence[Job]:
        """Jobs newest first, at most `limit`, older than `before`."""
        ...

    async def events_after(self, tenant_id: TenantId, job_id: JobId, seq: int, *, limit: int) -> Sequence[JobEvent]:
        """Events with a higher number than `seq`, in order."""
        ...

    async def sequences(self, refs: Sequence[JobRef]) -> Mapping[JobRef, int]:
        """The number of each job's latest event, whatever its tenant; jobs that are gone are left out."""
        ...

    async def cancel(self, tenant_id: TenantId, job_id: JobId, *, now: datetime) -> tuple[Job, JobEvent | None] | None:
        """QUEUED, DEFERRED: CANCELLED at once, with its event. RUNNING: marked. Ended: as it is. None: no such job."""
        ...


class HintQueue(Protocol):
    """Hints to workers that jobs wait. They may be lost, doubled or late: the job's row is the truth.

    A group of jobs goes out as one message to one worker; it holds at most `HINT_SIZE`.
    """

    async def send_fresh(self, groups: Sequence[Sequence[JobRef]], tier: TierName) -> None:
        """Hints jobs that were accepted just now, of a tier's tenants that are below their caps. Raises UNAVAILABLE."""
        ...

    async def send_backlog(self, groups: Sequence[Sequence[JobRef]]) -> None:
        """Hints jobs that the scheduler chose; each worker keeps some slots free of them. Raises UNAVAILABLE."""
        ...

    async def oldest(self) -> Mapping[HintClass, datetime | None]:
        """When the oldest hint of each class that no worker has acknowledged was sent, by the queue's own clock.

        None where none waits. Raises UNAVAILABLE.
        """
        ...


class EventTail(Protocol):
    """The live tail of job events, from whoever writes them to whoever watches. Lossy: the database is the truth."""

    async def publish(self, tenant_id: TenantId, job_id: JobId, events: Sequence[JobEvent]) -> None:
        """Tells watchers. Never raises: they catch up from the database."""
        ...

    def subscribe(self, tenant_id: TenantId, job_id: JobId) -> AbstractAsyncContextManager[EventSubscription]:
        """The events of a job from the moment the block is entered."""
        ...

    def follow(self, tenant_id: TenantId) -> AbstractAsyncContextManager[EventSubscription]:
        """No events, only None: something has happened to a job of the tenant, or may have."""
        ...


class EventSubscription(Protocol):
    """What has arrived for one watch of a job and is not yet read."""

    async def next(self) -> JobEvent | None:
        """The next event; None says that some may have been missed: read on from the database."""
        ...

    def missed(self) -> None:
        """Makes `next` say that events may have been missed."""
        ...
