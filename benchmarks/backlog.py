"""A queue of very many jobs, put straight into the tables as its callers' adds would have left it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

import asyncpg
from pydantic_core import to_json

from memoro_core.ids import TenantId
from memoro_core.jobs.model import PLANNED_STAGES, JobEvent, JobState

USERS: Final = 100
TEXT: Final = "Note {}: the ferry to the island leaves at nine, and tickets are sold on board."
"""Long enough for the normal priority."""
_CREATE: Final = """
WITH item AS (
    SELECT uuidv7() AS memory_id, uuidv7() AS job_id, 'user-' || number % $3 AS user_id,
           replace($7, '{}', number::text) AS text,
           $4::timestamptz - interval '1 minute' + number * interval '1 minute' / $2 AS at  -- one after the other
    FROM generate_series(0, $2::integer - 1) AS number
), stored AS (
    INSERT INTO memories (tenant_id, memory_id, user_id, kind, text, content_hash, status, occurred_at, job_id,
                          created_at, updated_at)
    SELECT $1, memory_id, user_id, 'TEXT', text, sha256(text::bytea), 'PENDING', at, job_id, at, at FROM item
), queued AS (
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
                      last_seq, created_at)
    SELECT $1, job_id, 'memory.enrich', 'QUEUED', 2, user_id, ARRAY[memory_id], $5::jsonb, 5, at, 1, at FROM item
)
INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
SELECT $1, job_id, 1, $6::jsonb, at FROM item
"""
_TABLES: Final = ("jobs", "job_events", "memories")
_SLOW: Final = 120.0
_TOP_UP: Final = 0.1


async def fill(owner: asyncpg.Connection[asyncpg.Record], tenant_id: TenantId, count: int) -> None:
    """Makes the tenant's queue `count` jobs long; no worker has been told of those that are added."""
    await _top_up(owner, tenant_id, count)
    await _tidy(owner)


async def keep_short(owner: asyncpg.Connection[asyncpg.Record], tenant_id: TenantId, count: int) -> None:
    """Keeps the tenant's queue `count` jobs long, for ever: work for all workers, and hardly a queue."""
    while True:
        await _top_up(owner, tenant_id, count)
        await asyncio.sleep(_TOP_UP)


async def _top_up(owner: asyncpg.Connection[asyncpg.Record], tenant_id: TenantId, count: int) -> None:
    waiting = await owner.fetchval("SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state = 'QUEUED'", tenant_id)
    if waiting < count:
        now = datetime.now(UTC)
        stages, event = (
            to_json(part).decode() for part in (PLANNED_STAGES, JobEvent(1, JobState.QUEUED, 0, now, run_at=now))
        )
        await owner.execute(
            *(_CREATE, tenant_id, count - waiting, USERS, now, stages, event, TEXT),
            timeout=_SLOW,
        )


async def drop(owner: asyncpg.Connection[asyncpg.Record], tenant_id: TenantId) -> None:
    """Forgets all that the tenant has in the queue, and all that it had."""
    for table in _TABLES:
        await owner.execute(f"DELETE FROM {table} WHERE tenant_id = $1", tenant_id, timeout=_SLOW)
    await _tidy(owner)


async def _tidy(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    """What autovacuum would do in a while, done at once, so that no measurement meets it."""
    for table in _TABLES:
        await owner.execute(f"VACUUM (ANALYZE) {table}", timeout=_SLOW)
    await owner.execute("CHECKPOINT", timeout=_SLOW)
