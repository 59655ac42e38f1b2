"""Memories, the conversations and texts that become them, and what a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from memoro.enums import MemoryKind, MemoryStatus, Priority, Role

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
