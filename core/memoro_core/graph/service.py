"""Reading the graph: entities by name, one entity, and walks."""

from __future__ import annotations

from typing import Final

from memoro_core.clock import Clock
from memoro_core.errors import Reason, invalid_field, not_found
from memoro_core.graph.model import Entity, EntityDetail, EntityFilter, Subgraph, Walk
from memoro_core.graph.names import normalized
from memoro_core.graph.ports import GraphStore, NameRange, WalkPlan
from memoro_core.ids import EntityId, TenantId
from memoro_core.paging import Page, cut, identifier

MAX_DEPTH: Final = 5
MAX_NODES: Final = 500
MAX_STARTS: Final = 20


class GraphService:
    """Answers from the graph that enrichment has built. Never calls a model."""

    def __init__(self, store: GraphStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list_entities(
        self, tenant_id: TenantId, entity_filter: EntityFilter, *, size: int, position: tuple[str, ...] | None
    ) -> Page[Entity]:
        """Entities by name. A position is (normalised name, entity id) of the last one seen."""
        rows = await self._store.list_entities(
            tenant_id,
            entity_filter.user_id or None,
            entity_filter.type or None,
            names_beginning_with(normalized(entity_filter.name_prefix)),
            limit=size + 1,
            after=None if position is None else (position[0], EntityId(identifier(position, 1))),
        )
        page = cut(rows, size, (rows[size - 1].sort_name, str(rows[size - 1].entity.id)) if len(rows) >= size else None)
        return Page([row.entity for row in page.items], page.next_position)

    async def get_entity(self, tenant_id: TenantId, entity_id: EntityId) -> EntityDetail:
        """The entity with its facts and mentions. Raises ENTITY_NOT_FOUND."""
        detail = await self._store.get_entity(tenant_id, entity_id)
        if detail is None:
            raise not_found(Reason.ENTITY_NOT_FOUND, "entity", entity_id)
        return detail

    async def traverse(self, tenant_id: TenantId, walk: Walk) -> Subgraph:
        """What can be reached from the entities that the walk begins at; those that are unknown are passed over.

        Raises INVALID_FIELD, and ENTITY_NOT_FOUND when every beginning is unknown.
        """
        _check(walk)
        names = [normalized(name) for name in walk.entity_names]
        starts = await self._store.find_starts(tenant_id, walk.user_id, walk.entity_ids, names)
        if not starts:
            unknown = ", ".join([*map(str, walk.entity_ids), *(f"named {name!r}" for name in walk.entity_names)])
            raise not_found(Reason.ENTITY_NOT_FOUND, "entity", unknown)
        return await self._store.walk(
            tenant_id,
            WalkPlan(
                starts[: walk.max_nodes],
                walk.max_depth,
                walk.predicates,
                walk.direction,
                walk.as_of or self._clock.now(),
                walk.max_nodes,
                walk.include_memories,
            ),
        )


def names_beginning_with(prefix: str) -> NameRange | None:
    """The range of all names that begin with a prefix, None for an empty one: nothing in a prefix is a wildcard."""
    if not prefix:
        return None
    for place in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[place]) + 1
        if following == 0xD800:  # surrogates are no characters
            following = 0xE000
        if following <= 0x10FFFF:
            return NameRange(prefix, prefix[:place] + chr(following))
    return NameRange(prefix, None)


def _check(walk: Walk) -> None:
    if not walk.entity_ids and not walk.entity_names:
        raise invalid_field("entity_ids", "name at least one entity to begin at, by id or by name")
    for field, values in (("entity_ids", walk.entity_ids), ("entity_names", walk.entity_names)):
        if len(values) > MAX_STARTS:
            raise invalid_field(field, f"must be at most {MAX_STARTS}")
    if not 1 <= walk.max_depth <= MAX_DEPTH:
        raise invalid_field("max_depth", f"must be from 1 to {MAX_DEPTH}")
    if not 1 <= walk.max_nodes <= MAX_NODES:
        raise invalid_field("max_nodes", f"must be from 1 to {MAX_NODES}")
