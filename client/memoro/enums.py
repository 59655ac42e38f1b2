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


class Health(StrEnum):
    """What a server says of itself."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
