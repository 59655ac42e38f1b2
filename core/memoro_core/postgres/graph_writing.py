"""What was found in memories, written into their user's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from memoro_core.graph.resolution import EntityKey, Findings, FoundEntity, FoundFact
from memoro_core.graph.validity import ONE_AT_A_TIME
from memoro_core.ids import EntityId, MemoryId, TenantId, UserId, new_id
from memoro_core.jobs.model import JobResult
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("enrichment")


class GraphWriter:
    """Writes findings into one user's graph, whose lock the transaction holds."""

    def __init__(self, connection: Connection, tenant_id: TenantId, user_id: UserId, now: datetime) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._user_id = user_id
        self._now = now

    async def write(self, findings: Findings, memory_ids: set[MemoryId]) -> JobResult:
        """Writes what these memories tell, and nothing that only others do."""
        facts = [fact for fact in findings.facts if not memory_ids.isdisjoint(fact.memory_ids)]
        entities = [entity for entity in findings.entities if not memory_ids.isdisjoint(entity.memory_ids)]
        ids = await self._store_entities(entities, memory_ids) if entities else {}
        superseded = await self._store_facts(facts, ids, memory_ids) if facts else 0
        return JobResult(len(memory_ids), len(entities), len(facts), superseded)

    async def _store_entities(
        self, entities: Sequence[FoundEntity], memory_ids: set[MemoryId]
    ) -> Mapping[EntityKey, EntityId]:
        rows = await self._connection.fetch(
            _SQL["store_entities"],
            self._tenant_id,
            self._user_id,
            [new_id() for _ in entities],
            [entity.key[0] for entity in entities],
            [entity.name for entity in entities],
            [entity.key[1] for entity in entities],
            [list(entity.other_names) for entity in entities],
            self._now,
        )
        ids = {(row["type"], row["normalized_name"]): EntityId(row["entity_id"]) for row in rows}
        aliases = [(alias, ids[entity.key]) for entity in entities for alias in entity.aliases]
        await self._connection.execute(
            _SQL["store_aliases"], self._tenant_id, self._user_id, [a for a, _ in aliases], [i for _, i in aliases]
        )
        mentions = [
            (memory_id, ids[entity.key])
            for entity in entities
            for memory_id in entity.memory_ids
            if memory_id in memory_ids
        ]
        await self._connection.execute(
            _SQL["store_mentions"], self._tenant_id, [m for m, _ in mentions], [i for _, i in mentions]
        )
        return ids

    async def _store_facts(
        self, facts: Sequence[FoundFact], ids: Mapping[EntityKey, EntityId], memory_ids: set[MemoryId]
    ) -> int:
        rows = await self._connection.fetch(
            _SQL["store_facts"],
            self._tenant_id,
            self._user_id,
            [new_id() for _ in facts],
            [ids[fact.source] for fact in facts],
            [fact.predicate for fact in facts],
            [ids[fact.target] for fact in facts],
            [fact.confidence for fact in facts],
            [fact.valid_from for fact in facts],
            [fact.valid_to for fact in facts],
            self._now,
        )
        sources = [
            (row["relationship_id"], memory_id)
            for fact, row in zip(facts, rows, strict=True)
            for memory_id in fact.memory_ids
            if memory_id in memory_ids
        ]
        await self._connection.execute(
            _SQL["store_sources"], self._tenant_id, [r for r, _ in sources], [m for _, m in sources]
        )
        exclusive = [fact for fact in facts if fact.predicate in ONE_AT_A_TIME]
        if not exclusive:
            return 0
        superseded = await self._connection.fetch(
            _SQL["supersede"],
            self._tenant_id,
            [ids[fact.source] for fact in exclusive],
            [fact.predicate for fact in exclusive],
        )
        return len(superseded)
