"""Daily budgets in PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from asyncpg import Record

from memoro_core.billing.breaker_ports import Standing
from memoro_core.billing.errors import budget_not_found
from memoro_core.billing.model import BreakerState, BudgetDay, BudgetKey, BudgetScope
from memoro_core.billing.turning import turned
from memoro_core.ids import TenantId, UserId
from memoro_core.postgres.answer_store import answered_before_in
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.ports import Request
from memoro_core.tenancy.service import tenant_not_found

_SQL: Final = load_queries("budgets")
_NO_LIMIT: Final = 9 * 10**18


class PostgresBudgetStore:
    """A `BudgetStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_limit(
        self, key: BudgetKey, limit: int | None, day: date, request: Request | None, *, now: datetime
    ) -> None:
        async with self._database.system_tx() as connection:
            if await _done_before(connection, request, now):
                return
            if limit is None:
                await connection.execute(_SQL["remove_limit"], key.tenant_id, key.scope)
                return
            is_new = await connection.fetchval(_SQL["set_limit"], key.tenant_id, key.scope, limit)
            if is_new is None:
                raise tenant_not_found(key.tenant_id)
            if is_new:
                # Two statements: the second sees also what ended while the first waited for it.
                await connection.execute(_SQL["count_in"], key.tenant_id, key.scope, day)
                await connection.execute(_SQL["begin_from_holds"], key.tenant_id, key.scope, day)

    async def reset(self, key: BudgetKey, day: date, request: Request | None, *, now: datetime) -> None:
        async with self._database.system_tx() as connection:
            if await _done_before(connection, request, now):
                return
            raised = await connection.fetchval(_SQL["reset"], key.tenant_id, key.scope, key.user_id or "", day)
            if raised is None:
                raise budget_not_found(key)

    async def get(self, key: BudgetKey, day: date) -> Standing | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["get"], key.tenant_id, key.scope, key.user_id or "", day)
        return None if row is None else Standing(_budget_of(row, day), row["deferred"])

    async def standing(self, day: date, tenant_id: TenantId | None, *, limit: int) -> Sequence[Standing]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["standing"], day, tenant_id, limit)
        return [Standing(_budget_of(row, day), row["deferred"]) for row in rows]

    async def turn(self, day: date) -> Sequence[BudgetDay]:
        async with self._database.system_tx() as connection:
            found = await _turning(connection, day)
            if not found:
                return []
            await connection.fetch(_SQL["lock_days"], day, *_columns(found))
            # Looked at again now that no job can be put off or take the room meanwhile.
            turning = {key: budget for key, budget in (await _turning(connection, day)).items() if key in found}
            states = [budget.state for budget in turning.values()]
            await connection.execute(_SQL["turn"], day, *_columns(turning), states)
        return list(turning.values())


async def _turning(connection: Connection, day: date) -> Mapping[BudgetKey, BudgetDay]:
    """The budgets whose breakers are to move on, with the states that they move to."""
    turning = {}
    for row in await connection.fetch(_SQL["not_closed"], day):
        budget = _budget_of(row, day)
        state = turned(budget, waited_for=row["waited_for"])
        if state is not budget.state:
            turning[budget.key] = dataclasses.replace(budget, state=state)
    return turning


def _columns(budgets: Mapping[BudgetKey, BudgetDay]) -> tuple[list[TenantId], list[str], list[str]]:
    return (
        [key.tenant_id for key in budgets],
        [str(key.scope) for key in budgets],
        [key.user_id or "" for key in budgets],
    )


async def _done_before(connection: Connection, request: Request | None, now: datetime) -> bool:
    """Whether the request was done before. Raises REQUEST_ID_REUSED."""
    if request is None:
        return False
    answer = await answered_before_in(connection, request.tenant_id, request.idempotency, {}, now=now)
    return answer is not None


def _budget_of(row: Record, day: date) -> BudgetDay:
    """A budget on a day; one that nothing was reserved in yet has no row of its own, so that its columns are NULL."""
    scope, user_id = BudgetScope(row["scope"]), UserId(row["user_id"]) if row["user_id"] else None
    limit = _NO_LIMIT if row["daily_limit"] is None else row["daily_limit"]
    key = BudgetKey(scope, row["tenant_id"], user_id)
    if row["state"] is None:
        return BudgetDay(key, day, limit)
    return BudgetDay(
        key=key,
        day=day,
        limit=limit,
        reserved=row["reserved"],
        spent=row["spent"],
        raised=row["raised"],
        state=BreakerState(row["state"]),
        needed=row["needed"],
        alerted=row["alerted"],
        opened_at=row["opened_at"],
    )
