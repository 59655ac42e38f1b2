"""Memories, and what callers ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue

from memoro_core.ids import ConversationId, JobId, MemoryId, UserId
from memoro_core.jobs.model import Job, Priority

Metadata = Mapping[str, JsonValue]
"""The caller's own data: a JSON object."""


class MemoryKind(StrEnum):
    """Where a memory came from."""

    TEXT = "TEXT"
    MESSAGE = "MESSAGE"


class MemoryStatus(StrEnum):
    """How far a memory has come."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


class Role(StrEnum):
    """Who wrote a message."""

    USER = "USER"
    ASSISTANT = "ASSISTANT"
    SYSTEM = "SYSTEM"
    TOOL = "TOOL"


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory as its row has it, without its embedding."""

    id: MemoryId
    user_id: UserId
    kind: MemoryKind
    text: str
    metadata: Metadata
    status: MemoryStatus
    conversation_id: ConversationId | None
    position: int
    role: Role | None
    speaker: str | None
    occurred_at: datetime
    job_id: JobId
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewMemory:
    """A text to remember. `occurred_at` None is now; `priority` None lets the service choose."""

    user_id: UserId
    text: str
    metadata: Metadata = field(default_factory=dict)
    occurred_at: datetime | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """One message of a conversation to remember."""

    text: str
    role: Role | None = None
    speaker: str | None = None
    occurred_at: datetime | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewConversation:
    """Messages to add to a conversation, in order."""

    user_id: UserId
    conversation_id: ConversationId
    messages: Sequence[NewMessage]
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class MemoryPatch:
    """What to change of a memory: None leaves a field as it is. `version` None fits any."""

    text: str | None = None
    metadata: Metadata | None = None
    occurred_at: datetime | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryFilter:
    """Which memories fit; all that is set must hold."""

    kinds: Sequence[MemoryKind] = ()
    statuses: Sequence[MemoryStatus] = ()
    conversation_id: ConversationId | None = None
    metadata: Metadata = field(default_factory=dict)
    occurred_from: datetime | None = None
    occurred_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a call has stored, and the job that will enrich it (None when there is nothing to enrich)."""

    memories: Sequence[Memory]
    job: Job | None

    @property
    def memory(self) -> Memory:
        """The first memory."""
        return self.memories[0]


@dataclass(frozen=True, slots=True)
class ArmScore:
    """What one arm of a search gave a hit: its own measure, its rank (0: does not rank), its share of the score."""

    arm: str
    raw: float
    rank: int
    contribution: float


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A memory that bears on the question; the score is from 0 to 1 and the sum of its arms' contributions."""

    memory: Memory
    score: float
    arms: Sequence[ArmScore]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A question to a user's memories. `offset` skips hits, for pages; `min_score` is from 0 to 1."""

    user_id: UserId
    text: str
    filter: MemoryFilter = field(default_factory=MemoryFilter)
    limit: int = 10
    offset: int = 0
    min_score: float = 0.0


class ProcessingMode(StrEnum):
    """Whether a call waits for the pipeline."""

    ASYNC = "ASYNC"
    SYNC = "SYNC"
