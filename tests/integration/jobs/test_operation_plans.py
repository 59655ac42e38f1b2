"""What operators ask stays quick with many jobs: each statement steps along the index of what it looks for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from memoro_core.postgres.queries import load_queries
from tests.support.domain import Domain
from tests.support.jobs import now

WAITING, HINTED, DEFERRED, ENDED = 20_000, 100, 1_000, 60_000
HOUR = timedelta(hours=1)
INSERT = """
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
                      hinted_at, last_seq, created_at, ended_at, error)
    SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', $2, 2, 'u', ARRAY[gen_random_uuid()], '[]', 5,
           now() + $3::interval, CASE WHEN $4 THEN now() END, 1, now(),
           CASE WHEN $5 THEN now() - n * interval '30 seconds' END, '{"reason": "INTERNAL"}'
    FROM generate_series(1, $1::integer) AS n
"""


@pytest.fixture
async def many(domain: Domain, owner_database_url: str) -> AsyncIterator[Domain]:
    """Many jobs of one tenant, which are gone again when the test is over."""
    async with domain.database.tenant_tx(domain.tenant) as connection:
        for count, state, ahead, hinted, ended in (
            (WAITING, "QUEUED", -HOUR, False, False),
            (HINTED, "QUEUED", -HOUR, True, False),
            (DEFERRED, "DEFERRED", HOUR, False, False),
            (ENDED * 19 // 20, "SUCCEEDED", -HOUR, False, True),
            (ENDED // 20, "FAILED", -HOUR, False, True),
        ):
            await connection.execute(INSERT, count, state, ahead, hinted, ended)
    owner = await asyncpg.connect(owner_database_url)
    try:
        await owner.execute("VACUUM ANALYZE jobs")
        yield domain
    finally:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("DELETE FROM jobs")
        await owner.execute("VACUUM ANALYZE jobs")
        await owner.close()


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in _nodes(part))]


async def scans(domain: Domain, file: str, name: str, *parameters: object) -> dict[str, float]:
    """Which indexes of `jobs` a statement reads, and how many rows it gets from each. What it changes is taken back."""
    explain = "EXPLAIN (ANALYZE, FORMAT JSON) " + load_queries(file)[name]
    read: dict[str, float] = {}
    async with domain.database.system_tx() as connection:
        await connection.execute("SAVEPOINT before")
        text = await connection.fetchval(explain, *parameters)
        await connection.execute("ROLLBACK TO before")
    for node in _nodes(json.loads(text)[0]["Plan"]):
        if node.get("Relation Name") == "jobs" and node["Node Type"] != "ModifyTable":
            index = node.get("Index Name") or next(
                (part["Index Name"] for part in _nodes(node) if "Index Name" in part), node["Node Type"]
            )
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            read[index] = read.get(index, 0) + rows
    return read


async def test_the_figures_of_the_queues_come_from_indexes(many: Domain) -> None:
    read = await scans(many, "queues", "queues", now(), now() - HOUR, now() - timedelta(minutes=1))
    assert read.keys() <= {
        "jobs_waiting",
        "jobs_hinted",
        "jobs_leased",
        "jobs_in_flight",
        "jobs_deferred",
        "jobs_by_state",
        "jobs_ended",
    }
    # An hour of what has ended, not all of it.
    assert read["jobs_ended"] < ENDED / 100


async def test_what_is_to_be_cleared_is_found_in_the_queue(many: Domain) -> None:
    read = await scans(many, "queues", "waiting", None, many.tenant, [], False, 1_001)
    assert "Seq Scan" not in read
    assert sum(read.values()) < WAITING * 1.1
    read = await scans(many, "queues", "waiting", "enterprise", None, [], True, 1_001)
    assert "Seq Scan" not in read


async def test_what_is_to_be_requeued_is_read_as_far_as_it_is_wanted(many: Domain) -> None:
    read = await scans(many, "retries", "not_retried", ["FAILED"], None, [], None, None, None, None, None, None, 501)
    assert read["jobs_ended"] < 1_000
    assert "Seq Scan" not in read


async def test_nothing_is_read_as_long_as_nothing_is_due_again(many: Domain) -> None:
    read = await scans(many, "deferrals", "release", now(), now(), None, 500, {"state": "QUEUED"})
    assert read.pop("jobs_deferred") < 10
    assert sum(read.values()) < 10
    read = await scans(many, "deferrals", "release", now(), now() + 2 * HOUR, None, 50, {"state": "QUEUED"})
    assert read["jobs_deferred"] < 100


async def test_what_is_due_later_is_looked_for_in_the_queue_only(many: Domain) -> None:
    read = await scans(many, "deferrals", "hasten", now(), None, 500, {"state": "QUEUED"})
    assert "Seq Scan" not in read
    assert sum(read.values()) < WAITING * 1.1
