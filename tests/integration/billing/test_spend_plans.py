"""What is asked of budgets, usage and deferred jobs stays quick with many of them: little is read, by indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.billing.model import DEPLOYMENT
from memoro_core.embedded.stack import Stack
from memoro_core.ids import TenantId
from memoro_core.postgres.queries import load_queries
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.plans import reads

NOW = datetime(2039, 7, 1, 12, tzinfo=UTC)
TODAY, TOMORROW = NOW.date(), NOW.date() + timedelta(1)
NIGHT = datetime(2039, 7, 2, tzinfo=UTC)
TENANTS, EACH = 20, 1_000
CALLS_EACH, DAYS = 500, 30


@pytest.fixture
def settings(quiet_settings: Settings) -> Settings:
    """Of servers where statistics are of these tests alone."""
    return quiet_settings


@pytest.fixture
def owner_database_url(quiet_stack: Stack) -> str:
    """Of the same."""
    return quiet_stack.owner_url


@pytest_asyncio.fixture
async def many(domain: Domain, owner_database_url: str) -> AsyncIterator[list[TenantId]]:
    """Tenants with many jobs that are put off for each of the reasons, and many calls and settlements of many days."""
    tenants = [await domain.new_tenant() for _ in range(TENANTS)]
    for tenant in tenants:
        async with domain.database.tenant_tx(tenant) as connection:
            await connection.execute(
                """
                INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts,
                                  run_at, deferred_at, last_seq, created_at, cost_bound, deferral_reason)
                SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', 'DEFERRED', 2, 'user ' || n % 10,
                       '{}', '[]', 5, $2, $3, 1, $3, 10 + n % 7,
                       (ARRAY['DEPLOYMENT', 'TENANT', 'USER', 'CREDITS'])[1 + n % 4]
                FROM generate_series(1, $1::integer) AS n
                """,
                *(EACH, NIGHT, NOW),
            )
            await connection.execute(
                """
                INSERT INTO ai_calls (tenant_id, job_id, attempt, call, user_id, day, provider, model, operation, state,
                                      input_tokens, output_tokens, items, input_price, output_price, fee, started_at,
                                      ended_at)
                SELECT current_tenant(), gen_random_uuid(), 1, 1, 'user ' || n % 10, $2::date - n % $3, 'openai', 'm',
                       'embed', 'DONE', n, 0, 1, 1, 1, 0, $4, $4
                FROM generate_series(1, $1::integer) AS n
                """,
                *(CALLS_EACH, TODAY, DAYS, NOW),
            )
            await connection.execute(
                """
                INSERT INTO ledger_entries (tenant_id, seq, kind, available, held, revenue, available_after, held_after,
                                            job_id, created_at, hash)
                SELECT current_tenant(), n, (ARRAY['HOLD', 'SETTLEMENT'])[1 + n % 2], 1, -2, 1, 0, 0,
                       gen_random_uuid(), $2::timestamptz - n * interval '1 hour', sha256('')
                FROM generate_series(1, $1::integer) AS n
                """,
                *(CALLS_EACH, NOW),
            )
            await connection.execute("INSERT INTO credit_accounts (tenant_id) VALUES (current_tenant())")
    owner = await asyncpg.connect(owner_database_url)
    tables = "jobs, ai_calls, ledger_entries, budget_days"
    try:
        await owner.execute(f"VACUUM ANALYZE {tables}")
        yield tenants
    finally:
        async with domain.database.system_tx() as connection:
            await connection.execute("DELETE FROM jobs WHERE tenant_id = ANY ($1)", tenants)
            await connection.execute("DELETE FROM budget_days WHERE day IN ($1, $2)", TODAY, TOMORROW)
        await owner.execute("VACUUM ANALYZE jobs")
        await owner.close()


async def read(
    domain: Domain, table: str, file: str, name: str, *parameters: object, tenant: TenantId | None = None
) -> dict[str, float]:
    """What a statement reads of a table, and how many rows; what it changes is taken back."""
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries(file)[name]
    database = domain.database
    transaction = database.system_tx() if tenant is None else database.tenant_tx(tenant, generic_plans=True)
    async with transaction as connection:
        await connection.execute("SET LOCAL enable_seqscan = off; SAVEPOINT before")
        text = await connection.fetchval(explain, *parameters)
        await connection.execute("ROLLBACK TO before")
    return reads(text, table)


async def half_open(domain: Domain, day: date, *budgets: tuple[TenantId, str, str]) -> None:
    """Budgets that let some through again."""
    async with domain.database.system_tx() as connection:
        for tenant, scope, user in budgets:
            await connection.execute(
                "INSERT INTO budget_days (tenant_id, scope, user_id, day, state) VALUES ($1, $2, $3, $4, 'HALF_OPEN')",
                *(tenant, scope, user, day),
            )


async def test_while_nothing_can_be_let_go_a_look_for_it_reads_a_row_a_tenant(
    domain: Domain, many: list[TenantId]
) -> None:
    found = await read(domain, "jobs", "deferrals", "tenants_with_candidates", NOW, TODAY, 100)
    assert found.keys() <= {"jobs_to_pay", "jobs_unpaid", "jobs_over_budget", "jobs_over_user_budget"}
    assert sum(found.values()) < 10 * TENANTS


async def test_tenants_are_found_by_a_few_rows_of_each(domain: Domain, many: list[TenantId]) -> None:
    await half_open(domain, TODAY, (DEPLOYMENT, "DEPLOYMENT", ""), (many[0], "TENANT", ""), (many[1], "USER", "user 2"))
    found = await read(domain, "jobs", "deferrals", "tenants_with_candidates", NOW, TODAY, 100)
    assert sum(found.values()) < 10 * TENANTS
    found = await read(domain, "jobs", "deferrals", "tenants_with_candidates", NIGHT, TOMORROW, 100)
    assert sum(found.values()) < 10 * TENANTS
    found = await read(domain, "jobs", "deferrals", "tenants_deferred", DEPLOYMENT, 100)
    assert sum(found.values()) < 10 * TENANTS


async def test_of_a_tenant_s_jobs_a_batch_is_read(domain: Domain, many: list[TenantId]) -> None:
    tenant = many[0]
    await half_open(domain, TODAY, (DEPLOYMENT, "DEPLOYMENT", ""), (tenant, "TENANT", ""), (tenant, "USER", "user 2"))
    for now, day in ((NOW, TODAY), (NIGHT, TOMORROW)):
        found = await read(domain, "jobs", "deferrals", "lock_candidates", tenant, now, day, 20, tenant=tenant)
        assert found.keys() <= {"jobs_to_pay", "jobs_unpaid", "jobs_over_budget", "jobs_over_user_budget", "jobs_pkey"}
        assert sum(found.values()) < 20 * 10
    after = (NOW - timedelta(days=1), DEPLOYMENT)
    found = await read(domain, "jobs", "deferrals", "lock_deferred", tenant, *after, 20, tenant=tenant)
    assert found.keys() == {"jobs_to_pay"}
    assert sum(found.values()) <= 20


async def test_how_many_wait_for_a_budget_is_counted_by_its_index(domain: Domain, many: list[TenantId]) -> None:
    await half_open(domain, TODAY, (DEPLOYMENT, "DEPLOYMENT", ""), (many[0], "TENANT", ""), (many[1], "USER", "user 2"))
    found = await read(domain, "jobs", "budgets", "not_closed", TODAY)
    assert sum(found.values()) < 20
    found = await read(domain, "budget_days", "budgets", "not_closed", TODAY)
    assert found.keys() == {"budget_days_not_closed"}
    for tenant in (None, many[0]):
        await read(domain, "jobs", "budgets", "standing", TODAY, tenant, 1000)
        found = await read(domain, "budget_days", "budgets", "standing", TODAY, tenant, 1000)
        assert "Seq Scan" not in found


async def test_usage_reads_the_days_that_are_asked_for(domain: Domain, many: list[TenantId]) -> None:
    def asked(first: date, after: int) -> tuple[Any, ...]:
        return (many[0], first, TODAY, None, True, True, True, False, after, "", "", "", "", 51)

    found = await read(domain, "ai_calls", "usage", "usage", *asked(TODAY - timedelta(2), -1), tenant=many[0])
    assert found.keys() == {"ai_calls_by_day"}
    assert sum(found.values()) < CALLS_EACH / 5
    # Later pages read what is left.
    found = await read(domain, "ai_calls", "usage", "usage", *asked(TODAY - timedelta(30), 27), tenant=many[0])
    assert sum(found.values()) < CALLS_EACH / 5
    since = NOW - timedelta(hours=20)
    found = await read(domain, "ledger_entries", "usage", "charged", many[0], None, since, NOW, tenant=many[0])
    assert found.keys() == {"ledger_entries_settled"}
    assert sum(found.values()) <= 10


async def test_a_day_s_costs_read_that_day(domain: Domain, many: list[TenantId]) -> None:
    async with domain.database.system_tx() as connection:
        of_day = await connection.fetchval("SELECT count(*) FROM ai_calls WHERE day = $1", TODAY)
    found = await read(domain, "ai_calls", "usage", "operations", TODAY)
    assert found == {"ai_calls_latest": of_day}
    found = await read(domain, "ai_calls", "usage", "operations_of_tenant", TODAY, many[0])
    assert sum(found.values()) < 2 * CALLS_EACH / DAYS
    found = await read(domain, "ai_calls", "usage", "recent_calls", TODAY, 5)
    assert found == {"ai_calls_latest": 5}
    found = await read(domain, "ai_calls", "usage", "recent_calls_of_tenant", TODAY, 5, many[0])
    assert found == {"ai_calls_by_day": 5}
    found = await read(domain, "ledger_entries", "usage", "house", NOW - timedelta(hours=5), NOW, None)
    assert "Seq Scan" not in found
