"""What statements over many entries and accounts read: no more than they need."""

from __future__ import annotations

import json
from typing import Any

import pytest_asyncio

from memoro_core.postgres.queries import load_queries
from tests.support.billing import HOUR, job
from tests.support.credit_world import CreditWorld
from tests.support.domain import Domain
from tests.support.plans import reads

ENTRIES = 20_000
_ENTRIES = """
INSERT INTO ledger_entries (
    tenant_id, seq, kind, available, granted, available_after, held_after, job_id, created_at, hash)
SELECT $1, seq, CASE WHEN seq % 2 = 0 THEN 'HOLD' ELSE 'SETTLEMENT' END, 1, -1, seq, 0,
       (lpad(to_hex(1000 + seq / 2), 32, '0'))::uuid, $2, sha256('')
FROM generate_series(1, $3::integer) AS seq
"""
_ACCOUNTS = """
WITH made AS (
    INSERT INTO tenants (tenant_id, name, display_name, tier, state, created_at, updated_at)
    SELECT gen_random_uuid(), 'plans-' || gen_random_uuid(), '', 'free', 'ACTIVE', $1, $1 FROM generate_series(1, 500)
    RETURNING tenant_id
)
INSERT INTO credit_accounts (tenant_id, next_expiry_at) SELECT tenant_id, $1 FROM made
"""
_HOLDS = """
INSERT INTO credit_holds (tenant_id, job_id, user_id, state, amount, margin_basis_points, day, created_at)
SELECT $1, (lpad(to_hex(1000 + number), 32, '0'))::uuid, 'alice', 'PENDING', 1, 0, $2::timestamptz::date, $2
FROM generate_series(1, $3::integer) AS number
"""
_JOBS = """
INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at, last_seq,
                  created_at, ended_at)
SELECT $1, (lpad(to_hex(1000 + number), 32, '0'))::uuid, 'memory.enrich', 'FAILED', 2, 'alice', '{}', '[]', 5, $2, 1,
       $2, $2
FROM generate_series(1, $3::integer) AS number
"""
_CALLS = """
INSERT INTO ai_calls (tenant_id, job_id, attempt, call, user_id, day, provider, model, operation, state, failed,
                      request_hash, input_tokens, output_tokens, items, input_price, output_price, fee, started_at)
SELECT $1, (lpad(to_hex(1000 + number), 32, '0'))::uuid, 1, 0, 'alice', $2::timestamptz::date, 'p', 'm', 'embed',
       'OPEN', false, '', 1, 1, 1, 1, 1, 1, $2
FROM generate_series(1, $3::integer) AS number
"""


@pytest_asyncio.fixture(autouse=True)
async def _many(world: CreditWorld) -> None:
    await world.owner.execute(_ENTRIES, world.tenant, world.now, ENTRIES)
    await world.owner.execute(_ACCOUNTS, world.now + 1000 * HOUR)
    await world.owner.execute("ANALYZE ledger_entries, credit_accounts")


async def plan(world: CreditWorld, name: str, *parameters: object, of_tenant: bool = True) -> Any:
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries("credits")[name]
    database = world.database
    async with database.tenant_tx(world.tenant) if of_tenant else database.system_tx() as connection:
        return await connection.fetchval(explain, *parameters)


async def test_the_first_page_of_a_long_ledger_is_read_alone(world: CreditWorld) -> None:
    text = await plan(world, "list_entries", world.tenant, [], None, None, None, None, 51)
    assert reads(text, "ledger_entries") == {"ledger_entries_pkey": 51}


async def test_the_entries_of_a_job_are_found_by_the_job(world: CreditWorld) -> None:
    text = await plan(world, "list_entries", world.tenant, [], job(77), None, None, None, 51)
    assert reads(text, "ledger_entries") == {"ledger_entries_by_job": 2}


async def test_a_ledger_is_checked_stretch_by_stretch(world: CreditWorld) -> None:
    text = await plan(world, "entries_from", world.tenant, ENTRIES // 2, ENTRIES, 1000)
    assert reads(text, "ledger_entries") == {"ledger_entries_pkey": 1000}


async def test_only_accounts_with_something_to_lose_are_looked_at(world: CreditWorld) -> None:
    text = await plan(world, "expiring", world.now, 100, of_tenant=False)
    # Other tests may have left some.
    assert reads(text, "credit_accounts") == {"credit_accounts_expiring": json.loads(text)[0]["Plan"]["Actual Rows"]}


async def test_what_a_settlement_reads_it_finds_by_the_job(world: CreditWorld, domain: Domain) -> None:
    """Of a tenant of which the planner knows nothing yet, since it came after the last ANALYZE."""
    tables = {"credit_holds": _HOLDS, "jobs": _JOBS, "ai_calls": _CALLS}
    for tenant in (domain.tenant, world.tenant):
        for table, statement in tables.items():
            await world.owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            await world.owner.execute(statement, tenant, world.now, ENTRIES)
            if tenant == domain.tenant:
                await world.owner.execute(f"ANALYZE {table}")
    jobs = [job(number) for number in range(1, 101)]
    ended = await plan(world, "lock_ended", world.tenant, jobs)
    assert sum(reads(ended, "credit_holds").values()) == 100
    assert sum(reads(ended, "jobs").values()) == 100
    calls = await plan(world, "settle_calls", world.tenant, jobs, world.now)
    assert reads(calls, "ai_calls") == {"ai_calls_pkey": 100}
    settled = await plan(world, "end_holds", world.tenant, jobs, [1] * len(jobs), world.now, [])
    assert sum(reads(settled, "credit_holds").values()) == 100
    nothing: list[list[object]] = [[] for _ in range(9)]
    day = world.now.date()
    hold = await plan(world, "hold", world.tenant, jobs, 0, 0, False, 0, b"", 0, day, world.now, 1, *nothing)
    assert sum(reads(hold, "credit_holds").values()) == 100
