"""The graph of entities and relationships."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from memoro.types.memories import Memory


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
