"""Search in PostgreSQL: vectors by pgvector, words by its own full-text search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from memoro_core.diagnosis.requirements import MAX_INDEXED_DIMENSIONS
from memoro_core.ids import MemoryId, TenantId
from memoro_core.memory.model import Memory, MemoryFilter
from memoro_core.memory.search_ports import Candidate, CandidateQuery
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.embedding_model import for_dimensions
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("search")
_MEMORIES: Final = load_queries("memories")
NEAREST: Final = 200
"""How many memories each of meaning and words puts forward; the turns beside them come on top."""


class PostgresSearchStore:
    """A `SearchStore`. Up to `exact_limit` vectors of a user are all compared; above, an index is asked."""

    def __init__(self, database: Database, *, exact_limit: int) -> None:
        self._database = database
        self._exact_limit = exact_limit

    async def find_candidates(self, tenant_id: TenantId, query: CandidateQuery) -> Sequence[Candidate]:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            nearest = await self._nearest(connection, tenant_id, query)
            rows = await connection.fetch(
                _SQL["find_candidates"],
                tenant_id,
                query.user_id,
                query.text,
                query.model,
                query.vector,
                nearest,
                NEAREST,
                *_columns(query.filter),
            )
        # The columns are the fields, in order.
        return [Candidate(*row) for row in rows]

    async def get_memories(self, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> Mapping[MemoryId, Memory]:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_MEMORIES["get_memories"], tenant_id, memory_ids)
        return {row["memory_id"]: memory_of(row) for row in rows}

    async def _nearest(self, connection: Connection, tenant_id: TenantId, query: CandidateQuery) -> list[MemoryId]:
        vectors = await connection.fetchval(
            _SQL["search_scale"], tenant_id, query.user_id, query.model, self._exact_limit + 1
        )
        if not vectors:
            return []
        if vectors <= self._exact_limit or len(query.vector) > MAX_INDEXED_DIMENSIONS:
            statement = _SQL["nearest_exact"]
        else:
            statement = for_dimensions(_SQL["nearest_indexed"], len(query.vector))
        rows = await connection.fetch(
            statement,
            tenant_id,
            query.user_id,
            query.model,
            query.vector,
            query.filter != MemoryFilter(),
            *_columns(query.filter),
            NEAREST,
        )
        return [row["memory_id"] for row in rows]


def _columns(memory_filter: MemoryFilter) -> tuple[Any, ...]:
    return (
        memory_filter.kinds,
        memory_filter.statuses,
        memory_filter.conversation_id,
        memory_filter.metadata,
        memory_filter.occurred_from,
        memory_filter.occurred_until,
    )
