"""Entities, and the facts between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from memoro_core.ids import EntityId, MemoryId, RelationshipId, UserId
from memoro_core.memory.model import Memory


@dataclass(frozen=True, slots=True)
class Entity:
    """Someone or something that a user's memories tell of."""

    id: EntityId
    user_id: UserId
    type: str
    name: str
    aliases: Sequence[str]
    mention_count: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Relationship:
    """A fact: source PREDICATE target, true from `valid_from` until `valid_to` (None: still), told by `memory_ids`."""

    id: RelationshipId
    source_id: EntityId
    source_name: str
    predicate: str
    target_id: EntityId
    target_name: str
    confidence: float
    memory_ids: Sequence[MemoryId]
    valid_from: datetime
    valid_to: datetime | None
    superseded_by: RelationshipId | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EntityDetail:
    """An entity, its facts (100 at most) and the memories that mention it (20 at most), newest first."""

    entity: Entity
    relationships: Sequence[Relationship]
    memory_ids: Sequence[MemoryId]


@dataclass(frozen=True, slots=True)
class EntityFilter:
    """Which entities to list; all that is set must hold."""

    user_id: UserId | None = None
    type: str | None = None
    name_prefix: str = ""


class Direction(StrEnum):
    """Which way to follow facts."""

    BOTH = "BOTH"
    OUTGOING = "OUTGOING"
    INCOMING = "INCOMING"


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk through one user's graph: where it begins, how far it goes, along what, as of when (None: now)."""

    user_id: UserId
    entity_ids: Sequence[EntityId] = ()
    entity_names: Sequence[str] = ()
    max_depth: int = 2
    predicates: Sequence[str] = ()
    direction: Direction = Direction.BOTH
    as_of: datetime | None = None
    max_nodes: int = 100
    include_memories: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """An entity that a walk reached, `depth` steps from where it began."""

    entity: Entity
    depth: int


@dataclass(frozen=True, slots=True)
class Subgraph:
    """What a walk reached: nodes nearest first, the facts between them, the memories behind these if asked for."""

    nodes: Sequence[Node]
    edges: Sequence[Relationship]
    memories: Sequence[Memory]
    truncated: bool
