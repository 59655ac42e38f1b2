"""What is old goes, with all that belongs to it; what is not, or is not over, stays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from memoro_core.idempotency import RETENTION, Idempotency
from memoro_core.ids import JobId, UserId
from memoro_core.jobs.model import JobState
from memoro_core.jobs.retention import Retention, RetentionPolicy
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.audit_store import PostgresAuditStore
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.retention_store import PostgresRetentionStore
from tests.support.domain import Domain, fresh_name

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
POLICY = RetentionPolicy(kept_succeeded=7 * DAY, kept_failed=30 * DAY, kept_audit=400 * DAY)
ENDED = ("SUCCEEDED", "CANCELLED", "FAILED")
_INSERT = """
WITH job AS (
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
                      last_seq, lease_expires_at, retry_of, created_at, ended_at)
    SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', $1, 2, 'u', '{}', '[]', 3, $2, 2,
           CASE WHEN $1 = 'RUNNING' THEN $2::timestamptz END, $5, $2,
           CASE WHEN $4 THEN $2::timestamptz + n * interval '1 millisecond' END
    FROM generate_series(1, $3) AS n
    RETURNING job_id
), told AS (
    INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
    SELECT current_tenant(), job_id, seq, '{}', $2 FROM job, generate_series(1, $6) AS seq
)
SELECT job_id FROM job
"""


def retention(domain: Domain) -> Retention:
    return Retention(
        PostgresRetentionStore(domain.database),
        PostgresRequestStore(domain.database),
        PostgresAuditStore(domain.database),
        POLICY,
    )


async def add_jobs(
    domain: Domain, state: str, age: timedelta, count: int = 1, *, retry_of: JobId | None = None, events: int = 2
) -> list[JobId]:
    """Jobs in a state, that came to it so long ago."""
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch(_INSERT, state, NOW - age, count, state in ENDED, retry_of, events, timeout=120)
    return [row["job_id"] for row in rows]


async def left(domain: Domain) -> set[JobId]:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        return {row["job_id"] for row in await connection.fetch("SELECT job_id FROM jobs")}


@pytest_asyncio.fixture
async def owner(owner_database_url: str) -> AsyncIterator[Any]:
    """The owner of the schema."""
    connection = await asyncpg.connect(owner_database_url)
    yield connection
    await connection.close()


async def test_jobs_go_by_state_and_age_with_their_events(domain: Domain) -> None:
    old = [*await add_jobs(domain, "SUCCEEDED", 8 * DAY, 3), *await add_jobs(domain, "CANCELLED", 8 * DAY)]
    old += await add_jobs(domain, "FAILED", 31 * DAY, 2)
    kept = await add_jobs(domain, "SUCCEEDED", 6 * DAY) + await add_jobs(domain, "FAILED", 29 * DAY)
    await retention(domain).sweep(NOW)
    assert await left(domain) == set(kept)
    assert await domain.count("job_events") == 2 * len(kept)
    assert not [job_id for job_id in old if await domain.job_store.get(domain.tenant, job_id)]


@pytest.mark.parametrize("state", [state for state in JobState if not state.terminal])
async def test_a_job_that_has_not_ended_stays_however_old(domain: Domain, state: JobState) -> None:
    waiting = await add_jobs(domain, state, 1000 * DAY)
    await retention(domain).sweep(NOW)
    assert await left(domain) == set(waiting)


async def test_a_job_that_was_done_again_may_go(domain: Domain) -> None:
    (failed,) = await add_jobs(domain, "FAILED", 31 * DAY)
    successor = await add_jobs(domain, "SUCCEEDED", DAY, retry_of=failed)
    await retention(domain).sweep(NOW)
    assert await left(domain) == set(successor)


async def test_a_tier_may_keep_its_jobs_longer_or_shorter(domain: Domain, owner: Any) -> None:
    name = fresh_name()
    await owner.execute(
        "INSERT INTO tiers (tier, weight, tenant_in_flight, user_in_flight, kept_succeeded, kept_failed)"
        " VALUES ($1, 1, 1, 1, '1 hour', '90 days')",
        name,
    )
    try:
        await owner.execute("UPDATE tenants SET tier = $2 WHERE tenant_id = $1", domain.tenant, name)
        failed = await add_jobs(domain, "FAILED", 80 * DAY)
        lately = await add_jobs(domain, "SUCCEEDED", timedelta(minutes=50))
        await add_jobs(domain, "CANCELLED", timedelta(minutes=70))
        sweeping = retention(domain)
        await sweeping.sweep(NOW)
        assert await left(domain) == {*failed, *lately}
        # A tenant that changes to another tier is caught up with within a day.
        await owner.execute("UPDATE tenants SET tier = 'pro' WHERE tenant_id = $1", domain.tenant)
        await sweeping.sweep(NOW + DAY)
        assert await left(domain) == set(lately)
    finally:
        await owner.execute("UPDATE tenants SET tier = 'pro' WHERE tier = $1", name)
        await owner.execute("DELETE FROM tiers WHERE tier = $1", name)


async def test_more_than_a_batch_goes_in_one_sweep(domain: Domain) -> None:
    await add_jobs(domain, "SUCCEEDED", 8 * DAY, 2500)
    kept = await add_jobs(domain, "FAILED", 8 * DAY, 3)
    await retention(domain).sweep(NOW)
    assert await left(domain) == set(kept)


async def test_a_memory_outlives_its_job(domain: Domain) -> None:
    made = await domain.memories.create(domain.tenant, NewMemory(UserId("u"), "I moved to Lyon."))
    assert made.job is not None
    await domain.job_store.cancel(domain.tenant, made.job.id, now=NOW)
    await retention(domain).sweep(NOW + 8 * DAY)
    assert await domain.job_store.get(domain.tenant, made.job.id) is None
    assert (await domain.memories.get(domain.tenant, made.memory.id)).job_id == made.job.id


async def test_request_ids_workers_and_times_of_schedules_go_too(domain: Domain, owner: Any) -> None:
    for name in ("old", "young"):
        await domain.memories.create(
            domain.tenant, NewMemory(UserId("u"), name), idempotency=Idempotency(name, b"f" * 32)
        )
    prefix = fresh_name()
    await owner.execute(
        "UPDATE idempotency_records SET created_at = $1 WHERE tenant_id = $2 AND request_id = 'old'",
        NOW - RETENTION - timedelta(seconds=1),
        domain.tenant,
    )
    for name, seen in (("alive", timedelta(minutes=59)), ("silent", timedelta(minutes=61))):
        await owner.execute(
            "INSERT INTO workers (worker_id, host, process_id, version, concurrency, started_at, seen_at)"
            " VALUES ($1, 'h', 1, '1', 1, $2, $2)",
            f"{prefix}-{name}",
            NOW - seen,
        )
    for name, ages in (("often", (40, 35, 1)), ("rarely", (400, 200))):
        for age in ages:
            await owner.execute(
                "INSERT INTO schedule_fires (schedule, fire_at, started_at, ended_at) VALUES ($1, $2, $2, $2)",
                f"{prefix}-{name}",
                NOW - age * DAY,
            )
    await retention(domain).sweep(NOW)
    workers = await owner.fetch("SELECT worker_id FROM workers WHERE worker_id LIKE $1", f"{prefix}%")
    fires = await owner.fetch(
        "SELECT schedule, fire_at FROM schedule_fires WHERE schedule LIKE $1 ORDER BY 1", f"{prefix}%"
    )
    requests = await owner.fetch("SELECT request_id FROM idempotency_records WHERE tenant_id = $1", domain.tenant)
    await owner.execute("DELETE FROM workers WHERE worker_id LIKE $1", f"{prefix}%")
    assert [row["worker_id"] for row in workers] == [f"{prefix}-alive"]
    assert [(row["schedule"], row["fire_at"]) for row in fires] == [
        (f"{prefix}-often", NOW - DAY),
        (f"{prefix}-rarely", NOW - 200 * DAY),
    ]
    assert [row["request_id"] for row in requests] == ["young"]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_sweep_reads_what_it_deletes_and_no_more(domain: Domain, owner: Any, *, analyzed: bool) -> None:
    """Of 100,000 jobs that have ended, most of them lately."""
    try:
        await add_jobs(domain, "SUCCEEDED", 5 * DAY, 80_000, events=0)
        await add_jobs(domain, "SUCCEEDED", 9 * DAY, 20_000)
        if analyzed:
            await owner.execute("ANALYZE jobs, job_events, tenants", timeout=120)
        sql = load_queries("retention")
        explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + sql["forget_jobs"]
        tier = await owner.fetchval("SELECT tier FROM tenants WHERE tenant_id = $1", domain.tenant)
        async with domain.database.system_tx() as connection:
            await connection.execute(sql["read_in_order"])
            text = await connection.fetchval(
                explain, NOW - 1000 * DAY, NOW - 7 * DAY, ["SUCCEEDED", "CANCELLED"], tier, 500, timeout=60
            )
        reads = [node for node in nodes(json.loads(text)[0]["Plan"]) if node.get("Relation Name") == "jobs"]
        scans = [node for node in reads if node["Node Type"] != "ModifyTable"]
        assert {(node["Node Type"], node["Index Name"]) for node in scans} == {
            ("Index Scan", "jobs_ended"),
            ("Index Scan", "jobs_pkey"),
        }
        # Each of 500 jobs is found, and then deleted.
        assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) == 500 * 2
        assert len(await left(domain)) == 99_500
    finally:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("DELETE FROM job_events", timeout=120)
            await connection.execute("DELETE FROM jobs", timeout=120)
        await owner.execute("VACUUM ANALYZE jobs, job_events", timeout=120)
