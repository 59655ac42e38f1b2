"""One tenant's jobs in the real database, at a time of the test's own, and everything that may happen to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from memoro_core.errors import MemoroError, Reason
from memoro_core.ids import ConversationId, JobId, MemoryId, TenantId, UserId
from memoro_core.jobs.model import (
    PLANNED_STAGES,
    Claim,
    Finish,
    Job,
    JobEvent,
    JobKind,
    JobRef,
    JobState,
    StageProgress,
)
from memoro_core.jobs.operation_model import ClearFilter, RequeueFilter
from memoro_core.jobs.run_ports import Expired, LeaseLost
from memoro_core.jobs.scheduling_ports import Allotment
from memoro_core.jobs.states import lost
from memoro_core.memory.model import Accepted, MemoryPatch, MemoryStatus, NewConversation, NewMemory, NewMessage
from memoro_core.memory.priority import PriorityRule
from memoro_core.memory.service import MemoryService
from memoro_core.postgres.database import Database
from memoro_core.postgres.deferral_store import PostgresDeferralStore
from memoro_core.postgres.job_rows import event_of, job_of
from memoro_core.postgres.job_store import PostgresJobStore
from memoro_core.postgres.lease_store import PostgresLeaseStore
from memoro_core.postgres.memory_store import PostgresMemoryStore
from memoro_core.postgres.queue_store import PostgresQueueStore
from memoro_core.postgres.retry_store import PostgresRetryStore
from memoro_core.postgres.run_store import PostgresRunStore
from memoro_core.postgres.scheduling_store import PostgresSchedulingStore
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.tenancy.model import FREE_TIER
from memoro_core.tenancy.service import TenancyService
from tests.support.deferrals import deferrals_of
from tests.support.domain import Hints, fresh_name
from tests.support.job_model import JobRecord, Memories
from tests.support.pricing import Money

MAX_ATTEMPTS: Final = 3
RUN_LIMIT: Final = 40.0
"""For how many seconds a lease can be extended."""
MANY: Final = 1000
Told = Sequence[tuple[JobId, JobEvent]]
"""Events as whoever caused them was told of them."""


@dataclass
class SetClock:
    """Shows what it is set to."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment


@dataclass
class JobWorld:
    """What callers, workers, the scheduler and operators do to one tenant's jobs, each at the clock's time."""

    tenant: TenantId
    clock: SetClock
    database: Database
    memories: MemoryService
    jobs: PostgresJobStore
    runs: PostgresRunStore
    leases: PostgresLeaseStore
    scheduling: PostgresSchedulingStore
    deferrals: PostgresDeferralStore
    queues: PostgresQueueStore
    retries: PostgresRetryStore
    claims: dict[tuple[JobId, int], Claim] = field(default_factory=dict)
    """Every claim that there ever was."""

    @property
    def now(self) -> datetime:
        return self.clock.moment

    def refs(self, job_ids: Sequence[JobId]) -> Sequence[JobRef]:
        return [JobRef(self.tenant, job_id) for job_id in job_ids]

    async def accept(self, user_id: UserId, messages: int) -> Job:
        """One memory, or the messages of a conversation."""
        accepted = (
            await self.memories.add_conversation(
                self.tenant, NewConversation(user_id, ConversationId("c"), [NewMessage("Hello.")] * messages)
            )
            if messages
            else await self.memories.create(self.tenant, NewMemory(user_id, "I moved to Lyon."))
        )
        return _job(accepted)

    async def edit(self, memory_id: MemoryId) -> Job:
        """A memory gets another text, and with it another job."""
        return _job(await self.memories.update(self.tenant, memory_id, MemoryPatch(text=fresh_name())))

    async def claim(self, job_ids: Sequence[JobId], worker_id: str, lease: timedelta) -> Sequence[Claim]:
        claims = await self.runs.claim(
            self.refs(job_ids),
            worker_id=worker_id,
            now=self.now,
            lease_until=self.now + lease,
            limits=dict.fromkeys(JobKind, RUN_LIMIT),
        )
        for claim in claims:
            key = (claim.ref.job_id, claim.lease)
            assert key not in self.claims, "one lease, two claims"
            assert claim.job.stages == PLANNED_STAGES, "an attempt begins with its first stage"
            self.claims[key] = claim
        return claims

    async def report(
        self, claim: Claim, stages: Sequence[StageProgress], progress: StageProgress
    ) -> tuple[JobEvent, bool] | None:
        """Its event and whether it is asked to cancel; None when the claim was stale."""
        try:
            return await self.runs.report(claim, stages, progress, now=self.now)
        except LeaseLost:
            return None

    async def finish(self, claim: Claim, finish: Finish) -> Told:
        """Nothing when the claim was stale."""
        try:
            return [(claim.ref.job_id, await self.runs.finish(claim, finish, now=self.now))]
        except LeaseLost:
            return []

    async def finish_at_once(self, ends: Sequence[tuple[Claim, Finish]]) -> Sequence[Told]:
        """So that all go into one statement."""
        return await asyncio.gather(*(self.finish(claim, finish) for claim, finish in ends))

    async def give_back(self, claims: Sequence[Claim]) -> Told:
        return _told(await self.runs.release(claims, now=self.now))

    async def expired(self) -> Sequence[Expired]:
        found = await self.runs.expired(now=self.now, limit=MANY)
        return [one for one in found if one.claim.ref.tenant_id == self.tenant]

    async def reap(self, expired: Sequence[Expired], *, retry_at: datetime) -> Told:
        ends = [(one.claim, end_of(one, retry_at=retry_at)) for one in expired]
        return _told(await self.runs.reap(ends, now=self.now))

    async def cancel(self, job_id: JobId) -> Told:
        answer = await self.jobs.cancel(self.tenant, job_id, now=self.now)
        assert answer is not None
        job, event = answer
        assert job.state.terminal or job.cancel_requested
        return [] if event is None else [(job_id, event)]

    async def clear(self, *, deferred: bool) -> Told:
        found = await self.queues.waiting(ClearFilter(tenant_id=self.tenant, deferred=deferred), limit=MANY)
        job_ids = [one.ref.job_id for one in found]
        return _told(await self.queues.cancel_all(self.tenant, job_ids, deferred=deferred, now=self.now))

    async def defer(self, job_ids: Sequence[JobId], until: datetime) -> Told:
        return _told(await self.deferrals.defer(self.tenant, job_ids, until=until, now=self.now))

    async def let_go(self, *, due_only: bool, limit: int = MANY) -> Told:
        return _told(await self.deferrals.release(now=self.now, limit=limit, tenant_id=self.tenant, due_only=due_only))

    async def hasten(self, limit: int = MANY) -> Told:
        return _told(await self.deferrals.hasten(now=self.now, limit=limit, tenant_id=self.tenant))

    async def retry(self, job_id: JobId) -> Job | None:
        """None when there was nothing to retry."""
        try:
            made = await self.retries.retry(
                self.tenant, job_id, max_attempts=MAX_ATTEMPTS, idempotency=None, now=self.now
            )
        except MemoroError as refused:
            if refused.reason != Reason.JOB_NOT_RETRYABLE:
                raise
            return None
        assert isinstance(made, tuple)
        job, event = made
        assert (event.seq, event.state) == (1, JobState.QUEUED)
        return job

    async def get(self, job_id: JobId) -> Job:
        job = await self.jobs.get(self.tenant, job_id)
        assert job is not None
        return job

    async def requeue(self, states: Sequence[JobState]) -> tuple[Sequence[JobId], int]:
        """The new jobs, and how many of the old ones had no work left to do."""
        found = await self.retries.not_retried(RequeueFilter(states, tenant_id=self.tenant), after=None, limit=MANY)
        job_ids = [one.ref.job_id for one in found]
        batch = await self.retries.retry_all(self.tenant, job_ids, max_attempts=MAX_ATTEMPTS, now=self.now)
        return [ref.job_id for ref, _ in batch.made], batch.skipped

    async def hint(self, most: int) -> Sequence[JobId]:
        """The scheduler's choice."""
        waiting = await self.scheduling.tenants_waiting(now=self.now, limit=MANY)
        room = sum(one.jobs + one.released for one in waiting if one.tenant_id == self.tenant)
        if not room:
            return []
        choices = await self.scheduling.hint([Allotment(self.tenant, min(most, room), UserId(""))], now=self.now)
        return [ref.job_id for ref in choices[self.tenant].jobs]

    async def read(self) -> tuple[dict[JobId, JobRecord], Memories]:
        """All that there is, as it is."""
        async with self.database.tenant_tx(self.tenant) as connection:
            rows = await connection.fetch("SELECT * FROM jobs ORDER BY job_id")
            events = await connection.fetch("SELECT job_id, seq, event FROM job_events ORDER BY job_id, seq")
            memories = await connection.fetch("SELECT memory_id, status, job_id FROM memories")
        jobs = {row["job_id"]: _record(row) for row in rows}
        for row in events:
            event = event_of(row["event"])
            assert event.seq == row["seq"]
            jobs[row["job_id"]].events.append(event)
        return jobs, {row["memory_id"]: (MemoryStatus(row["status"]), row["job_id"]) for row in memories}

    async def close(self) -> None:
        """Leaves no job for others to find, and the queue running."""
        await self.memories.close()
        await self.queues.resume(FREE_TIER)
        async with self.database.system_tx() as connection:
            await connection.execute("DELETE FROM job_events WHERE tenant_id = $1", self.tenant)
            await connection.execute("DELETE FROM jobs WHERE tenant_id = $1", self.tenant)


@asynccontextmanager
async def open_job_world(database: Database, now: datetime) -> AsyncIterator[JobWorld]:
    """A new tenant of the tier with the smallest caps, whose jobs are gone at the end."""
    clock, hints, money = SetClock(now), Hints(), Money(database)
    tenants = TenancyService(PostgresTenancyStore(database), clock)
    tenant = await tenants.create_tenant(None, fresh_name(), "", FREE_TIER)
    jobs = PostgresJobStore(database, money.holds)
    world = JobWorld(
        tenant.id,
        clock,
        database,
        MemoryService(
            PostgresMemoryStore(database, money.holds),
            jobs,
            hints,
            hints,
            clock,
            money.bounds,
            priorities=PriorityRule(),
            max_attempts=MAX_ATTEMPTS,
        ),
        jobs,
        PostgresRunStore(database, money.holds),
        PostgresLeaseStore(database),
        PostgresSchedulingStore(database),
        deferrals_of(database),
        PostgresQueueStore(database, money.holds),
        PostgresRetryStore(database, money.holds, money.bounds),
    )
    try:
        yield world
    finally:
        await world.close()


def end_of(expired: Expired, *, retry_at: datetime) -> Finish:
    """How the reaper ends a run."""
    return lost(expired.claim.job, timed_out=expired.timed_out, retry_at=retry_at)


def _job(accepted: Accepted) -> Job:
    assert accepted.job is not None
    return accepted.job


def _told(events: Sequence[tuple[JobRef, JobEvent]]) -> Told:
    return [(ref.job_id, event) for ref, event in events]


def _record(row: Any) -> JobRecord:
    job = job_of(row)
    return JobRecord(
        job.id,
        job.user_id,
        job.memory_ids,
        job.priority,
        job.max_attempts,
        job.created_at,
        job.run_at,
        job.state,
        job.attempt,
        row["run_lease"],
        job.sequence,
        job.cancel_requested,
        row["hinted_at"],
        row["deferred_at"],
        row["lease_expires_at"],
        row["run_deadline"],
        row["worker_id"],
        job.started_at,
        job.ended_at,
        job.stages,
        job.partial,
        job.error,
        job.result,
        job.usage,
        job.retry_of,
    )
