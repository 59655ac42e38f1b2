"""What operating the queues, and retrying jobs, needs from the outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Job, JobEvent, JobRef
from memoro_core.jobs.operation_model import Candidate, ClearFilter, QueueStatus, RequeueFilter, WorkerStatus
from memoro_core.tenancy.model import TierName


@dataclass(frozen=True, slots=True)
class RetriedBatch:
    """The first events of the new jobs, and how many of the old ones had no work left, or could not be paid."""

    made: Sequence[tuple[JobRef, JobEvent]]
    skipped: int


class RetryStore(Protocol):
    """Makes new jobs of ended ones. A job is retried once, whoever asks and how often."""

    async def retry(
        self, tenant_id: TenantId, job_id: JobId, *, max_attempts: int, idempotency: Idempotency | None, now: datetime
    ) -> tuple[Job, JobEvent] | JobId:
        """The new job and its first event; of a request that came before, the id of the job that it made then.

        Raises JOB_NOT_FOUND, JOB_NOT_RETRYABLE, REQUEST_ID_REUSED, INSUFFICIENT_CREDITS, PRICE_UNKNOWN.
        """
        ...

    async def retry_all(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, max_attempts: int, now: datetime
    ) -> RetriedBatch:
        """Retries those of a tenant's FAILED and CANCELLED jobs that were not retried before, in one transaction.

        What the tenant's credits do not suffice for is left as it is. Raises PRICE_UNKNOWN.
        """
        ...

    async def not_retried(
        self, requeue_filter: RequeueFilter, *, after: Candidate | None, limit: int
    ) -> Sequence[Candidate]:
        """Ended jobs of all tenants that fit and have no retry, by their end, at most `limit`, from after one on."""
        ...


class QueueStore(Protocol):
    """Workers, and the queues of all tenants."""

    async def workers(self, *, seen_from: datetime, limit: int, jobs_each: int) -> Sequence[WorkerStatus]:
        """Workers that gave a sign of life since, by their start, with their longest-running jobs."""
        ...

    async def queues(self, *, now: datetime, day_start: datetime) -> Sequence[QueueStatus]:
        """All queues; today is from `day_start` on."""
        ...

    async def has_queue(self, tier: TierName) -> bool:
        """Whether there is a queue of that name."""
        ...

    async def pause(self, tier: TierName | None, *, now: datetime) -> Sequence[TierName]:
        """Pauses a queue, or all for None; those that were not paused before."""
        ...

    async def resume(self, tier: TierName | None) -> Sequence[TierName]:
        """Lets a queue run, or all for None; those that were paused before."""
        ...

    async def waiting(self, clear_filter: ClearFilter, *, limit: int) -> Sequence[Candidate]:
        """Jobs of all tenants that wait and fit, the oldest first, at most `limit`."""
        ...

    async def cancel_all(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, deferred: bool, now: datetime
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        """Cancels those of a tenant's jobs that still wait, in one transaction, each with its event and announcement.

        Their PENDING memories become FAILED. `deferred`: those that are put off too.
        """
        ...


class AnswerStore(Protocol):
    """What operators' requests were answered, so that a repeated one gets the same answer."""

    async def find(self, tenant_id: TenantId, idempotency: Idempotency) -> Mapping[str, JsonValue] | None:
        """The answer to this request, or None when it is new. Raises REQUEST_ID_REUSED."""
        ...

    async def record(
        self, tenant_id: TenantId, idempotency: Idempotency, answer: Mapping[str, JsonValue], *, now: datetime
    ) -> None:
        """Remembers an answer; the first one counts."""
        ...

    async def claim(
        self, tenant_id: TenantId, idempotency: Idempotency, *, now: datetime
    ) -> Mapping[str, JsonValue] | None:
        """None: the request is new, and the caller's, who has its `answer` to give. Else what it was answered.

        Nothing, while whoever claimed it has not answered. Raises REQUEST_ID_REUSED.
        """
        ...

    async def answer(self, tenant_id: TenantId, idempotency: Idempotency, answer: Mapping[str, JsonValue]) -> None:
        """Remembers the answer to a request that the caller has claimed."""
        ...
