"""Jobs that cost something, budgets, and a clock of the test's own: what is spent, and what has to wait."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from memoro_core.billing.bounds import CostBounds
from memoro_core.billing.breaker_model import BreakerStatus
from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import (
    DEPLOYMENT,
    BreakerState,
    BudgetKey,
    BudgetScope,
    Cause,
    DeferralReason,
    Grant,
)
from memoro_core.ids import ApiKeyId, GrantId, JobId, TenantId, UserId, new_id
from memoro_core.jobs.model import Job, JobEvent, JobRef, JobState
from memoro_core.jobs.releasing import Releaser
from memoro_core.limits.model import NO_LIMITS
from memoro_core.llm.model import Operation
from memoro_core.memory.model import NewMemory
from memoro_core.memory.priority import PriorityRule
from memoro_core.memory.service import MemoryService
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.credit_store import PostgresCreditStore
from memoro_core.postgres.database import Connection
from memoro_core.postgres.deferral_store import PostgresDeferralStore
from memoro_core.postgres.memory_store import PostgresMemoryStore
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from tests.support.deferrals import breakers_of
from tests.support.domain import Domain, Hints
from tests.support.enrichment import DirectionEmbedder
from tests.support.job_world import SetClock
from tests.support.pricing import FixedPrices

ALICE: Final = UserId("alice")
PLENTY: Final = 10**12
_MOMENTS = itertools.count()


class NoTail:
    """A live tail that nobody follows."""

    def __init__(self) -> None:
        self.told: list[tuple[JobId, JobEvent]] = []

    async def publish(self, tenant_id: TenantId, job_id: JobId, events: Sequence[JobEvent]) -> None:
        self.told += [(job_id, event) for event in events]


@dataclass
class Spending:
    """What tenants spend and operators allow, at the clock's time. Jobs are of the domain's tenant unless said."""

    domain: Domain
    clock: SetClock
    releaser: Releaser
    breakers: BreakerService
    deferrals: PostgresDeferralStore
    holds: CreditHolds
    memories: MemoryService
    prices: FixedPrices
    credits: PostgresCreditStore
    tail: NoTail
    principal: Principal
    budgets: list[BudgetKey] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        return self.clock.moment

    def pass_time(self, **delta: float) -> datetime:
        """Lets time go by."""
        self.clock.moment += timedelta(**delta)
        return self.clock.moment

    def next_day(self) -> datetime:
        """Goes to the first moment of the next day."""
        self.clock.moment = Calendar(UTC).day_end(self.now)
        return self.clock.moment

    async def fund(self, amount: int = PLENTY, tenant_id: TenantId | None = None) -> None:
        """Gives a tenant credits."""
        grant = Grant(GrantId(new_id()), amount, amount, 0, None, "", self.now)
        await self.credits.add_credits(tenant_id or self.domain.tenant, grant, Cause(), None, now=self.now)

    def key(
        self, scope: BudgetScope = BudgetScope.TENANT, user_id: UserId | None = None, tenant_id: TenantId | None = None
    ) -> BudgetKey:
        """The budget of that scope that bounds the tenant's jobs."""
        owner = DEPLOYMENT if scope is BudgetScope.DEPLOYMENT else (tenant_id or self.domain.tenant)
        return BudgetKey(scope, owner, user_id)

    async def limit(
        self, amount: int | None, scope: BudgetScope = BudgetScope.TENANT, tenant_id: TenantId | None = None
    ) -> None:
        """Sets a daily budget, until the test ends."""
        key = self.key(scope, tenant_id=tenant_id)
        self.budgets.append(key)
        await self.breakers.set_budget(self.principal, key, amount)

    async def accept(self, bound: int, user_id: UserId = ALICE, tenant_id: TenantId | None = None) -> Job:
        """A job that may cost so much, as a call that adds a text makes it. Raises INSUFFICIENT_CREDITS."""
        self.prices.set(Operation.EMBED, fee=bound)
        accepted = await self.memories.create(tenant_id or self.domain.tenant, NewMemory(user_id, "I moved to Lyon."))
        assert accepted.job is not None
        assert accepted.job.cost_bound == bound
        return accepted.job

    async def deferred(
        self, bound: int, count: int = 1, user_id: UserId = ALICE, tenant_id: TenantId | None = None
    ) -> list[JobRef]:
        """Jobs that are put off."""
        return [await self._ref(JobState.DEFERRED, bound, user_id, tenant_id) for _ in range(count)]

    async def held(
        self, bound: int, count: int = 1, user_id: UserId = ALICE, tenant_id: TenantId | None = None
    ) -> list[JobRef]:
        """Jobs that may run."""
        return [await self._ref(JobState.QUEUED, bound, user_id, tenant_id) for _ in range(count)]

    async def _ref(self, state: JobState, bound: int, user_id: UserId, tenant_id: TenantId | None) -> JobRef:
        job = await self.accept(bound, user_id, tenant_id)
        assert job.state is state
        return JobRef(tenant_id or self.domain.tenant, job.id)

    async def end(self, ref: JobRef, *, cost: int = 0) -> int:
        """Ends a job that waits, as if a worker had run it at that cost in micro-credits; what it was charged."""
        async with self.domain.database.tenant_tx(ref.tenant_id) as connection:
            await connection.execute(
                "UPDATE jobs SET state = 'SUCCEEDED', ended_at = $2 WHERE job_id = $1", ref.job_id, self.now
            )
            await add_call(connection, ref, day=self.now, input_tokens=cost * 10_000)
            charged = await self.holds.resolve_in(connection, ref.tenant_id, [ref.job_id], now=self.now)
        return charged.get(ref.job_id, 0)

    async def states(self, refs: Sequence[JobRef]) -> list[JobState]:
        """Where jobs stand."""
        return [JobState(row["state"]) for row in await self.rows(refs)]

    async def reasons(self, refs: Sequence[JobRef]) -> list[DeferralReason | None]:
        """Why jobs were put off."""
        return [row["deferral_reason"] and DeferralReason(row["deferral_reason"]) for row in await self.rows(refs)]

    async def rows(self, refs: Sequence[JobRef]) -> Sequence[dict[str, Any]]:
        """Jobs as their rows have them, in that order."""
        async with self.domain.database.system_tx() as connection:
            rows = await connection.fetch(
                "SELECT * FROM jobs WHERE job_id = ANY ($1::uuid[])", [ref.job_id for ref in refs]
            )
        by_id = {row["job_id"]: dict(row) for row in rows}
        return [by_id[ref.job_id] for ref in refs]

    async def breaker(
        self, scope: BudgetScope = BudgetScope.TENANT, user_id: UserId | None = None, tenant_id: TenantId | None = None
    ) -> BreakerStatus:
        """A breaker that there is."""
        status = await self.breakers.status(self.key(scope, user_id, tenant_id))
        assert status is not None
        return status

    async def state(self, scope: BudgetScope = BudgetScope.TENANT, user_id: UserId | None = None) -> BreakerState:
        """Where a breaker stands."""
        return (await self.breaker(scope, user_id)).budget.state

    async def close(self) -> None:
        """Takes away what bounds other tests' jobs, and the jobs that wait."""
        for key in self.budgets:
            await self.breakers.set_budget(self.principal, key, None)
        async with self.domain.database.system_tx() as connection:
            await connection.execute("DELETE FROM budget_days WHERE tenant_id = $1", DEPLOYMENT)
            await connection.execute("DELETE FROM jobs WHERE state = 'DEFERRED'")


async def add_call(connection: Connection, ref: JobRef, *, day: datetime, input_tokens: int, **columns: Any) -> None:
    """A call of a provider that costs a pico-dollar a token."""
    values = {
        "tenant_id": ref.tenant_id,
        "job_id": ref.job_id,
        "attempt": 1,
        "call": 1,
        "user_id": ALICE,
        "day": day.date(),
        "provider": "openai",
        "model": "small",
        "operation": "embed",
        "state": "DONE",
        "input_tokens": input_tokens,
        "output_tokens": 0,
        "items": 1,
        "input_price": 1,
        "output_price": 2,
        "fee": 0,
        "started_at": day,
        "ended_at": day,
        **columns,
    }
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(
        f"INSERT INTO ai_calls ({', '.join(values)}) VALUES ({places})",
        *values.values(),
    )


@asynccontextmanager
async def open_spending(domain: Domain) -> AsyncIterator[Spending]:
    """A time of the test's own, far from that of others, at noon of a day on which nothing was spent."""
    clock = SetClock(datetime(2040, 1, 1, 12, tzinfo=UTC) + timedelta(days=30 * next(_MOMENTS)))
    database, tail = domain.database, NoTail()
    calendar = Calendar(UTC)
    holds = CreditHolds(calendar, margin_basis_points=0)
    deferrals = PostgresDeferralStore(database, holds, calendar)
    breakers = breakers_of(database, clock)
    hints, prices = Hints(), FixedPrices()
    memories = MemoryService(
        PostgresMemoryStore(database, holds),
        domain.job_store,
        hints,
        hints,
        clock,
        CostBounds(prices, DirectionEmbedder(), None, margin_basis_points=0),
        priorities=PriorityRule(),
        max_attempts=3,
    )
    principal = Principal(domain.tenant, ApiKeyId(new_id()), frozenset({Scope.ADMIN}), FREE_TIER, NO_LIMITS)
    spending = Spending(
        domain,
        clock,
        Releaser(deferrals, breakers, tail, clock),  # type: ignore[arg-type]
        breakers,
        deferrals,
        holds,
        memories,
        prices,
        PostgresCreditStore(database),
        tail,
        principal,
    )
    try:
        yield spending
    finally:
        await memories.close()
        await spending.close()
