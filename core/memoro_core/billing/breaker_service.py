"""Daily budgets and the breakers that keep them: what operators do with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import structlog

from memoro_core.billing.breaker_model import BreakerStatus
from memoro_core.billing.breaker_ports import BudgetStore, Standing
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.errors import budget_not_found
from memoro_core.billing.model import DEPLOYMENT, BudgetDay, BudgetKey, BudgetScope
from memoro_core.clock import Clock
from memoro_core.errors import invalid_field
from memoro_core.idempotency import Idempotency
from memoro_core.ids import TenantId
from memoro_core.tenancy.model import Principal
from memoro_core.tenancy.ports import Request

MAX_BREAKERS: Final = 1_000
_log = structlog.get_logger(__name__)


class BreakerService:
    """Budgets of all tenants; callers have shown the scope admin. Every method raises UNAVAILABLE.

    What changes a budget is logged with the key that asked for it. Jobs that a change makes room for are let go by the
    scheduler, in its next rounds.
    """

    def __init__(self, store: BudgetStore, calendar: Calendar, clock: Clock) -> None:
        self._store = store
        self._calendar = calendar
        self._clock = clock

    async def set_budget(
        self, principal: Principal, key: BudgetKey, limit: int | None, *, idempotency: Idempotency | None = None
    ) -> BreakerStatus | None:
        """Sets how much a day may cost, in micro-credits, from now on; None: as much as it will, and so is the answer.

        What is committed today counts. With the scope USER it is for each single user of a tenant, and of the answer
        only the limit counts. Raises INVALID_FIELD, TENANT_NOT_FOUND, REQUEST_ID_REUSED.
        """
        _check(key)
        if key.user_id is not None:
            raise invalid_field("user_id", "a budget of the scope USER is for each user of the tenant")
        now = self._clock.now()
        await self._store.set_limit(key, limit, self._calendar.day(now), _request(principal, idempotency), now=now)
        _log.info("budget_set", **_named(key), limit=limit, **principal.credential)
        return await self.status(key)

    async def breakers(self, tenant_id: TenantId | None = None) -> Sequence[BreakerStatus]:
        """The deployment's breaker, then a tenant's and those of its users that have something today.

        Without a tenant, instead of the latter, all that are not CLOSED. At most 1,000; what has no budget has no
        breaker.
        """
        day = self._calendar.day(self._clock.now())
        standing = await self._store.standing(day, tenant_id, limit=MAX_BREAKERS)
        return [self._status(one) for one in standing]

    async def reset(
        self, principal: Principal, key: BudgetKey, *, idempotency: Idempotency | None = None
    ) -> BreakerStatus:
        """Gives a budget as much again as it has for a day: today's breaker, as it now is.

        Raises BUDGET_NOT_FOUND, INVALID_FIELD, REQUEST_ID_REUSED.
        """
        _check(key)
        if key.scope is BudgetScope.USER and key.user_id is None:
            raise invalid_field("user_id", "name the user whose breaker to reset")
        now = self._clock.now()
        await self._store.reset(key, self._calendar.day(now), _request(principal, idempotency), now=now)
        status = await self.status(key)
        if status is None:
            raise budget_not_found(key)
        _log.info("breaker_reset", **_named(key), limit=status.budget.ceiling, **principal.credential)
        return status

    async def status(self, key: BudgetKey, day: date | None = None) -> BreakerStatus | None:
        """A budget on a day, today if none is said; None when there is no such budget."""
        standing = await self._store.get(key, day or self._calendar.day(self._clock.now()))
        return None if standing is None else self._status(standing)

    async def turn(self) -> Sequence[BudgetDay]:
        """Moves today's breakers on: OPEN ones that have room again, and those that no job waits for any more."""
        turned = await self._store.turn(self._calendar.day(self._clock.now()))
        for budget in turned:
            _log.info("breaker_turned", **_named(budget.key), state=str(budget.state))
        return turned

    def _status(self, standing: Standing) -> BreakerStatus:
        following = standing.budget.day + timedelta(days=1)
        return BreakerStatus(standing.budget, standing.deferred_jobs, self._calendar.day_start(following))


def _check(key: BudgetKey) -> None:
    """Raises INVALID_FIELD for a key that names nothing, or more than its scope has."""
    if key.scope is BudgetScope.DEPLOYMENT:
        if key.tenant_id != DEPLOYMENT:
            raise invalid_field("tenant_id", "must be empty for the scope DEPLOYMENT")
    elif key.tenant_id == DEPLOYMENT:
        raise invalid_field("tenant_id", f"must be set for the scope {key.scope}")
    if key.scope is not BudgetScope.USER and key.user_id is not None:
        raise invalid_field("user_id", f"must be empty for the scope {key.scope}")


def _request(principal: Principal, idempotency: Idempotency | None) -> Request | None:
    return Request(principal.tenant_id, idempotency) if idempotency else None


def _named(key: BudgetKey) -> dict[str, str]:
    """A key as a log line has it."""
    named = {name: str(value) for name, value in dataclasses.asdict(key).items() if value is not None}
    return {name: value for name, value in named.items() if (name, value) != ("tenant_id", str(DEPLOYMENT))}
