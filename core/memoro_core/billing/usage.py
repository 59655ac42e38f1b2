"""What was used and what it has cost: what tenants ask of themselves, and operators of all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

from memoro_core.billing.breaker_service import BreakerService
from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import DEPLOYMENT, BudgetKey, BudgetScope
from memoro_core.billing.usage_model import (
    MAX_DAYS,
    USUAL_DAYS,
    USUAL_DIMENSIONS,
    AiCosts,
    UsageDimension,
    UsageFilter,
    UsageReport,
    UsageRow,
)
from memoro_core.billing.usage_ports import UsageStore
from memoro_core.clock import Clock
from memoro_core.errors import invalid_field
from memoro_core.ids import TenantId, UserId
from memoro_core.llm.model import Operation
from memoro_core.paging import bad_token, cut

_LATEST: Final = date(9999, 12, 30)
"""So that the day after the last one is a date too."""


class UsageService:
    """Reports. Days are those of the deployment's time zone. Every method raises UNAVAILABLE."""

    def __init__(self, store: UsageStore, breakers: BreakerService, calendar: Calendar, clock: Clock) -> None:
        self._store = store
        self._breakers = breakers
        self._calendar = calendar
        self._clock = clock

    async def usage(
        self,
        tenant_id: TenantId,
        *,
        first: date | None = None,
        last: date | None = None,
        user_id: UserId | None = None,
        group_by: Sequence[UsageDimension] = (),
        size: int,
        position: tuple[str, ...] | None = None,
    ) -> UsageReport:
        """What a tenant has used in some days, both included: up to today, and 30 days back, unless said otherwise.

        Raises INVALID_FIELD, PAGE_TOKEN_INVALID.
        """
        last = last or self._calendar.day(self._clock.now())
        first = first or max(date.min, last - timedelta(days=min(USUAL_DAYS, last.toordinal() - 1)))
        if last > _LATEST:
            raise invalid_field("to_date", f"must not be after {_LATEST}")
        if first > last:
            raise invalid_field("from_date", "must not be after to_date")
        if last - first > timedelta(days=MAX_DAYS):
            raise invalid_field("from_date", f"at most {MAX_DAYS} days before to_date")
        usage_filter = UsageFilter(first, last, user_id, tuple(group_by) or USUAL_DIMENSIONS)
        rows = await self._store.usage(
            tenant_id, usage_filter, after=_row_at(position) if position else None, limit=size + 1
        )
        page = cut(rows, size, _position_of(rows[size - 1]) if len(rows) > size else None)
        charged = await self._store.charged(
            tenant_id,
            user_id,
            since=self._calendar.day_start(first),
            until=self._calendar.day_start(last + timedelta(days=1)),
        )
        return UsageReport(page, charged)

    async def costs(self, day: date | None = None, tenant_id: TenantId | None = None, *, recent: int) -> AiCosts:
        """What a day's work has cost, today's if none is said, of one tenant or of all, with so many recent calls.

        For operators. Raises INVALID_FIELD.
        """
        day = day or self._calendar.day(self._clock.now())
        if day > _LATEST:
            raise invalid_field("date", f"must not be after {_LATEST}")
        scope = BudgetScope.DEPLOYMENT if tenant_id is None else BudgetScope.TENANT
        return AiCosts(
            day,
            await self._breakers.status(BudgetKey(scope, tenant_id or DEPLOYMENT), day),
            await self._store.operations(day, tenant_id),
            await self._store.recent_calls(day, tenant_id, limit=recent),
            await self._store.house(
                tenant_id,
                since=self._calendar.day_start(day),
                until=self._calendar.day_start(day + timedelta(days=1)),
            ),
        )


def _position_of(row: UsageRow) -> tuple[str, ...]:
    return (
        row.day.isoformat() if row.day else "",
        row.operation.value if row.operation else "",
        row.provider,
        row.model,
        row.user_id or "",
    )


def _row_at(position: tuple[str, ...]) -> UsageRow:
    """The row of which only the place is known. Raises PAGE_TOKEN_INVALID: who makes up a token can put anything in."""
    try:
        day, operation, provider, model, user_id = position
        return UsageRow(
            date.fromisoformat(day) if day else None,
            Operation(operation) if operation else None,
            provider,
            model,
            UserId(user_id) if user_id else None,
            *(0, 0, 0, 0, 0),
        )
    except ValueError:
        raise bad_token() from None
