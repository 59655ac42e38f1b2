"""Request ids are forgotten when their time is over, and not before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from memoro_core.idempotency import RETENTION, Idempotency
from memoro_core.ids import UserId
from memoro_core.memory.model import NewMemory
from memoro_core.postgres.idempotency_store import PostgresRequestStore
from tests.support.domain import Domain


async def test_only_old_ones_are_forgotten(domain: Domain) -> None:
    for name in ("old", "young"):
        await domain.memories.create(
            domain.tenant, NewMemory(UserId("u"), name), idempotency=Idempotency(name, b"f" * 32)
        )
    now = datetime.now(UTC)
    async with domain.database.tenant_tx(domain.tenant) as connection:
        await connection.execute(
            "UPDATE idempotency_records SET created_at = $1 WHERE request_id = 'old'",
            now - RETENTION - timedelta(seconds=1),
        )
    assert await PostgresRequestStore(domain.database).forget(before=now - RETENTION, limit=100_000) >= 1
    async with domain.database.tenant_tx(domain.tenant) as connection:
        rows = await connection.fetch("SELECT request_id FROM idempotency_records")
    assert [row["request_id"] for row in rows] == ["young"]
