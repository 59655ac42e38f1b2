"""What workers and the scheduler do all the time reads what it changes, however many jobs wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from memoro_core.embedded.stack import Stack
from memoro_core.jobs.model import JobKind, JobRef
from memoro_core.postgres.job_rows import claim_columns, ref_columns
from memoro_core.settings import Settings
from tests.support.domain import Domain
from tests.support.jobs import now, try_claim
from tests.support.plans import scans

WAITING, USERS, BATCH = 30_000, 3_000, 60
LOOKED_AT = 500
"""Users of a tenant that one choice looks at."""
FEW = 5 * BATCH
"""Each job is found two or three times in a statement."""


@pytest.fixture
def settings(quiet_settings: Settings) -> Settings:
    """Of servers where statistics are of these tests alone."""
    return quiet_settings


@pytest.fixture
def owner_database_url(quiet_stack: Stack) -> str:
    """Of the same."""
    return quiet_stack.owner_url


@pytest.fixture(params=[False, True], ids=["unknown to the planner", "analyzed"])
async def queue(domain: Domain, owner_database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[list[JobRef]]:
    """Very many waiting jobs of one tenant; some of them."""
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            """
            INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts,
                              run_at, last_seq, created_at)
            SELECT current_tenant(), gen_random_uuid(), 'memory.enrich', 'QUEUED', 2, 'user-' || number % $2::integer,
                   ARRAY[gen_random_uuid()], $3::jsonb, 5, now(), 1, now()
            FROM generate_series(1, $1::integer) AS number
            """,
            WAITING,
            USERS,
            [{"stage": "COMMIT", "status": "PENDING", "completed": 0, "total": 0}],
        )
        rows = await connection.fetch("SELECT job_id FROM jobs WHERE user_id < 'user-2' LIMIT $1", BATCH)
    owner = await asyncpg.connect(owner_database_url)
    try:
        if request.param:
            await owner.execute("VACUUM ANALYZE jobs")
        yield [JobRef(domain.tenant, row["job_id"]) for row in rows]
    finally:
        async with domain.database.tenant_tx(domain.tenant) as connection:
            await connection.execute("DELETE FROM jobs")
        # Indexes that have grown would change the plans of other tests.
        await owner.execute("VACUUM (FULL, ANALYZE) jobs")
        await owner.close()


async def test_choosing_whose_turn_it_is(domain: Domain, queue: list[JobRef]) -> None:
    # Also of what other tests have left in flight.
    async with domain.database.system_tx() as connection:
        in_flight = await connection.fetchval("SELECT count(*) FROM jobs WHERE in_flight")
    assert sum((await scans(domain, "scheduling", "load", now() - timedelta(minutes=1))).values()) < in_flight + FEW
    read = await scans(domain, "scheduling", "tenants_waiting", now(), BATCH)
    assert sum(read.values()) < FEW
    read = await scans(domain, "scheduling", "hint", [domain.tenant], [BATCH], [""], now())
    # Each user once to be found, once for its first job.
    assert sum(read.values()) < 2 * LOOKED_AT + FEW


async def test_choosing_among_very_many_that_wait_for_a_later_attempt(domain: Domain, queue: list[JobRef]) -> None:
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            "UPDATE jobs SET delayed = true, run_at = now() + make_interval(secs => 1 + random() * 299)"
            " WHERE job_id <> $1",
            queue[0].job_id,
        )
    for name, parameters in (
        ("come_due", (now(), 1_000)),
        ("tenants_waiting", (now(), BATCH)),
        ("hint", ([domain.tenant], [BATCH], [""], now())),
    ):
        assert sum((await scans(domain, "scheduling", name, *parameters)).values()) < FEW, name
    due = await domain.waiting.tenants_waiting(now=now(), limit=BATCH)
    assert [one.jobs for one in due if one.tenant_id == domain.tenant] == [1]
    later = now() + timedelta(minutes=6)
    due = await domain.waiting.tenants_waiting(now=later, limit=BATCH)
    assert [one.jobs for one in due if one.tenant_id == domain.tenant] == [BATCH]


async def test_claiming(domain: Domain, queue: list[JobRef]) -> None:
    at = now()
    read = await scans(
        domain,
        "runs",
        "claim",
        *ref_columns(queue),
        at,
        at,
        "w",
        at,
        {"state": "RUNNING"},
        dict.fromkeys(JobKind, 60.0),
    )
    assert sum(read.values()) < FEW


async def test_keeping_and_reporting(domain: Domain, queue: list[JobRef]) -> None:
    claims = await try_claim(domain.run_store, queue)
    assert len(claims) == BATCH
    for name, *parameters in (("extend", now()), ("cancel_requests",)):
        read = await scans(domain, "leases", name, *claim_columns(claims), *parameters)
        assert sum(read.values()) < FEW, name
    progress = [
        {
            "tenant_id": one.ref.tenant_id,
            "job_id": one.ref.job_id,
            "lease": one.lease,
            "stages": one.job.stages,
            "event": {"state": "RUNNING"},
        }
        for one in claims
    ]
    assert sum((await scans(domain, "runs", "report", progress, now())).values()) < FEW


async def test_ending(domain: Domain, queue: list[JobRef]) -> None:
    claims = await try_claim(domain.run_store, queue)
    ends = [
        {
            "job_id": one.ref.job_id,
            "lease": one.lease,
            "state": "FAILED",
            "stages": [],
            "partial": False,
            "input_tokens": 0,
            "output_tokens": 0,
            "event": {"state": "FAILED"},
        }
        for one in claims
    ]
    read = await scans(domain, "runs", "finish", domain.tenant, ends, now(), of_tenant=True)
    assert sum(read.values()) < FEW
    read = await scans(domain, "runs", "expired", now(), 500)
    assert read.keys() == {"jobs_leased"}
    read = await scans(
        domain,
        "runs",
        "hold_expired",
        *(domain.tenant, *claim_columns(claims)[1:]),
        now() + timedelta(hours=1),
        of_tenant=True,
    )
    assert sum(read.values()) < FEW
