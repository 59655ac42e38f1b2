"""Whose turn it is to have entities and facts found is known at once, however many jobs wait and were done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from memoro_core.embedded.stack import Stack
from memoro_core.ids import new_id
from memoro_core.postgres.queries import load_queries
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.plans import reads

NOW = datetime(2039, 7, 1, 12, tzinfo=UTC)
USERS, WAITING, ENDED, TAKEN, LIMIT = 10, 500, 3_000, 3_000, 60


@pytest.fixture
def settings(quiet_settings: Settings) -> Settings:
    """Of servers where statistics are of these tests alone."""
    return quiet_settings


@pytest.fixture(params=[False, True], ids=["unknown to the planner", "analyzed"])
async def crowd(domain: Domain, quiet_stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[Domain]:
    """Users with very many jobs, of which some wait for their turn, and many slots of the last hour."""
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            """
            INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts,
                              run_at, deferred_at, ended_at, last_seq, created_at, deferral_reason)
            SELECT current_tenant(), gen_random_uuid(), 'memory.relate',
                   CASE WHEN n > $2 * $3 THEN 'SUCCEEDED' ELSE 'DEFERRED' END, 2, 'user ' || n % $2, '{}', '[]', 5,
                   $1::timestamptz, $1, CASE WHEN n > $2 * $3 THEN $1 END, 1, $1, 'RELATIONS'
            FROM generate_series(1, $2::integer * ($3::integer + $4::integer)) AS n
            """,
            *(NOW, USERS, WAITING, ENDED),
        )
        await connection.execute(
            """
            INSERT INTO relation_slots (tenant_id, user_id, number, job_id, taken_at)
            SELECT current_tenant(), 'user ' || u, n, gen_random_uuid(),
                   $1::timestamptz - ($3 - n) * interval '1 second'
            FROM generate_series(0, $2::integer - 1) AS u, generate_series(1, $3::integer) AS n
            """,
            *(NOW, USERS, TAKEN),
        )
    owner = await asyncpg.connect(quiet_stack.owner_url)
    try:
        if request.param:
            await owner.execute("VACUUM ANALYZE jobs, relation_slots")
        yield domain
    finally:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("DELETE FROM jobs")
        async with domain.database.system_tx() as connection:
            await connection.execute("DELETE FROM relation_slots")
        await owner.execute("VACUUM (FULL, ANALYZE) jobs, relation_slots")
        await owner.close()


async def read(domain: Domain, name: str, *parameters: object) -> dict[str, dict[str, float]]:
    """What a statement reads, by table and index."""
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries("relations")[name]
    async with domain.database.tenant_tx(domain.tenant, generic_plans=True) as connection:
        text = await connection.fetchval(explain, domain.tenant, "user 3", *parameters)
    return {table: reads(text, table) for table in ("jobs", "relation_slots")}


async def test_taking_a_slot(crowd: Domain) -> None:
    for waited in (False, True):
        found = await read(crowd, "take", new_id(), NOW + timedelta(hours=1), LIMIT, waited)
        assert set(found["jobs"]) <= {"jobs_to_relate"}
        assert sum(found["jobs"].values()) <= LIMIT
        assert sum(found["relation_slots"].values()) <= 4


async def test_reckoning_a_turn(crowd: Domain) -> None:
    for before in (None, new_id()):
        found = await read(crowd, "turn", NOW, LIMIT, before)
        assert set(found["jobs"]) == {"jobs_to_relate"}
        assert sum(found["jobs"].values()) <= WAITING
        assert sum(found["relation_slots"].values()) <= 4
