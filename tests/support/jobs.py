"""Jobs in a test's own tenant, and what is true of every job."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from memoro_core.clock import SystemClock
from memoro_core.ids import UserId
from memoro_core.jobs.model import (
    Claim,
    Finish,
    Job,
    JobError,
    JobEvent,
    JobKind,
    JobRef,
    JobResult,
    JobState,
    JobUsage,
    Priority,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.run_ports import RunContext, RunStore
from memoro_core.jobs.service import JobsService
from memoro_core.jobs.states import can_move, lost
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.retry_store import PostgresRetryStore
from tests.support.domain import Domain

LEASE = timedelta(seconds=30)
LIMITS = dict.fromkeys(JobKind, 120.0)
"""For how many seconds a lease can be extended."""
MAY_PASS = JobError("PROVIDER_FAILED", "busy", retryable=True)


def now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


async def new_job(domain: Domain, *, priority: Priority | None = None) -> JobRef:
    """A job as a call leaves it, with one PENDING memory."""
    accepted = await domain.memories.create(
        domain.tenant, NewMemory(UserId("alice"), "I moved to Lyon.", priority=priority)
    )
    assert accepted.job is not None
    return JobRef(domain.tenant, accepted.job.id)


def jobs_service(domain: Domain, tail: EventTail) -> JobsService:
    """What callers ask of jobs, over the domain's database."""
    retries = PostgresRetryStore(domain.database, domain.money.holds, domain.money.bounds)
    return JobsService(domain.job_store, retries, tail, SystemClock(), max_attempts=5)


async def claim(store: RunStore, ref: JobRef, *, lease: timedelta = LEASE) -> Claim:
    """Claims a job that waits."""
    (claimed,) = await try_claim(store, [ref], lease=lease)
    return claimed


async def try_claim(
    store: RunStore, refs: Sequence[JobRef], *, at: datetime | None = None, lease: timedelta = LEASE
) -> Sequence[Claim]:
    """Claims those of these jobs that can be claimed."""
    moment = at or now()
    # Of the test's own: what a worker runs decides what it may claim.
    worker_id = f"worker of {refs[0].tenant_id if refs else None}"
    return await store.claim(refs, worker_id=worker_id, now=moment, lease_until=moment + lease, limits=LIMITS)


async def reap(domain: Domain, *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
    """Ends or requeues all runs that are without a lease at that time, as the scheduler does, but backs off never."""
    expired = await domain.run_store.expired(now=now, limit=1000)
    ends = [(one.claim, lost(one.claim.job, timed_out=one.timed_out, retry_at=now)) for one in expired]
    return await domain.run_store.reap(ends, now=now)


async def job_of(domain: Domain, ref: JobRef) -> Job:
    """The job as it is now."""
    job = await domain.job_store.get(ref.tenant_id, ref.job_id)
    assert job is not None
    return job


async def events_of(domain: Domain, ref: JobRef) -> Sequence[JobEvent]:
    """All events, after a look at what must hold for those of any job."""
    events = await domain.job_store.events_after(ref.tenant_id, ref.job_id, 0, limit=1000)
    job = await job_of(domain, ref)
    assert [event.seq for event in events] == list(range(1, job.sequence + 1))
    assert events[-1].state is job.state
    for before, after in itertools.pairwise(events):
        stays = after.state is before.state and after.state in {JobState.RUNNING, JobState.QUEUED}
        assert stays or can_move(before.state, after.state)
    assert sum(event.state.terminal for event in events) == job.state.terminal
    return events


def succeeded(claimed: Claim, *, memories: int = 1) -> Finish:
    """The end of a run that went well."""
    return Finish(JobState.SUCCEEDED, claimed.job.stages, JobUsage(10, 2), result=JobResult(memories))


def retried(claimed: Claim, *, at: datetime | None = None) -> Finish:
    """The end of a run that is tried again."""
    return Finish(JobState.QUEUED, claimed.job.stages, JobUsage(10, 2), error=MAY_PASS, run_at=at or now())


@dataclass
class StubHandler:
    """A `JobHandler` that does what a test says, then ends the job well."""

    store: RunStore
    work: Callable[[RunContext], Awaitable[None]] | None = None
    runs: int = 0
    ended: int = 0

    async def started(self) -> bool:
        """Whether it has been called."""
        return self.runs > 0

    async def run(self, context: RunContext) -> JobEvent:
        self.runs += 1
        await context.report(StageProgress(Stage.EMBED, StageStatus.RUNNING, 0, 1))
        if self.work is not None:
            await self.work(context)
        await context.report(StageProgress(Stage.EMBED, StageStatus.SUCCEEDED, 1, 1))
        event = await self.store.finish(context.claim, context.success(JobResult(1), partial=False), now=now())
        self.ended += 1
        return event


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 45.0) -> None:
    """Waits until it holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)
