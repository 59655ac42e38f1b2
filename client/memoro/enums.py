"""The enumerations of the contract as strings; a value that is newer than this SDK reads as UNKNOWN."""

from __future__ import annotations

from enum import StrEnum


class MemoryStatus(StrEnum):
    """How far a memory has come."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    """Durable and found by its words; no embedding and no graph yet."""
    READY = "READY"
    """Embedded and linked into the graph."""
    FAILED = "FAILED"
    """Its job failed or was cancelled; the text stays and is found by its words."""


class MemoryKind(StrEnum):
    """Where a memory came from."""

    UNKNOWN = "UNKNOWN"
    TEXT = "TEXT"
    MESSAGE = "MESSAGE"


class Role(StrEnum):
    """Who wrote a message."""

    UNKNOWN = "UNKNOWN"
    USER = "USER"
    ASSISTANT = "ASSISTANT"
    SYSTEM = "SYSTEM"
    TOOL = "TOOL"


class Priority(StrEnum):
    """How soon a job runs against the tenant's others."""

    UNKNOWN = "UNKNOWN"
    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


class ProcessingMode(StrEnum):
    """Whether a call answers before the pipeline has run, or after it."""

    ASYNC = "ASYNC"
    SYNC = "SYNC"


class JobKind(StrEnum):
    """What a job does."""

    UNKNOWN = "UNKNOWN"
    MEMORY_ENRICH = "MEMORY_ENRICH"
    MEMORY_RELATE = "MEMORY_RELATE"


class JobState(StrEnum):
    """Where a job stands."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    DEFERRED = "DEFERRED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether a job in this state will never change again."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class Stage(StrEnum):
    """A step of a job."""

    UNKNOWN = "UNKNOWN"
    SCREEN = "SCREEN"
    EMBED = "EMBED"
    EXTRACT = "EXTRACT"
    RESOLVE = "RESOLVE"
    COMMIT = "COMMIT"


class StageStatus(StrEnum):
    """Where a stage stands."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    PARTIAL = "PARTIAL"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    DEFERRED = "DEFERRED"


class Direction(StrEnum):
    """Which way to follow relationships."""

    OUTGOING = "OUTGOING"
    INCOMING = "INCOMING"


class TenantState(StrEnum):
    """Whether a tenant may call."""

    UNKNOWN = "UNKNOWN"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"


class Scope(StrEnum):
    """What a key may do."""

    UNKNOWN = "UNKNOWN"
    READ = "READ"
    WRITE = "WRITE"
    JOBS = "JOBS"
    ADMIN = "ADMIN"
    BILLING = "BILLING"


class WebhookEventType(StrEnum):
    """What an event tells of. Receivers see it in lower case, with a dot: `job.succeeded`."""

    UNKNOWN = "UNKNOWN"
    JOB_SUCCEEDED = "JOB_SUCCEEDED"
    JOB_FAILED = "JOB_FAILED"
    JOB_CANCELLED = "JOB_CANCELLED"
    WEBHOOK_DISABLED = "WEBHOOK_DISABLED"
    BALANCE_LOW = "BALANCE_LOW"
    SPEND_THRESHOLD = "SPEND_THRESHOLD"


class WebhookEndpointState(StrEnum):
    """Whether events go to an endpoint."""

    UNKNOWN = "UNKNOWN"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class LedgerEntryKind(StrEnum):
    """What moved money."""

    UNKNOWN = "UNKNOWN"
    GRANT = "GRANT"
    HOLD = "HOLD"
    """A job was accepted: the most that it may cost was set aside."""
    EXTENSION = "EXTENSION"
    """A job needs more than was set aside."""
    SETTLEMENT = "SETTLEMENT"
    """A job ended: what it cost was taken, the rest given back."""
    RELEASE = "RELEASE"
    """A job ended without cost: all was given back."""
    EXPIRY = "EXPIRY"
    ADJUSTMENT = "ADJUSTMENT"
    """An operator set the balance."""


class LedgerAccount(StrEnum):
    """Where money is: AVAILABLE and HELD are the tenant's own, the others the house's."""

    UNKNOWN = "UNKNOWN"
    AVAILABLE = "AVAILABLE"
    HELD = "HELD"
    GRANTED = "GRANTED"
    REVENUE = "REVENUE"
    PROVIDER_COST = "PROVIDER_COST"
    ROUNDING = "ROUNDING"
    LOSS = "LOSS"
    EXPIRED = "EXPIRED"
    REFUNDED = "REFUNDED"


class AiOperation(StrEnum):
    """What a provider is asked to do."""

    UNKNOWN = "UNKNOWN"
    EMBED = "EMBED"
    EXTRACT = "EXTRACT"


class UsageDimension(StrEnum):
    """What usage is summed up by."""

    DAY = "DAY"
    OPERATION = "OPERATION"
    MODEL = "MODEL"
    USER = "USER"


class BudgetScope(StrEnum):
    """Which jobs a daily budget bounds: all, those of a tenant, or those of each single user of a tenant."""

    UNKNOWN = "UNKNOWN"
    DEPLOYMENT = "DEPLOYMENT"
    TENANT = "TENANT"
    USER = "USER"


class BreakerState(StrEnum):
    """Where a spend breaker stands."""

    UNKNOWN = "UNKNOWN"
    CLOSED = "CLOSED"
    OPEN = "OPEN"
    """The budget is used up: new jobs are DEFERRED."""
    HALF_OPEN = "HALF_OPEN"
    """There is room again: deferred jobs are let go as far as they fit."""


class AlertSeverity(StrEnum):
    """How urgent an alert is."""

    INFO = "INFO"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"


class DiagnosisStatus(StrEnum):
    """How something is that was looked at."""

    UNKNOWN = "UNKNOWN"
    OK = "OK"
    WARNING = "WARNING"
    """It works, but not as it should in production."""
    FAILED = "FAILED"
    """It is dangerous, or does not work."""


class Health(StrEnum):
    """What a server says of itself."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
