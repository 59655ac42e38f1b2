"""What benchmarks write into the tables themselves, and what they read there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest_asyncio

from benchmarks import backlog
from benchmarks.outcome import Outcome, count_unended, read_outcome
from memoro_core.ids import TenantId, UserId
from memoro_core.memory.model import NewMemory
from tests.support.domain import Domain
from tests.support.jobs import claim, new_job, now, succeeded

Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
OF_EACH_ROW = {
    "jobs": {
        "job_id",
        "tenant_id",
        "user_id",
        "memory_ids",
        "created_at",
        "run_at",
        "rank_at",
        "hinted_at",
        "in_flight",
        "waiting",
    },
    "memories": {"memory_id", "job_id", "tenant_id", "user_id", "text", "content_hash"}
    | {"occurred_at", "created_at", "updated_at", "lexemes"},
    "job_events": {"job_id", "tenant_id", "created_at", "transaction_id", "event"},
}
"""Columns whose values are a row's own, or say that workers have been told of it."""


@pytest_asyncio.fixture
async def owner(owner_database_url: str) -> AsyncIterator[Owner]:
    """A connection that sees all rows."""
    connection = await asyncpg.connect(owner_database_url)
    yield connection
    await connection.close()


async def common_columns(owner: Owner, table: str, tenant: TenantId) -> list[dict[str, object]]:
    """The tenant's rows, each without what is its own."""
    rows = await owner.fetch(f"SELECT * FROM {table} WHERE tenant_id = $1", tenant)
    return [{name: value for name, value in row.items() if name not in OF_EACH_ROW[table]} for row in rows]


async def test_a_backlog_looks_as_if_its_jobs_had_been_accepted(domain: Domain, owner: Owner) -> None:
    await domain.memories.create(domain.tenant, NewMemory(UserId("user-1"), backlog.TEXT.format(1)))
    other = await domain.new_tenant()
    await backlog.fill(owner, other, 3)
    for table in OF_EACH_ROW:
        [accepted] = await common_columns(owner, table, domain.tenant)
        assert await common_columns(owner, table, other) == [accepted] * 3
    events = await owner.fetch("SELECT event FROM job_events WHERE tenant_id = ANY ($1)", [domain.tenant, other])
    assert len({tuple(json.loads(row["event"])) for row in events}) == 1


async def test_a_backlog_is_filled_up_and_dropped(domain: Domain, owner: Owner) -> None:
    await new_job(domain)
    await backlog.fill(owner, domain.tenant, 5)
    await backlog.fill(owner, domain.tenant, 3)
    assert await count_unended(owner, domain.tenant) == 5
    await backlog.drop(owner, domain.tenant)
    assert [await domain.count(table) for table in OF_EACH_ROW] == [0, 0, 0]


async def test_jobs_that_have_not_ended_are_lost_and_have_no_end(domain: Domain, owner: Owner) -> None:
    refs = [await new_job(domain) for _ in range(2)]
    outcome = await read_outcome(owner, domain.tenant, [str(ref.job_id) for ref in refs])
    assert (outcome.accepted, outcome.lost, outcome.not_ended_once) == (2, 2, 2)
    assert not outcome.whole


async def test_results_that_a_job_claims_but_that_are_not_there_are_seen(domain: Domain, owner: Owner) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    await domain.run_store.finish(held, succeeded(held), now=now())
    assert await read_outcome(owner, domain.tenant, [str(ref.job_id)]) == Outcome(1, 0, 0, 1, 0)


async def test_an_end_that_is_told_twice_is_seen(domain: Domain, owner: Owner) -> None:
    ref = await new_job(domain)
    held = await claim(domain.run_store, ref)
    await domain.run_store.finish(held, succeeded(held), now=now())
    await owner.execute(
        """
        INSERT INTO job_events (tenant_id, job_id, seq, event, created_at)
        SELECT tenant_id, job_id, seq + 1, event, created_at FROM job_events WHERE job_id = $1 ORDER BY seq DESC LIMIT 1
        """,
        ref.job_id,
    )
    assert (await read_outcome(owner, domain.tenant, [str(ref.job_id)])).not_ended_once == 1
