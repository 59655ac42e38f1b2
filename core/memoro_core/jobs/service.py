"""Reading, listing, cancelling and retrying jobs."""

from __future__ import annotations

from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason, not_found
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Job, JobFilter, JobState
from memoro_core.jobs.operation_ports import RetryStore
from memoro_core.jobs.ports import EventTail, JobStore
from memoro_core.paging import Page, cut, identifier


class JobsService:
    """What callers ask of their jobs. Every method raises UNAVAILABLE when the database is away."""

    def __init__(
        self, store: JobStore, retries: RetryStore, tail: EventTail, clock: Clock, *, max_attempts: int
    ) -> None:
        self._store = store
        self._retries = retries
        self._max_attempts = max_attempts
        self._tail = tail
        self._clock = clock

    async def get(self, tenant_id: TenantId, job_id: JobId) -> Job:
        """One job. Raises JOB_NOT_FOUND."""
        job = await self._store.get(tenant_id, job_id)
        if job is None:
            raise job_not_found(job_id)
        return job

    async def list_jobs(
        self, tenant_id: TenantId, job_filter: JobFilter, *, size: int, position: tuple[str, ...] | None
    ) -> Page[Job]:
        """Jobs that fit, newest first."""
        before = JobId(identifier(position)) if position else None
        rows = await self._store.list_jobs(tenant_id, job_filter, limit=size + 1, before=before)
        return cut(rows, size, (str(rows[size - 1].id),) if len(rows) > size else None)

    async def cancel(self, tenant_id: TenantId, job_id: JobId) -> Job:
        """Ends a job that waits at once, and asks a running one to end at its next safe point; the job as it then is.

        Cancelling a cancelled job changes nothing. Raises JOB_NOT_FOUND, JOB_NOT_CANCELLABLE.
        """
        cancelled = await self._store.cancel(tenant_id, job_id, now=self._clock.now())
        if cancelled is None:
            raise job_not_found(job_id)
        job, event = cancelled
        if job.state in {JobState.SUCCEEDED, JobState.FAILED}:
            raise MemoroError(
                Code.FAILED_PRECONDITION,
                Reason.JOB_NOT_CANCELLABLE,
                f"job {job_id} has ended: it {job.state}",
                metadata={"state": job.state},
            )
        if event is not None:
            await self._tail.publish(tenant_id, job_id, [event])
        return job

    async def retry(self, tenant_id: TenantId, job_id: JobId, *, idempotency: Idempotency | None = None) -> Job:
        """A new job, with attempts of its own, for what a FAILED or CANCELLED one left unready.

        A request that came before gets the job that it made then, as it now is. Raises JOB_NOT_FOUND,
        JOB_NOT_RETRYABLE, REQUEST_ID_REUSED, INSUFFICIENT_CREDITS, PRICE_UNKNOWN.
        """
        # Workers are not told at once: the scheduler, which knows the caps of the tenant, does so when its turn comes.
        made = await self._retries.retry(
            tenant_id, job_id, max_attempts=self._max_attempts, idempotency=idempotency, now=self._clock.now()
        )
        if not isinstance(made, tuple):
            return await self.get(tenant_id, made)
        job, event = made
        await self._tail.publish(tenant_id, job.id, [event])
        return job


def job_not_found(job_id: JobId) -> MemoroError:
    """NOT_FOUND / JOB_NOT_FOUND."""
    return not_found(Reason.JOB_NOT_FOUND, "job", job_id)
