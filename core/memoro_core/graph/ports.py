"""What reading the graph needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from memoro_core.graph.model import Direction, Entity, EntityDetail, Subgraph
from memoro_core.ids import EntityId, TenantId, UserId


@dataclass(frozen=True, slots=True)
class ListedEntity:
    """An entity, and the normalised name that lists are sorted by."""

    entity: Entity
    sort_name: str


@dataclass(frozen=True, slots=True)
class NameRange:
    """Normalised names from `start` up to, but not including, `end` (None: no end), compared by code point."""

    start: str
    end: str | None


@dataclass(frozen=True, slots=True)
class WalkPlan:
    """A walk whose beginnings are known to be entities of the user: how far, along what, as of when, how many."""

    starts: Sequence[EntityId]
    max_depth: int
    predicates: Sequence[str]
    direction: Direction
    as_of: datetime
    max_nodes: int
    include_memories: bool


class GraphStore(Protocol):
    """Entities and facts in the database."""

    async def list_entities(
        self,
        tenant_id: TenantId,
        user_id: UserId | None,
        entity_type: str | None,
        names: NameRange | None,
        *,
        limit: int,
        after: tuple[str, EntityId] | None,
    ) -> Sequence[ListedEntity]:
        """Entities that have a name in the range, sorted by their own name and id, from behind `after` on."""
        ...

    async def get_entity(self, tenant_id: TenantId, entity_id: EntityId) -> EntityDetail | None:
        """The entity, None when this tenant has none of that id."""
        ...

    async def find_starts(
        self, tenant_id: TenantId, user_id: UserId, entity_ids: Sequence[EntityId], names: Sequence[str]
    ) -> Sequence[EntityId]:
        """Those of the user's entities that have one of the ids or of the normalised names, each once, in one order."""
        ...

    async def walk(self, tenant_id: TenantId, plan: WalkPlan) -> Subgraph:
        """What the walk reaches, breadth first, each entity once, with bounded work however many facts there are."""
        ...
