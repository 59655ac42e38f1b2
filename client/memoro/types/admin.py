"""What operators see: tenants and keys, workers and queues."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from memoro.enums import DiagnosisStatus, JobKind, Scope, TenantState
from memoro.types.tiers import Limits


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """What a tenant has stored: its memories, and the bytes of their texts and of their metadata as JSON."""

    memories: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tenant:
    """A team or product whose data is walled off from all others."""

    id: str
    name: str
    display_name: str
    tier: str
    state: TenantState
    etag: str
    create_time: datetime | None
    update_time: datetime | None
    limits: Limits = field(default_factory=Limits)
    """Of its own, in the place of its tier's."""
    usage: TenantUsage | None = None
    """What it has stored; told by `tenants.get` only."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of a tenant, without its secret."""

    id: str
    tenant_id: str
    display_name: str
    prefix: str
    scopes: tuple[Scope, ...]
    create_time: datetime | None
    expire_time: datetime | None
    revoke_time: datetime | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key just created, with its secret, which cannot be read again."""

    api_key: ApiKey
    secret: str | None = field(repr=False)
    """None when the call repeats an earlier one, whose answer held it: if that was lost, revoke the key."""


@dataclass(frozen=True, slots=True)
class RotatedApiKey:
    """A key just created, with its secret, which cannot be read again, and the key that it takes the place of."""

    api_key: ApiKey
    secret: str | None = field(repr=False)
    """None when the call repeats an earlier one, whose answer held it: if that was lost, rotate the new key."""
    replaced: ApiKey
    """With the `expire_time` that it now has."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that an operator did or tried, or that was done to a credential."""

    id: str
    event_time: datetime | None
    method: str
    """`AdminService/CreateApiKey`."""
    code: str
    """How it ended: OK, or the name of another status code."""
    reason: str
    """That of a call which failed."""
    actor_tenant_id: str
    actor_api_key_id: str
    """The API key that was shown; "": another kind of credential."""
    actor_subject: str
    """The subject of the token that was shown."""
    tenant_id: str
    """Whom it was about; "": the whole deployment."""
    request: str
    """JSON without texts and secrets, cut to 4 KiB."""
    request_id: str


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job under way, without anything of what it works on."""

    job_id: str
    tenant_id: str
    kind: JobKind
    attempt: int
    start_time: datetime | None
    """When this attempt began."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that runs jobs: `running` of at most `concurrency` at once."""

    id: str
    host: str
    process_id: int
    version: str
    concurrency: int
    running: int
    jobs: tuple[RunningJob, ...]
    """The 100 longest-running ones at most."""
    stopping: bool
    """It ends what it runs, and takes nothing more."""
    start_time: datetime | None
    seen_time: datetime | None
    """When it last gave a sign of life."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How the jobs of all tenants of one tier stand, in numbers of jobs."""

    name: str
    """The tier."""
    waiting: int
    """For a worker, or between two attempts."""
    active: int
    deferred: int
    succeeded_today: int
    failed_today: int
    rate: float
    """Jobs per second that ended in the last minute."""
    oldest_due_time: datetime | None
    """When the longest-waiting job became due; None when none waits."""
    pause_time: datetime | None
    """When the queue was paused; None: it is not."""

    @property
    def paused(self) -> bool:
        """Whether no more jobs of the queue are begun."""
        return self.pause_time is not None


@dataclass(frozen=True, slots=True)
class ProcessingStatus:
    """The workers, by their start, and the queues, one per tier."""

    workers: tuple[Worker, ...]
    queues: tuple[QueueStatus, ...]


@dataclass(frozen=True, slots=True)
class RequeueResult:
    """How many jobs were requeued."""

    requeued: int
    skipped: int
    """Fitted, but nothing of their work is left to do, or the tenant has too few credits."""
    more: bool
    """More jobs fit than the limit allowed."""


@dataclass(frozen=True, slots=True)
class ClearResult:
    """How many waiting jobs were cancelled; `more` fit than the limit allowed."""

    cancelled: int
    more: bool


@dataclass(frozen=True, slots=True)
class TriggerResult:
    """How many jobs now run sooner: `released` were put off, `due` waited for their next attempt."""

    released: int
    due: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found when one thing of the deployment was looked at, and what to do about it."""

    check: str
    status: DiagnosisStatus
    message: str
