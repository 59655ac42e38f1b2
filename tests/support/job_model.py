"""What jobs are to do, in plain Python: the state machine's rules, against which the database is held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from memoro_core.ids import JobId, MemoryId, UserId
from memoro_core.jobs.model import (
    PLANNED_STAGES,
    Finish,
    Job,
    JobError,
    JobEvent,
    JobResult,
    JobState,
    JobUsage,
    Priority,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.states import TRANSITIONS, cancelled
from memoro_core.memory.model import MemoryStatus

CLOCK_SKEW: Final = timedelta(seconds=1)
"""A job may be claimed so much before it is due, since clocks differ."""
Memories = dict[MemoryId, tuple[MemoryStatus, JobId]]
"""How far each memory is, and whose it is."""


@dataclass(slots=True)
class JobRecord:
    """All of a job: every column that its moves touch, and its events."""

    id: JobId
    user_id: UserId
    memory_ids: Sequence[MemoryId]
    priority: Priority
    max_attempts: int
    created_at: datetime
    run_at: datetime
    state: JobState = JobState.QUEUED
    attempt: int = 0
    lease: int = 0
    last_seq: int = 1
    cancel_requested: bool = False
    hinted_at: datetime | None = None
    deferred_at: datetime | None = None
    lease_expires_at: datetime | None = None
    run_deadline: datetime | None = None
    worker_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stages: Sequence[StageProgress] = PLANNED_STAGES
    partial: bool = False
    error: JobError | None = None
    result: JobResult | None = None
    usage: JobUsage = field(default_factory=JobUsage)
    retry_of: JobId | None = None
    events: list[JobEvent] = field(default_factory=list)

    @property
    def in_flight(self) -> bool:
        """Whether it counts against the caps."""
        return self.state is JobState.RUNNING or (self.state is JobState.QUEUED and self.hinted_at is not None)

    @property
    def rank_at(self) -> datetime:
        """Its place among those that wait: the earliest first."""
        late = 600 if self.deferred_at else (Priority.HIGH - self.priority) * 30
        return self.run_at + timedelta(seconds=late)

    def holds(self, lease: int) -> bool:
        """Whether a claim of this number is the one that runs it."""
        return self.state is JobState.RUNNING and self.lease == lease

    def move(
        self,
        state: JobState,
        now: datetime,
        *,
        attempt: int | None = None,
        stage: StageProgress | None = None,
        error: JobError | None = None,
        run_at: datetime | None = None,
        result: JobResult | None = None,
        partial: bool = False,
        usage: JobUsage | None = None,
    ) -> None:
        """Goes to a state, or stays in it, and tells of it."""
        assert allowed(self.state, state), (self.state, state)
        self.state = state
        self.attempt = self.attempt if attempt is None else attempt
        self.run_at = run_at or self.run_at
        self.last_seq += 1
        self.ended_at = now if state.terminal else None
        self.events.append(
            JobEvent(self.last_seq, state, self.attempt, now, stage, error, run_at, result, partial, usage)
        )


def allowed(old: JobState, new: JobState) -> bool:
    """Whether one event may follow another: a move, progress of a run, or another time for a job that waits."""
    return new in TRANSITIONS[old] or (old is new and new in {JobState.RUNNING, JobState.QUEUED})


@dataclass
class JobsModel:
    """The jobs and memories of one tenant, and the queue that they wait in."""

    tenant_cap: int
    user_cap: int
    jobs: dict[JobId, JobRecord] = field(default_factory=dict)
    memories: Memories = field(default_factory=dict)
    paused: bool = False

    def accept(self, job: Job, *, hinted: bool) -> None:
        """A new job, which its memories now belong to."""
        self.jobs[job.id] = JobRecord(
            job.id,
            job.user_id,
            tuple(job.memory_ids),
            job.priority,
            job.max_attempts,
            job.created_at,
            job.created_at,
            hinted_at=job.created_at if hinted else None,
            retry_of=job.retry_of,
            events=[JobEvent(1, JobState.QUEUED, 0, job.created_at, run_at=job.created_at)],
        )
        self.memories |= dict.fromkeys(job.memory_ids, (MemoryStatus.PENDING, job.id))

    def has_room(self, user_id: UserId) -> bool:
        """Whether a new job of this user is hinted at once."""
        busy = [job for job in self.jobs.values() if job.in_flight]
        of_user = sum(job.user_id == user_id for job in busy)
        return not self.paused and len(busy) < self.tenant_cap and of_user < self.user_cap

    def claim(
        self, job_ids: Iterable[JobId], worker_id: str, *, now: datetime, lease_until: datetime, deadline: datetime
    ) -> Sequence[JobId]:
        """Begins those that may; the others that could begin lose their hints."""
        begun = []
        for job in (self.jobs[job_id] for job_id in dict.fromkeys(job_ids)):
            due = job.state is JobState.QUEUED and job.run_at <= now + CLOCK_SKEW
            if not due or job.cancel_requested or job.attempt >= job.max_attempts:
                continue
            job.hinted_at = None
            running = [other for other in self.jobs.values() if other.state is JobState.RUNNING]
            of_user = sum(other.user_id == job.user_id for other in running)
            if self.paused or len(running) >= self.tenant_cap or of_user >= self.user_cap:
                continue
            job.stages = tuple(StageProgress(stage.stage) for stage in job.stages)
            job.lease += 1
            job.lease_expires_at, job.run_deadline = lease_until, deadline
            job.worker_id, job.started_at = worker_id, now
            job.move(JobState.RUNNING, now, attempt=job.attempt + 1)
            begun.append(job.id)
        return begun

    def report(
        self, job_id: JobId, lease: int, stages: Sequence[StageProgress], progress: StageProgress, now: datetime
    ) -> bool:
        """Whether the claim held and its progress stands."""
        job = self.jobs[job_id]
        if job.holds(lease):
            job.stages = tuple(stages)
            job.move(JobState.RUNNING, now, stage=progress)
            return True
        return False

    def finish(self, job_id: JobId, lease: int, finish: Finish, now: datetime) -> bool:
        """Whether the claim held and the run ended so; who is asked to cancel is not tried again."""
        job = self.jobs[job_id]
        if not job.holds(lease):
            return False
        if finish.state is JobState.QUEUED and job.cancel_requested:
            finish = cancelled(stages=finish.stages, usage=finish.usage)
        job.stages, job.partial, job.usage = tuple(finish.stages), finish.partial, finish.usage
        job.error, job.result, job.lease_expires_at = finish.error, finish.result, None
        committed = [one for one in finish.stages if (one.stage, one.status) == (Stage.COMMIT, StageStatus.SUCCEEDED)]
        job.move(
            finish.state,
            now,
            stage=committed[0] if committed else None,
            error=finish.error,
            run_at=finish.run_at,
            result=finish.result,
            partial=finish.partial,
            usage=finish.usage,
        )
        self._leave_memories(job)
        return True

    def release(self, job_id: JobId, lease: int, now: datetime) -> bool:
        """Whether the claim held and was given up."""
        job = self.jobs[job_id]
        if not job.holds(lease) or job.cancel_requested:
            return False
        job.lease_expires_at = None
        job.move(JobState.QUEUED, now, attempt=job.attempt - 1, run_at=now)
        return True

    def extend(self, job_id: JobId, lease: int, until: datetime) -> bool:
        """Whether the claim held; it now lasts until then, or its deadline."""
        job = self.jobs[job_id]
        if job.holds(lease):
            assert job.run_deadline is not None
            job.lease_expires_at = min(until, job.run_deadline)
            return True
        return False

    def expired(self, now: datetime) -> Mapping[JobId, bool]:
        """Runs without a lease, each with whether it took too long."""
        return {
            job.id: job.run_deadline is not None and job.run_deadline <= now
            for job in self.jobs.values()
            if job.lease_expires_at is not None and job.lease_expires_at < now
        }

    def cancel(self, job_id: JobId, now: datetime) -> bool:
        """Whether the job ended of it, at once."""
        job = self.jobs[job_id]
        if job.state.terminal:
            return False
        job.cancel_requested = True
        if job.state is JobState.RUNNING:
            return False
        job.error = None
        job.move(JobState.CANCELLED, now, usage=job.usage)
        self._leave_memories(job)
        return True

    def defer(self, job_ids: Iterable[JobId], until: datetime, now: datetime) -> Sequence[JobId]:
        """Puts off those that wait."""
        waiting = [job for job in map(self.jobs.__getitem__, dict.fromkeys(job_ids)) if job.state is JobState.QUEUED]
        for job in waiting:
            job.hinted_at, job.deferred_at = None, now
            job.move(JobState.DEFERRED, now, run_at=until)
        return [job.id for job in waiting]

    def deferred(self, until: datetime) -> Sequence[JobId]:
        """Jobs that are put off until then or before."""
        return [job.id for job in self.jobs.values() if job.state is JobState.DEFERRED and job.run_at <= until]

    def between_attempts(self, now: datetime) -> Sequence[JobId]:
        """Jobs that wait for a later time."""
        return [
            job.id
            for job in self.jobs.values()
            if job.state is JobState.QUEUED and job.hinted_at is None and job.run_at > now
        ]

    def let_go(self, job_id: JobId, now: datetime) -> None:
        """A job that was put off, or waits for its time, is due."""
        job = self.jobs[job_id]
        if job.state is JobState.DEFERRED:
            job.hinted_at = None
        job.move(JobState.QUEUED, now, run_at=now)

    def waiting(self, now: datetime) -> Sequence[JobRecord]:
        """Jobs that are due and wait for their turn, in its order."""
        due = [
            job
            for job in self.jobs.values()
            if job.state is JobState.QUEUED and job.hinted_at is None and job.run_at <= now
        ]
        return sorted(due, key=lambda job: job.rank_at)

    def work_left(self, job_id: JobId) -> Sequence[MemoryId]:
        """What a retry of an ended job would do: its own memories that it left FAILED. Empty: it can't be retried."""
        job = self.jobs[job_id]
        if job.state not in {JobState.FAILED, JobState.CANCELLED} or self.retried(job_id):
            return []
        mine = (MemoryStatus.FAILED, job_id)
        return [memory_id for memory_id in job.memory_ids if self.memories[memory_id] == mine]

    def retried(self, job_id: JobId) -> bool:
        """Whether another job does its work again."""
        return any(job.retry_of == job_id for job in self.jobs.values())

    def _leave_memories(self, job: JobRecord) -> None:
        if job.state in {JobState.FAILED, JobState.CANCELLED}:
            for memory_id in job.memory_ids:
                if self.memories[memory_id] == (MemoryStatus.PENDING, job.id):
                    self.memories[memory_id] = (MemoryStatus.FAILED, job.id)
