"""Many rows at once, for tests of plans and limits, written as the services would have written them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pgvector
from numpy.typing import NDArray

from memoro_core.ids import EntityId, TenantId, UserId, new_id
from memoro_core.postgres.database import Database

MODEL = "test/bulk@256"


async def add_memories(database: Database, tenant_id: TenantId, user_id: UserId, count: int) -> None:
    """READY messages in conversations of twenty turns, one a minute, alike but for some of their words."""
    async with database.tenant_tx(tenant_id) as connection:
        await connection.execute(
            """
            INSERT INTO memories (tenant_id, memory_id, user_id, kind, text, content_hash, status, conversation_id,
                                  position, speaker, occurred_at, job_id, created_at, updated_at)
            SELECT $1, gen_random_uuid(), $2, 'MESSAGE', 'tea number ' || n || ' of kind' || n % 50, '\\x00', 'READY',
                   'c' || n / 20, n % 20, 'Ann', $4::timestamptz + n * interval '1 minute', gen_random_uuid(), $4, $4
            FROM generate_series(1, $3) AS n
            """,
            tenant_id,
            user_id,
            count,
            datetime(2026, 1, 1, tzinfo=UTC),
        )


async def add_vectors(database: Database, tenant_id: TenantId, user_id: UserId, vectors: NDArray[np.float32]) -> None:
    """Gives the user's first memories these vectors, shape (memories, 256)."""
    async with database.tenant_tx(tenant_id) as connection:
        await connection.execute(
            """
            INSERT INTO memory_embeddings (tenant_id, memory_id, user_id, model, embedding, created_at)
            SELECT $1, memory_id, $2, $3, embedding, $5
            FROM unnest($4::vector[]) WITH ORDINALITY AS item (embedding, place)
            JOIN (SELECT memory_id, row_number() OVER (ORDER BY memory_id) AS place
                  FROM memories
                  WHERE tenant_id = $1 AND user_id = $2) AS memory USING (place)
            """,
            tenant_id,
            user_id,
            MODEL,
            [pgvector.Vector(vector) for vector in vectors],
            datetime.now(UTC),
            timeout=120,
        )


async def add_entities(
    database: Database, tenant_id: TenantId, user_id: UserId, names: Sequence[str]
) -> list[EntityId]:
    """One entity of type TOPIC per name, which must be normalised."""
    ids = [EntityId(new_id()) for _ in names]
    async with database.tenant_tx(tenant_id) as connection:
        await connection.execute(
            """
            WITH entity AS (
                INSERT INTO entities (tenant_id, entity_id, user_id, type, name, normalized_name, created_at,
                                      updated_at)
                SELECT $1, entity_id, $2, 'TOPIC', name, name, $5, $5
                FROM unnest($3::uuid[], $4::text[]) AS item (entity_id, name)
                RETURNING entity_id, name
            )
            INSERT INTO entity_aliases (tenant_id, user_id, normalized_name, entity_id)
            SELECT $1, $2, name, entity_id FROM entity
            """,
            tenant_id,
            user_id,
            ids,
            names,
            datetime.now(UTC),
            timeout=120,
        )
    return ids


async def add_facts(
    database: Database,
    tenant_id: TenantId,
    user_id: UserId,
    ends: Sequence[tuple[EntityId, EntityId]],
    *,
    predicate: str = "KNOWS",
    valid_from: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    valid_to: datetime | None = None,
) -> None:
    """One fact per pair of source and target."""
    async with database.tenant_tx(tenant_id) as connection:
        await connection.execute(
            """
            INSERT INTO relationships (tenant_id, relationship_id, user_id, source_entity_id, predicate,
                                       target_entity_id, confidence, valid_from, valid_to, created_at)
            SELECT $1, relationship_id, $2, source_id, $6, target_id, 1, $7, $8, $9
            FROM unnest($3::uuid[], $4::uuid[], $5::uuid[]) AS item (relationship_id, source_id, target_id)
            """,
            tenant_id,
            user_id,
            [new_id() for _ in ends],
            [source for source, _ in ends],
            [target for _, target in ends],
            predicate,
            valid_from,
            valid_to,
            datetime.now(UTC),
            timeout=120,
        )


async def tell_of(database: Database, tenant_id: TenantId, user_id: UserId) -> None:
    """Makes the user's memories, one after the other, state the user's facts and mention their sources."""
    async with database.tenant_tx(tenant_id) as connection:
        await connection.execute(
            """
            WITH memory AS (
                SELECT memory_id, row_number() OVER () AS place FROM memories WHERE tenant_id = $1 AND user_id = $2
            ), fact AS (
                SELECT relationship_id, source_entity_id,
                       1 + row_number() OVER () % (SELECT count(*) FROM memory) AS place
                FROM relationships
                WHERE tenant_id = $1 AND user_id = $2
            ), stated AS (
                INSERT INTO relationship_sources (tenant_id, relationship_id, memory_id)
                SELECT $1, relationship_id, memory_id FROM fact JOIN memory USING (place)
            )
            INSERT INTO mentions (tenant_id, memory_id, entity_id)
            SELECT DISTINCT $1::uuid, memory_id, source_entity_id FROM fact JOIN memory USING (place)
            """,
            tenant_id,
            user_id,
            timeout=120,
        )
