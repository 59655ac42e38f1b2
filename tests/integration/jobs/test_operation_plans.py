"""What operators ask stays quick with many jobs: each statement steps along the index of what it looks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from memoro_core.embedded.stack import Stack
from memoro_core.ids import new_id
from memoro_core.postgres.queries import load_queries
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.jobs import now
from tests.support.plans import reads, scans

WAITING, HINTED, DEFERRED, ENDED = 10_000, 100, 1_000, 40_000
HOUR = timedelta(hours=1)
INSERT = """
    INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at,
                      hinted_at, last_seq, created_at, ended_at, error)
    SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', $2, 2, 'u', ARRAY[gen_random_uuid()], '[]', 5,
           now() + $3::interval, CASE WHEN $4 THEN now() END, 1, now(),
           CASE WHEN $5 THEN now() - n * interval '30 seconds' END,
           '{"reason": "INTERNAL", "message": "no use", "retryable": false}'
    FROM generate_series(1, $1::integer) AS n
"""


@pytest.fixture
def settings(quiet_settings: Settings) -> Settings:
    """Of servers where statistics are of these tests alone."""
    return quiet_settings


@pytest.fixture
def owner_database_url(quiet_stack: Stack) -> str:
    """Of the same."""
    return quiet_stack.owner_url


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
    # An hour of what has ended, other tests' jobs among it, not all of it.
    assert read["jobs_ended"] < ENDED / 4


async def test_what_is_to_be_cleared_is_found_in_the_queue(many: Domain) -> None:
    read = await scans(many, "queues", "waiting", None, many.tenant, [], False, 1_001)
    assert "Seq Scan" not in read
    assert sum(read.values()) < WAITING * 2
    read = await scans(many, "queues", "waiting", "enterprise", None, [], True, 1_001)
    assert "Seq Scan" not in read


async def test_of_what_has_ended_only_what_can_be_requeued_is_read(many: Domain) -> None:
    read = await scans(many, "retries", "not_retried", ["FAILED"], None, [], None, None, None, None, None, None, 501)
    assert "Seq Scan" not in read
    # Never what succeeded.
    assert sum(read.values()) < ENDED / 10


async def test_nothing_is_read_as_long_as_nothing_is_due_again(many: Domain) -> None:
    read = await scans(many, "deferrals", "release", now(), now(), None, 500, {"state": "QUEUED"})
    assert read.pop("jobs_deferred") < 10
    assert sum(read.values()) < 10
    read = await scans(many, "deferrals", "release", now(), now() + 2 * HOUR, None, 50, {"state": "QUEUED"})
    assert read["jobs_deferred"] < 100


async def test_what_is_due_later_is_looked_for_in_the_queue_only(many: Domain) -> None:
    read = await scans(many, "deferrals", "hasten", now(), None, 500, {"state": "QUEUED"})
    assert "Seq Scan" not in read
    assert sum(read.values()) < WAITING * 2


@pytest.mark.parametrize(
    ("file", "name", "state", "rest"),
    [
        ("jobs", "cancel_waiting", "QUEUED", "now(), {events}"),
        ("retries", "lock_work", "FAILED", None),
        ("retries", "retry", "FAILED", "{new_ids}, now(), 5, {amounts}, {nothing}, {nothing}, {events}"),
    ],
)
async def test_a_batch_reads_what_it_changes_of_a_tenant_that_the_planner_thinks_small(
    domain: Domain, file: str, name: str, state: str, rest: str | None
) -> None:
    """As it does of every tenant that has come since the statistics were made."""
    async with domain.database.tenant_tx(domain.tenant, generic_plans=True) as connection:
        await connection.execute("SAVEPOINT before")
        await connection.execute(INSERT, 5_000, state, -HOUR, False, state == "FAILED")
        await connection.execute(
            "INSERT INTO memories (tenant_id, memory_id, user_id, kind, text, content_hash, status, occurred_at,"
            " job_id, created_at, updated_at)"
            " SELECT tenant_id, memory_ids[1], 'u', 'TEXT', 'tea', '\\x00', 'FAILED', now(), job_id, now(), now()"
            " FROM jobs"
        )
        rows = await connection.fetch("SELECT job_id FROM jobs LIMIT 100")
        arrays = {
            "ids": "'{" + ",".join(str(row["job_id"]) for row in rows) + "}'",
            "new_ids": "'{" + ",".join(str(new_id()) for _ in rows) + "}'",
            "amounts": "'{" + ",".join(["7"] * 100) + "}'",
            "nothing": "'{" + ",".join(["NULL"] * 100) + "}'",
            "events": "ARRAY[" + ",".join(["'{}'::jsonb"] * 100) + "]",
        }
        await connection.execute(f"PREPARE batch AS {load_queries(file)[name]}")
        arguments = [f"'{domain.tenant}'", arrays["ids"], *([rest.format(**arrays)] if rest else [])]
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE batch({', '.join(arguments)})")
        await connection.execute("DEALLOCATE batch")
        await connection.execute("ROLLBACK TO before")
    # What is retried, seldom enough, may be looked for among all memories of such a tenant.
    for table in ("jobs",) if name == "retry" else ("jobs", "memories"):
        assert sum(reads(text, table).values()) < 1_000, table
