"""What tenants have, are held for, and may spend, as tests give it and look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from memoro_core.billing.model import BudgetScope, Cause, CreditAccount, Grant
from memoro_core.ids import GrantId, JobId, TenantId, new_id
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import Database


@dataclass(frozen=True)
class Purse:
    """The money of a test's tenants."""

    database: Database

    async def give(self, tenant_id: TenantId, amount: int) -> None:
        """Credits that never expire."""
        now = datetime.now(UTC)
        grant = Grant(GrantId(new_id()), amount, amount, 50, None, "", now)
        await PostgresCreditStore(self.database).add_credits(tenant_id, grant, Cause(), None, now=now)

    async def account(self, tenant_id: TenantId) -> CreditAccount:
        """What a tenant has."""
        return (await PostgresCreditStore(self.database).balance(tenant_id)).account

    async def limit(self, tenant_id: TenantId, scope: BudgetScope, daily: int) -> None:
        """Sets a daily budget of a tenant, or of each of its users."""
        async with self.database.system_tx() as connection:
            await connection.execute(
                "INSERT INTO budgets (tenant_id, scope, daily_limit) VALUES ($1, $2, $3)"
                " ON CONFLICT (tenant_id, scope) DO UPDATE SET daily_limit = excluded.daily_limit",
                tenant_id,
                scope,
                daily,
            )

    async def held(self, tenant_id: TenantId) -> Mapping[JobId, int]:
        """What is set aside, by job."""
        async with self.database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch("SELECT job_id, amount FROM credit_holds WHERE state = 'PENDING'")
        return {row["job_id"]: row["amount"] for row in rows}
