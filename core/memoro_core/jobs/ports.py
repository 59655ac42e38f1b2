"""What running and watching jobs needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import (
    Claim,
    Finish,
    Job,
    JobEvent,
    JobFilter,
    JobRef,
    JobResult,
    StageProgress,
)
from memoro_core.llm.model import Usage
from memoro_core.tenancy.model import Tier


class LeaseLost(Exception):
    """Another worker holds the job, or it has ended: throw this run's work away."""


class JobCancelled(Exception):
    """A caller asked to cancel the job, and the run has come to a safe point."""


class JobStore(Protocol):
    """Jobs in the database. A run's writes are fenced: they touch nothing unless the claim's lease is the job's."""

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

    async def claim(
        self, refs: Sequence[JobRef], *, worker_id: str, now: datetime, lease_until: datetime
    ) -> Sequence[tuple[Claim, JobEvent]]:
        """Takes those that are QUEUED and due: state RUNNING, lease and attempt one higher, an event each."""
        ...

    async def extend(self, claims: Sequence[Claim], *, lease_until: datetime) -> Sequence[tuple[JobRef, bool]]:
        """Heartbeat: the claims that still hold, each with whether its job is asked to cancel."""
        ...

    async def report(
        self, claim: Claim, stages: Sequence[StageProgress], progress: StageProgress, *, now: datetime
    ) -> tuple[JobEvent, bool]:
        """Records that a stage moved; its event, and whether the job is asked to cancel. Raises LeaseLost."""
        ...

    async def finish(self, claim: Claim, finish: Finish, *, now: datetime) -> JobEvent:
        """Ends the run: terminal, or QUEUED for another attempt. Raises LeaseLost.

        A job that ends without success fails its PENDING memories. `finish.usage` is that of all attempts.
        """
        ...

    async def release(self, claims: Sequence[Claim], *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
        """Gives up runs that have not ended: their jobs are QUEUED again at once, and the attempt does not count."""
        ...

    async def cancel(self, tenant_id: TenantId, job_id: JobId, *, now: datetime) -> tuple[Job, JobEvent | None] | None:
        """QUEUED, DEFERRED: CANCELLED at once, with its event. RUNNING: marked. Ended: as it is. None: no such job."""
        ...

    async def due(self, *, now: datetime, hinted_before: datetime, limit: int) -> Sequence[tuple[JobRef, Tier]]:
        """QUEUED jobs that are due and have no fresh hint, the most urgent first; marks them hinted now."""
        ...

    async def expire(self, *, now: datetime, limit: int) -> Sequence[tuple[JobRef, JobEvent]]:
        """Takes RUNNING jobs whose lease ran out from their workers: QUEUED again, or FAILED after the last attempt."""
        ...


class HintQueue(Protocol):
    """Hints to workers that jobs wait. They may be lost, doubled or late: the job's row is the truth."""

    async def send(self, refs: Sequence[JobRef], *, tier: Tier = Tier.FREE) -> None:
        """Hints each job, in the queue of a tier. Raises UNAVAILABLE: then the scheduler hints later."""
        ...

    async def backlog(self) -> int:
        """How many hints no worker has taken up yet. Raises UNAVAILABLE."""
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


class RunContext(Protocol):
    """What a handler has of the run it is in."""

    @property
    def claim(self) -> Claim:
        """The job, and the lease to name in the last write."""
        ...

    async def report(self, progress: StageProgress) -> None:
        """Tells watchers how far a stage is. A safe point: raises JobCancelled or LeaseLost."""
        ...

    def record(self, usage: Sequence[Usage]) -> None:
        """Adds what a provider call used, failed calls too."""
        ...

    def success(self, result: JobResult, *, partial: bool) -> Finish:
        """The last write of a run that went well, with the stages reported so far and all usage."""
        ...


class JobHandler(Protocol):
    """Does the work of one kind of job."""

    async def run(self, context: RunContext) -> JobEvent:
        """Does it and commits its results together with the job's end, fenced by the claim; the terminal event.

        Raises JobCancelled, LeaseLost, MemoroError (retried when it may succeed later), or anything else (retried).
        """
        ...
