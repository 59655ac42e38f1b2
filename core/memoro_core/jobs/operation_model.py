"""What operators see of workers and queues, which jobs they mean, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobKind, JobRef, JobState
from memoro_core.tenancy.model import TierName

MAX_BATCH_JOBS: Final = 500
MAX_BATCH_MEMORIES: Final = 5_000
"""One transaction of a bulk operation changes so many jobs at most, and so many of their memories beside them."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job under way. `started_at` is when this attempt began."""

    ref: JobRef
    kind: JobKind
    attempt: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A process that runs jobs, as it last told of itself. `jobs` are the longest-running of the `running` ones."""

    id: str
    host: str
    process_id: int
    version: str
    concurrency: int
    running: int
    jobs: Sequence[RunningJob]
    stopping: bool
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The jobs of a tier's tenants, in counts. `rate` is of jobs that ended in the last minute, by the second."""

    tier: TierName
    waiting: int
    active: int
    deferred: int
    succeeded_today: int
    failed_today: int
    rate: float
    oldest_due_at: datetime | None
    paused_at: datetime | None


@dataclass(frozen=True, slots=True)
class RequeueFilter:
    """Which ended jobs to do again; all that is set must hold. `reason` is that of the job's error."""

    states: Sequence[JobState] = (JobState.FAILED,)
    tenant_id: TenantId | None = None
    kinds: Sequence[JobKind] = ()
    reason: str | None = None
    ended_from: datetime | None = None
    ended_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClearFilter:
    """Which waiting jobs to cancel; all that is set must hold. `deferred`: those that are put off too."""

    tier: TierName | None = None
    tenant_id: TenantId | None = None
    kinds: Sequence[JobKind] = ()
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job that fits a filter, with the number of its memories; `ended_at` is None for one that waits."""

    ref: JobRef
    memories: int
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many jobs were retried, how many had no work left to do or could not be paid, and whether more fit."""

    requeued: int
    skipped: int
    more: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """How many jobs were cancelled, and whether more fit."""

    cancelled: int
    more: bool


@dataclass(frozen=True, slots=True)
class Triggered:
    """How many jobs were put off and now wait, and how many waited for their next attempt and are due now."""

    released: int
    due: int


def batches(candidates: Sequence[Candidate]) -> Iterator[tuple[TenantId, Sequence[JobId]]]:
    """The jobs tenant by tenant, in their order, cut into what one transaction may change.

    A batch has at most MAX_BATCH_JOBS jobs, and MAX_BATCH_MEMORIES memories unless it is one job alone.
    """
    by_tenant: dict[TenantId, list[Candidate]] = {}
    for candidate in candidates:
        by_tenant.setdefault(candidate.ref.tenant_id, []).append(candidate)
    for tenant_id, of_tenant in by_tenant.items():
        batch: list[JobId] = []
        memories = 0
        for candidate in of_tenant:
            memories += candidate.memories
            if batch and (len(batch) == MAX_BATCH_JOBS or memories > MAX_BATCH_MEMORIES):
                yield tenant_id, batch
                batch, memories = [], candidate.memories
            batch.append(candidate.ref.job_id)
        yield tenant_id, batch
