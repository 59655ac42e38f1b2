"""Jobs, and how they change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from memoro.enums import JobKind, JobState, Priority, Stage, StageStatus


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far one stage of a job is: `completed` of `total` items."""

    stage: Stage
    status: StageStatus
    completed: int
    total: int


@dataclass(frozen=True, slots=True)
class JobError:
    """What a job's last attempt failed of."""

    reason: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class JobResult:
    """How many things a job brought about.

    `relate_job_id` names the job that finds the entities and facts later, because those of the user were found for as
    many jobs as an hour allows; empty: there is none.
    """

    memories: int = 0
    entities: int = 0
    relationships: int = 0
    superseded: int = 0
    relate_job_id: str = ""


@dataclass(frozen=True, slots=True)
class JobUsage:
    """Tokens that a job has used, as the providers counted them, and what it has cost."""

    input_tokens: int = 0
    output_tokens: int = 0
    charged: int = 0
    """In micro-credits; 0 until the job has ended."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work that a call has set going, as it stood at `sequence`."""

    id: str
    kind: JobKind
    state: JobState
    priority: Priority | None
    user_id: str
    memory_ids: tuple[str, ...]
    stages: tuple[StageProgress, ...]
    partial: bool
    """Succeeded, but not every stage is whole."""
    attempt: int
    max_attempts: int
    error: JobError | None
    result: JobResult | None
    usage: JobUsage
    cancel_requested: bool
    sequence: int
    create_time: datetime | None
    run_time: datetime | None
    start_time: datetime | None
    end_time: datetime | None
    retry_of: str = ""
    """The job whose work this one takes up again; empty for a job that no retry made."""
    cost_bound: int = 0
    """The most that it may cost, in micro-credits: so much is set aside until it has ended, unless it is DEFERRED."""

    @property
    def waiting_for_retry(self) -> bool:
        """Whether it stands between two attempts: `error` is that of the last; not before `run_time` comes the next."""
        return self.state is JobState.QUEUED and self.attempt > 0


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """A change of a job.

    The first update of a watch is the job as it stands, in `snapshot`; so is the one that follows when the server no
    longer has the events in between. The others tell what changed, and leave the rest unset.
    """

    job_id: str
    sequence: int
    """The number of the change within the job; it grows from update to update."""
    resume_token: str = field(repr=False)
    """What `jobs.watch`, or `jobs.watch_all`, takes to go on after this update, in another process too."""
    state: JobState
    attempt: int
    snapshot: Job | None = None
    stage: StageProgress | None = None
    """The stage that moved; None for a change of state."""
    error: JobError | None = None
    result: JobResult | None = None
    partial: bool = False
    usage: JobUsage | None = None
    run_time: datetime | None = None
    """For a job queued again or put off: when it will run."""
    event_time: datetime | None = None
    after_gap: bool = False
    """Of `jobs.watch_all`: the server no longer had the events before this update, so ends of jobs may be missing."""
