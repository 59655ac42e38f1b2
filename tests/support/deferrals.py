"""Letting jobs go and keeping budgets over a test's database, with days in UTC."""

from __future__ import annotations

from datetime import UTC

from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.calendar import Calendar
from memoro_core.clock import Clock, SystemClock
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.releasing import Releaser
from memoro_core.postgres.budget_store import PostgresBudgetStore
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Database
from memoro_core.postgres.deferral_store import PostgresDeferralStore


def deferrals_of(database: Database) -> PostgresDeferralStore:
    """Putting off and letting go, with days in UTC."""
    calendar = Calendar(UTC)
    return PostgresDeferralStore(database, CreditHolds(calendar, margin_basis_points=0), calendar)


def breakers_of(database: Database, clock: Clock | None = None) -> BreakerService:
    """Budgets, with days in UTC."""
    return BreakerService(PostgresBudgetStore(database), Calendar(UTC), clock or SystemClock())


def releaser_of(database: Database, tail: EventTail, clock: Clock | None = None) -> Releaser:
    """What lets jobs go."""
    clock = clock or SystemClock()
    return Releaser(deferrals_of(database), breakers_of(database, clock), tail, clock)
