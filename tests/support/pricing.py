"""Prices that a test sets, and credits that it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from memoro_core.billing.bounds import CostBounds
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.errors import price_unknown
from memoro_core.billing.guard import CostGuard
from memoro_core.billing.model import Cause, CreditAccount, Grant, Price
from memoro_core.clock import SystemClock
from memoro_core.ids import GrantId, TenantId, new_id
from memoro_core.llm.local import LocalEmbeddingProvider, LocalExtractionProvider
from memoro_core.llm.model import Operation
from memoro_core.postgres.call_store import PostgresCallStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import Database

MARGIN = 5_000
"""Half of the cost on top."""


@dataclass
class FixedPrices:
    """`Prices` that hold at all times, whatever the model; nothing costs anything until `set` says so."""

    prices: dict[Operation, tuple[int, int, int]] = field(default_factory=lambda: dict.fromkeys(Operation, (0, 0, 0)))

    def set(self, operation: Operation, *, input_price: int = 0, output_price: int = 0, fee: int = 0) -> None:
        """What an operation costs from now on."""
        self.prices[operation] = (input_price, output_price, fee)

    def price(self, provider: str, model: str, operation: Operation, at: datetime) -> Price:
        if operation not in self.prices:
            raise price_unknown(provider, model, operation, at)
        return Price(provider, model, operation, *self.prices[operation], datetime.min.replace(tzinfo=UTC))


@dataclass
class Money:
    """What a test's jobs cost, and what its tenants have."""

    database: Database
    prices: FixedPrices = field(default_factory=FixedPrices)
    holds: CreditHolds = field(default_factory=lambda: CreditHolds(Calendar(UTC), margin_basis_points=MARGIN))
    bounds: CostBounds = field(init=False)
    guard: CostGuard = field(init=False)

    def __post_init__(self) -> None:
        # Bounds need no weights: nothing is loaded, and nothing has to be closed.
        self.bounds = CostBounds(
            self.prices, LocalEmbeddingProvider(), LocalExtractionProvider(), margin_basis_points=MARGIN
        )
        calls = PostgresCallStore(self.database, self.holds, margin_basis_points=MARGIN)
        self.guard = CostGuard(calls, self.prices, Calendar(UTC), SystemClock())

    async def give(self, tenant_id: TenantId, amount: int) -> None:
        """Credits that never expire."""
        now = datetime.now(UTC)
        grant = Grant(GrantId(new_id()), amount, amount, 50, None, "", now)
        await PostgresCreditStore(self.database).add_credits(tenant_id, grant, Cause(), None, now=now)

    async def account(self, tenant_id: TenantId) -> CreditAccount:
        """What a tenant has."""
        return (await PostgresCreditStore(self.database).balance(tenant_id)).account

    async def limit(self, tenant_id: TenantId, scope: str, daily: int) -> None:
        """Sets a daily budget of a tenant, or of each of its users."""
        async with self.database.system_tx() as connection:
            await connection.execute(
                "INSERT INTO budgets (tenant_id, scope, daily_limit) VALUES ($1, $2, $3)"
                " ON CONFLICT (tenant_id, scope) DO UPDATE SET daily_limit = excluded.daily_limit",
                tenant_id,
                scope,
                daily,
            )

    async def holds_of(self, tenant_id: TenantId) -> dict[Any, int]:
        """What is set aside, by job."""
        async with self.database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch("SELECT job_id, amount FROM credit_holds WHERE state = 'PENDING'")
        return {row["job_id"]: row["amount"] for row in rows}
