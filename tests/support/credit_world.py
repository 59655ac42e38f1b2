"""One tenant's money in the real database, at a time of the test's own, and everything that may happen to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import asyncpg

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import (
    DEPLOYMENT,
    Balance,
    BudgetKey,
    BudgetScope,
    HoldRequest,
    HoldVerdict,
    LedgerEntry,
    Verification,
)
from memoro_core.ids import JobId, TenantId, UserId
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.credit_rows import entry_of
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import Database
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from tests.support.crashes import CrashingDatabase
from tests.support.credit_model import ModelCall
from tests.support.domain import make_tenant

MARGINS: Final = (1_000, 0, 333)
CALENDAR: Final = Calendar(UTC)
_ACCEPT: Final = """
INSERT INTO jobs (tenant_id, job_id, kind, state, priority, user_id, memory_ids, stages, max_attempts, run_at, last_seq,
                  created_at)
SELECT $1, job_id, 'memory.enrich', 'QUEUED', 2, user_id, '{}', '[]', 5, $4, 1, $4
FROM unnest($2::uuid[], $3::text[]) AS job (job_id, user_id)
ON CONFLICT DO NOTHING
"""
_CALL: Final = """
INSERT INTO ai_calls (tenant_id, job_id, attempt, call, user_id, day, provider, model, operation, state, failed,
                      request_hash, input_tokens, output_tokens, items, input_price, output_price, fee, started_at,
                      ended_at)
VALUES ($1, $2, $3, $4, 'alice', $5, 'openai', 'm', 'embed', $6, $7, $8, $9, 0, $10, $11, 0, $12, $13, $14)
"""
_END: Final = "UPDATE jobs SET state = 'FAILED', ended_at = $3 WHERE tenant_id = $1 AND job_id = ANY ($2::uuid[])"
_RESET: Final = """
UPDATE budget_days
SET raised = raised + $3, state = CASE state WHEN 'OPEN' THEN 'HALF_OPEN' ELSE state END
WHERE tenant_id IN ($1, '00000000-0000-0000-0000-000000000000') AND day = $2
"""
_ENDPOINT: Final = """
INSERT INTO webhook_endpoints (tenant_id, endpoint_id, url, event_types, description, state, secret, created_at)
VALUES ($1, gen_random_uuid(), 'https://example.com', '{}', '', 'ENABLED', '', now())
"""


@dataclass
class CreditWorld:
    """What operators, callers and workers do to one tenant's money."""

    tenant: TenantId
    database: CrashingDatabase
    owner: asyncpg.Connection[asyncpg.Record]
    store: PostgresCreditStore
    now: datetime

    async def hold(self, requests: Sequence[HoldRequest], margin: int) -> Sequence[HoldVerdict]:
        """With the rows of the jobs, as when they are accepted."""
        async with self.database.tenant_tx(self.tenant) as connection:
            verdicts = await self.holds(margin).hold_in(connection, self.tenant, requests, now=self.now)
            job_ids = [request.job_id for request in requests]
            await connection.execute(_ACCEPT, self.tenant, job_ids, [request.user_id for request in requests], self.now)
        return verdicts

    async def extend(self, job_id: JobId, amount: int, margin: int) -> None:
        async with self.database.tenant_tx(self.tenant) as connection:
            await self.holds(margin).extend_in(connection, self.tenant, job_id, amount, now=self.now)

    async def call(self, job_id: JobId, number: int, call: ModelCall) -> None:
        async with self.database.tenant_tx(self.tenant) as connection:
            await connection.execute(
                _CALL,
                self.tenant,
                job_id,
                call.attempt,
                number,
                self.now.date(),
                call.state,
                call.failed,
                bytes([call.request]),
                call.tokens,
                call.items,
                call.price,
                call.fee,
                self.now,
                None if call.state == "OPEN" else self.now,
            )

    async def resolve(self, job_ids: Sequence[JobId], *, end: bool) -> Mapping[JobId, int]:
        """As a transaction that ends the jobs does, or one that comes again."""
        async with self.database.tenant_tx(self.tenant) as connection:
            if end:
                await connection.execute(_END, self.tenant, list(job_ids), self.now)
            return await self.holds(0).resolve_in(connection, self.tenant, job_ids, now=self.now)

    async def set_limit(self, scope: BudgetScope, limit: int | None) -> None:
        key = BudgetKey(scope, DEPLOYMENT if scope is BudgetScope.DEPLOYMENT else self.tenant)
        await PostgresBudgetStore(self.database).set_limit(key, limit, CALENDAR.day(self.now), None, now=self.now)

    async def reset(self, raised: int) -> None:
        """Lets all budgets of today have more."""
        await self.owner.execute(_RESET, self.tenant, self.now.date(), raised)

    def holds(self, margin: int) -> CreditHolds:
        return CreditHolds(CALENDAR, margin_basis_points=margin)

    # ------------------------------------------------------------------------------------------- what is there

    async def balance(self) -> Balance:
        return await self.store.balance(self.tenant)

    async def verify(self) -> Verification:
        return await self.store.verify(self.tenant, within=60)

    async def entries(self) -> Sequence[LedgerEntry]:
        return [
            entry_of(row)
            for row in await self.owner.fetch(
                "SELECT * FROM ledger_entries WHERE tenant_id = $1 ORDER BY seq", self.tenant
            )
        ]

    async def rows(self, table: str) -> Sequence[asyncpg.Record]:
        """All rows of the tenant, and of the deployment."""
        return await self.owner.fetch(
            f"SELECT * FROM {table} WHERE tenant_id IN ($1, '00000000-0000-0000-0000-000000000000')", self.tenant
        )

    async def events(self) -> Counter[str]:
        rows = await self.owner.fetch("SELECT event_type FROM webhook_deliveries WHERE tenant_id = $1", self.tenant)
        return Counter(row["event_type"] for row in rows)

    async def forget_deployment(self) -> None:
        """Other tests have no budgets."""
        for table in ("budgets", "budget_days", "alerts"):
            await self.owner.execute(f"DELETE FROM {table} WHERE tenant_id = '00000000-0000-0000-0000-000000000000'")


@asynccontextmanager
async def open_credit_world(database: Database, owner_url: str, start: datetime) -> AsyncIterator[CreditWorld]:
    """A fresh tenant with a webhook endpoint, and no budget of the deployment's."""
    owner = await asyncpg.connect(owner_url)
    try:
        tenant = await make_tenant(PostgresTenancyStore(database))
        await owner.execute(_ENDPOINT, tenant)
        crashing = CrashingDatabase(database)
        world = CreditWorld(tenant, crashing, owner, PostgresCreditStore(crashing), start)
        await world.forget_deployment()
        yield world
        await world.forget_deployment()
    finally:
        await owner.close()


def user_of(number: int) -> UserId:
    return UserId("alice" if number % 3 else "bob")
