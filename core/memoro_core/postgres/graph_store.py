"""The graph in PostgreSQL, for reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from memoro_core.graph.model import Direction, Entity, EntityDetail, Node, Relationship, Subgraph
from memoro_core.graph.ports import ListedEntity, NameRange, WalkPlan
from memoro_core.ids import EntityId, RelationshipId, TenantId, UserId
from memoro_core.memory.model import Memory
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("graph")
_MEMORIES: Final = load_queries("memories")

MAX_FACTS: Final = 100
MAX_MENTIONS: Final = 20
MAX_MEMORIES: Final = 100
EDGES_PER_NODE: Final = 5
"""How many facts a walk returns, for each entity that it may reach."""
FACTS_PER_ENTITY: Final = 1_000
FACTS_PER_STEP: Final = 20_000
"""How many facts a walk looks at, so that a hub with a hundred thousand of them costs no more than a small graph."""


class PostgresGraphStore:
    """A `GraphStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        start, end = (None, None) if names is None else (names.start, names.end)
        after_name, after_id = after or (None, None)
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(
                _SQL["list_entities"], tenant_id, user_id, entity_type, start, end, after_name, after_id, limit
            )
        return [ListedEntity(_entity_of(row), row["normalized_name"]) for row in rows]

    async def get_entity(self, tenant_id: TenantId, entity_id: EntityId) -> EntityDetail | None:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            row = await connection.fetchrow(_SQL["get_entities"], tenant_id, [entity_id])
            if row is None:
                return None
            facts = await connection.fetch(_SQL["facts_of_entity"], tenant_id, entity_id, MAX_FACTS)
            relationships = await _relationships(connection, tenant_id, facts)
            mentions = await connection.fetch(_SQL["memories_of_entity"], tenant_id, entity_id, MAX_MENTIONS)
        return EntityDetail(_entity_of(row), relationships, [mention["memory_id"] for mention in mentions])

    async def find_starts(
        self, tenant_id: TenantId, user_id: UserId, entity_ids: Sequence[EntityId], names: Sequence[str]
    ) -> Sequence[EntityId]:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_SQL["find_starts"], tenant_id, user_id, entity_ids, names)
        return [row["entity_id"] for row in rows]

    async def walk(self, tenant_id: TenantId, plan: WalkPlan) -> Subgraph:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            steps = await connection.fetch(
                _SQL["walk"],
                tenant_id,
                plan.starts,
                plan.max_depth,
                plan.predicates,
                plan.as_of,
                plan.direction is not Direction.INCOMING,
                plan.direction is not Direction.OUTGOING,
                plan.max_nodes,
                FACTS_PER_ENTITY,
                FACTS_PER_STEP,
            )
            depths: dict[EntityId, int] = {}
            for step in steps:
                depths.update(dict.fromkeys(step["reached"], step["depth"]))
            reached = list(depths)[: plan.max_nodes]
            entities = await connection.fetch(_SQL["get_entities"], tenant_id, reached)
            max_edges = plan.max_nodes * EDGES_PER_NODE
            facts = await connection.fetch(
                _SQL["facts_between"],
                tenant_id,
                reached,
                plan.predicates,
                plan.as_of,
                FACTS_PER_ENTITY,
                FACTS_PER_STEP,
                max_edges + 1,
            )
            edges = await _relationships(connection, tenant_id, facts[:max_edges])
            memories = await _memories(connection, tenant_id, edges) if plan.include_memories else ()
        by_id = {row["entity_id"]: _entity_of(row) for row in entities}
        return Subgraph(
            [Node(by_id[entity_id], depths[entity_id]) for entity_id in reached if entity_id in by_id],
            edges,
            memories,
            truncated=len(depths) > plan.max_nodes or len(facts) > max_edges or any(step["cut"] for step in steps),
        )


async def _relationships(
    connection: Connection, tenant_id: TenantId, facts: Sequence[Record]
) -> Sequence[Relationship]:
    if not facts:
        return ()
    ids = [row["relationship_id"] for row in facts]
    return [_relationship_of(row) for row in await connection.fetch(_SQL["get_relationships"], tenant_id, ids)]


async def _memories(connection: Connection, tenant_id: TenantId, edges: Sequence[Relationship]) -> Sequence[Memory]:
    ids = sorted({memory_id for edge in edges for memory_id in edge.memory_ids}, reverse=True)[:MAX_MEMORIES]
    rows = await connection.fetch(_MEMORIES["get_memories"], tenant_id, ids)
    return sorted(map(memory_of, rows), key=lambda memory: memory.id, reverse=True)


def _entity_of(row: Record) -> Entity:
    return Entity(
        id=row["entity_id"],
        user_id=row["user_id"],
        type=row["type"],
        name=row["name"],
        aliases=tuple(row["aliases"]),
        mention_count=row["mention_count"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _relationship_of(row: Record) -> Relationship:
    superseded_by = row["superseded_by"]
    return Relationship(
        id=row["relationship_id"],
        source_id=row["source_entity_id"],
        source_name=row["source_name"],
        predicate=row["predicate"],
        target_id=row["target_entity_id"],
        target_name=row["target_name"],
        confidence=row["confidence"],
        memory_ids=tuple(row["memory_ids"]),
        valid_from=row["valid_from"],
        valid_to=row["valid_to"],
        superseded_by=None if superseded_by is None else RelationshipId(superseded_by),
        created_at=row["created_at"],
    )
