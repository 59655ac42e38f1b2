"""Billing: holds, prices, calls, budgets and what callers are told of them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from memoro_core.billing.bounds import CostBounds
from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.guard import CostGuard
from memoro_core.billing.prices import PriceBook
from memoro_core.billing.pricing import PricingService
from memoro_core.billing.questions import CostMeter
from memoro_core.billing.service import BillingService
from memoro_core.billing.usage import UsageService
from memoro_core.container.ground import Ground
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.call_store import PostgresCallStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.price_store import PostgresPriceStore
from memoro_core.postgres.usage_store import PostgresUsageStore


@dataclass(frozen=True, slots=True)
class Billing:
    """What keeps the money."""

    holds: CreditHolds
    bounds: CostBounds
    guard: CostGuard
    questions: CostMeter
    accounts: BillingService
    pricing: PricingService
    breakers: BreakerService
    usage: UsageService


async def open_billing(ground: Ground, stack: AsyncExitStack) -> Billing:
    """Loads the prices and puts billing together."""
    settings, database, clock, calendar = ground.settings, ground.database, ground.clock, ground.calendar
    margin = settings.margin_basis_points
    holds = CreditHolds(calendar, margin_basis_points=margin)
    price_store = PostgresPriceStore(database)
    prices = await stack.enter_async_context(PriceBook(price_store, clock, refresh=settings.price_refresh))
    bounds = CostBounds(prices, ground.providers.embedding, ground.extractor, margin_basis_points=margin)
    usage = PostgresUsageStore(database)
    questions = CostMeter(usage, prices, calendar, clock)
    stack.push_async_callback(questions.close)
    calls = PostgresCallStore(database, holds, margin_basis_points=margin)
    accounts = PostgresCreditStore(database)
    breakers = BreakerService(PostgresBudgetStore(database), calendar, clock)
    return Billing(
        holds=holds,
        bounds=bounds,
        guard=CostGuard(calls, prices, calendar, clock),
        questions=questions,
        accounts=BillingService(accounts, clock),
        pricing=PricingService(price_store, prices, bounds, accounts, clock),
        breakers=breakers,
        usage=UsageService(usage, breakers, calendar, clock),
    )
