"""What goes in and comes out of the client: plain frozen dataclasses. Times are aware UTC datetimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from memoro.enums import (
    DeliveryState,
    JobKind,
    JobState,
    MemoryKind,
    MemoryStatus,
    Priority,
    Role,
    Scope,
    Stage,
    StageStatus,
    TenantState,
    WebhookEndpointState,
    WebhookEventType,
)

J_co = TypeVar("J_co", covariant=True)


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A text to store with `memories.create_batch`; the fields are those of `memories.create`."""

    user_id: str
    text: str
    metadata: Mapping[str, Any] | None = None
    occurred_at: datetime | None = None
    priority: Priority | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation to store."""

    text: str
    role: Role | None = None
    speaker: str = ""
    occurred_at: datetime | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class MemoryFilter:
    """Which memories fit: all that is set must hold, any of several kinds or statuses will do."""

    kinds: tuple[MemoryKind, ...] = ()
    statuses: tuple[MemoryStatus, ...] = ()
    conversation_id: str = ""
    metadata: Mapping[str, Any] | None = None
    """Keys and the values that the memory's own metadata must hold for them."""
    occurred_from: datetime | None = None
    """Said at or after this time."""
    occurred_until: datetime | None = None
    """Said before this time."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Something a user said or wrote, word for word."""

    id: str
    user_id: str
    kind: MemoryKind
    text: str
    metadata: dict[str, Any]
    status: MemoryStatus
    conversation_id: str
    position: int
    role: Role | None
    speaker: str
    occurred_at: datetime | None
    job_id: str
    etag: str
    create_time: datetime | None
    update_time: datetime | None


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
    """How many things a job brought about."""

    memories: int = 0
    entities: int = 0
    relationships: int = 0
    superseded: int = 0


@dataclass(frozen=True, slots=True)
class JobUsage:
    """Tokens that a job has used, as the providers counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


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
    """What `jobs.watch` takes to go on after this update, in another process too."""
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
    """For a job queued again: when it will run."""
    event_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class MemoryHandle(Generic[J_co]):
    """A memory as stored, and a handle on the job that enriches it."""

    memory: Memory
    job: J_co


@dataclass(frozen=True, slots=True)
class ConversationHandle(Generic[J_co]):
    """The messages as stored, in order, and a handle on the one job that enriches them."""

    memories: tuple[Memory, ...]
    job: J_co


@dataclass(frozen=True, slots=True)
class ArmScore:
    """What one arm of the search (`vector`, `lexical`, …) adds to a hit's score."""

    arm: str
    raw: float
    rank: int
    contribution: float


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A memory that bears on the question; `score` is from 0 to 1, comparable within one answer only."""

    memory: Memory
    score: float
    explanation: tuple[ArmScore, ...] = ()
    """Filled when asked for; the contributions add up to the score."""


@dataclass(frozen=True, slots=True)
class Entity:
    """Someone or something that a user's memories tell of."""

    id: str
    user_id: str
    type: str
    name: str
    aliases: tuple[str, ...]
    mention_count: int
    create_time: datetime | None
    update_time: datetime | None


@dataclass(frozen=True, slots=True)
class Relationship:
    """A fact between two entities: source PREDICATE target."""

    id: str
    source_entity_id: str
    source_name: str
    predicate: str
    target_entity_id: str
    target_name: str
    confidence: float
    memory_ids: tuple[str, ...]
    valid_from: datetime | None
    valid_to: datetime | None
    superseded_by: str
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class EntityFacts:
    """An entity, its facts (newest first, 100 at most) and the memories that mention it (20 at most)."""

    entity: Entity
    relationships: tuple[Relationship, ...]
    memory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """An entity that a walk reached, and in how many steps."""

    entity: Entity
    depth: int


@dataclass(frozen=True, slots=True)
class Subgraph:
    """The part of the graph that a walk reached; `truncated` when a limit cut it short."""

    nodes: tuple[GraphNode, ...]
    edges: tuple[Relationship, ...]
    memories: tuple[Memory, ...]
    truncated: bool


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
class WebhookEndpoint:
    """A URL that is told of the tenant's events, without its secret. No `event_types` are all of them."""

    id: str
    url: str
    event_types: tuple[WebhookEventType, ...]
    description: str
    state: WebhookEndpointState
    previous_secret_expire_time: datetime | None
    failing_since: datetime | None
    disable_time: datetime | None
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class NewWebhookSecret:
    """An endpoint with the secret just made for it, which cannot be read again."""

    endpoint: WebhookEndpoint
    secret: str | None = field(repr=False)
    """None when the call repeats an earlier one, whose answer held it: if that was lost, rotate it."""


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """One event on its way to one endpoint."""

    event_id: str
    endpoint_id: str
    event_type: WebhookEventType
    state: DeliveryState
    attempt: int
    response_status: int
    """The HTTP status of the latest attempt; 0: there was no answer."""
    error: str
    """What the latest attempt failed of; empty: it did not."""
    create_time: datetime | None
    attempt_time: datetime | None
    next_attempt_time: datetime | None
    end_time: datetime | None
