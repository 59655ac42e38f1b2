"""A feed steps along its index: on fifty thousand events it reads what it tells, and no more."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import UUID

import asyncpg
import pytest_asyncio

from memoro_core.ids import TenantId
from memoro_core.jobs.feed_ports import NO_JOB
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from tests.support.domain import Domain

SQL = load_queries("feed")
TENANTS = 5
OPEN = ["QUEUED", "DEFERRED", "RUNNING"]
PLANS = ("force_custom_plan", "force_generic_plan")


@pytest_asyncio.fixture
async def tenants(domain: Domain, owner_database_url: str) -> AsyncIterator[list[TenantId]]:
    """Tenants with many jobs, of which one in ten is under way; gone again when the test is over."""
    made = [await domain.new_tenant() for _ in range(TENANTS)]
    for tenant in made:
        async with domain.database.tenant_tx(tenant) as connection:
            await connection.execute(
                """
                INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts,
                                  run_at, last_seq, created_at, ended_at)
                SELECT current_tenant(), gen_random_uuid(), 'memory.enrich',
                       CASE WHEN n % 10 = 0 THEN 'QUEUED' ELSE 'SUCCEEDED' END, 2, 'user-' || n % 100, '{}', '[]', 3,
                       now(), 5, now(), CASE WHEN n % 10 = 0 THEN NULL ELSE now() END
                FROM generate_series(1, 2000) AS n
                """
            )
            await connection.execute(
                """
                INSERT INTO job_events (tenant_id, job_id, seq, event, created_at, transaction_id)
                SELECT tenant_id, job_id, seq, '{}', now(), (1 + (row_number() OVER ()) % 600)::text::xid8
                FROM jobs, generate_series(1, 5) AS seq
                """
            )
    owner = await asyncpg.connect(owner_database_url)
    try:
        await owner.execute("ANALYZE jobs, job_events")
        yield made
    finally:
        for tenant in made:
            async with domain.database.tenant_tx(tenant) as connection:
                await connection.execute("DELETE FROM job_events")
                await connection.execute("DELETE FROM jobs")
        await owner.execute("VACUUM ANALYZE jobs, job_events")
        await owner.close()


async def reads(connection: Connection, plans: str, statement: str, *arguments: object) -> list[Mapping[str, Any]]:
    """How a statement was run: every scan of a table."""
    await connection.execute(f"SET LOCAL plan_cache_mode = {plans}")
    text = await connection.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, *arguments)
    return [node for node in _nodes(json.loads(text)[0]["Plan"]) if "Relation Name" in node]


def _nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def rows_read(scans: list[Mapping[str, Any]]) -> int:
    """Rows per loop are told rounded."""
    return sum(
        round((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"]) for scan in scans
    )


async def test_a_page_is_read_from_the_index(domain: Domain, tenants: list[TenantId]) -> None:
    async with domain.database.tenant_tx(tenants[2]) as connection:
        for plans in PLANS:
            for place, page in (((0, NO_JOB, 0), 500), ((300, UUID(int=2**127), 3), 500), ((10**6, NO_JOB, 0), 0)):
                scans = await reads(connection, plans, SQL["read_feed"], tenants[2], *place, 500)
                # Of jobs, the planner may think that there are too few to look one up.
                events = [scan for scan in scans if scan["Relation Name"] == "job_events"]
                told = [scan for scan in events if scan.get("Index Name") == "job_events_in_order"]
                # The events, and whether there is one that can't be told yet.
                assert rows_read(told) <= page + 1
                (before,) = [scan for scan in events if scan not in told]
                # Of each, the one before it.
                assert before.get("Index Name") == "job_events_pkey"
                assert rows_read([before]) <= page


async def test_looking_after_feeds_reads_one_event_each(domain: Domain, tenants: list[TenantId]) -> None:
    count = len(tenants)
    async with domain.database.system_tx() as connection:
        for plans in PLANS:
            for transaction_id, most in ((10**6, 0), (300, count)):
                places = (tenants, [transaction_id] * count, [NO_JOB] * count, [0] * count)
                scans = await reads(connection, plans, SQL["feeds_behind"], *places)
                assert {scan.get("Index Name") for scan in scans} == {"job_events_in_order"}
                assert rows_read(scans) <= most


async def test_snapshots_are_read_by_state(domain: Domain, tenants: list[TenantId]) -> None:
    async with domain.database.tenant_tx(tenants[0]) as connection:
        for plans in PLANS:
            scans = await reads(connection, plans, SQL["feed_jobs"], tenants[0], OPEN, [], None, None, 50)
            assert {scan.get("Index Name") for scan in scans} == {"jobs_by_state"}
            assert rows_read(scans) <= 50
