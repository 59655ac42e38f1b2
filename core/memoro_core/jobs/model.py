"""Jobs and what happens to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Final

from memoro_core.billing.model import DeferralReason
from memoro_core.ids import JobId, MemoryId, TenantId, UserId
from memoro_core.llm.model import Usage


class JobKind(StrEnum):
    """What a job does."""

    MEMORY_ENRICH = "memory.enrich"
    MEMORY_RELATE = "memory.relate"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    DEFERRED = "DEFERRED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether a job in this state has ended, for good."""
        return self in TERMINAL


TERMINAL: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Priority(IntEnum):
    """How soon a job runs against the tenant's others."""

    LOW = 1
    NORMAL = 2
    HIGH = 3


class Stage(StrEnum):
    """The steps of the enrichment, in order."""

    SCREEN = "SCREEN"
    EMBED = "EMBED"
    EXTRACT = "EXTRACT"
    RESOLVE = "RESOLVE"
    COMMIT = "COMMIT"


class StageStatus(StrEnum):
    """Where a stage stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    PARTIAL = "PARTIAL"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    DEFERRED = "DEFERRED"


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far one stage is, in items."""

    stage: Stage
    status: StageStatus = StageStatus.PENDING
    completed: int = 0
    total: int = 0


PLANNED_STAGES: Final = tuple(StageProgress(stage) for stage in Stage)
"""The stages of a job that has not begun."""
RELATING_STAGES: Final = tuple(stage for stage in PLANNED_STAGES if stage.stage is not Stage.EMBED)
"""The stages of one that only relates memories: they are embedded already."""


@dataclass(frozen=True, slots=True)
class JobError:
    """What an attempt failed of; `reason` is a name of `errors.Reason`."""

    reason: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job brought about, in counts.

    `relate_job_id`: the job that finds the entities and facts later, because the user's limit was reached.
    """

    memories: int = 0
    entities: int = 0
    relationships: int = 0
    superseded: int = 0
    relate_job_id: JobId | None = None


@dataclass(frozen=True, slots=True)
class JobUsage:
    """Tokens that all attempts of a job have used, and what it cost, in micro-credits, once it has ended."""

    input_tokens: int = 0
    output_tokens: int = 0
    charged: int = 0

    def __add__(self, other: JobUsage) -> JobUsage:
        return JobUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.charged + other.charged,
        )


@dataclass(frozen=True, slots=True)
class FreeCall:
    """A provider call that cost nothing, to be written down with the end of its run. `day` is the one it counts for."""

    usage: Usage
    day: date
    started_at: datetime
    ended_at: datetime
    failed: bool = False


@dataclass(frozen=True, slots=True)
class JobRef:
    """Names a job across tenants: what a hint carries."""

    tenant_id: TenantId
    job_id: JobId


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row has it.

    `sequence` is the number of its latest event; `retry_of` the ended job whose work it does again; `trace_parent` the
    W3C trace context of the call that made it. `cost_bound` is the most that it may cost, as reckoned when it was
    accepted, in micro-credits; `deferral_reason` why it was put off last, if it was for money or for a limit.
    """

    id: JobId
    kind: JobKind
    state: JobState
    priority: Priority
    user_id: UserId
    memory_ids: Sequence[MemoryId]
    stages: Sequence[StageProgress]
    attempt: int
    max_attempts: int
    run_at: datetime
    sequence: int
    created_at: datetime
    partial: bool = False
    cancel_requested: bool = False
    error: JobError | None = None
    result: JobResult | None = None
    usage: JobUsage = field(default_factory=JobUsage)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    retry_of: JobId | None = None
    trace_parent: str | None = None
    cost_bound: int = 0
    deferral_reason: DeferralReason | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A change of a job, numbered from 1 without gaps. Fields that the change does not touch are None."""

    seq: int
    state: JobState
    attempt: int
    at: datetime
    stage: StageProgress | None = None
    error: JobError | None = None
    run_at: datetime | None = None
    result: JobResult | None = None
    partial: bool = False
    usage: JobUsage | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a job, until another claim raises its lease: every write of the run names it."""

    ref: JobRef
    lease: int
    job: Job


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list; all that is set must hold."""

    states: Sequence[JobState] = ()
    kinds: Sequence[JobKind] = ()
    user_id: UserId | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """How a run ends: what its last write says. `state` is terminal, or QUEUED with a `run_at` for another attempt.

    DEFERRED, with a `run_at` and a `deferral_reason`, says that the job could not be done yet: the attempt does not
    count. `free_calls` are those of the run's calls that cost nothing; the others have been written down already.
    """

    state: JobState
    stages: Sequence[StageProgress]
    usage: JobUsage
    partial: bool = False
    result: JobResult | None = None
    error: JobError | None = None
    run_at: datetime | None = None
    deferral_reason: DeferralReason | None = None
    free_calls: Sequence[FreeCall] = ()
