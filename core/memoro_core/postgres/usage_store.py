"""Sums over the calls of providers and over the ledger, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import date, datetime, timedelta
from typing import Final

from asyncpg import Record

from memoro_core.billing.model import CallState, LedgerAccount
from memoro_core.billing.questions import QuestionCost, QuestionPlace
from memoro_core.billing.usage_model import (
    HOUSE_ACCOUNTS,
    AiCall,
    OperationCost,
    UsageDimension,
    UsageFilter,
    UsageRow,
)
from memoro_core.ids import TenantId, UserId
from memoro_core.llm.model import Operation
from memoro_core.postgres.database import Database
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("usage")
_DIMENSIONS: Final = (UsageDimension.DAY, UsageDimension.OPERATION, UsageDimension.MODEL, UsageDimension.USER)


class PostgresUsageStore:
    """A `UsageStore`, and a `QuestionCostStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(
        self, tenant_id: TenantId, usage_filter: UsageFilter, *, after: UsageRow | None, limit: int
    ) -> Sequence[UsageRow]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(
                _SQL["usage"],
                tenant_id,
                usage_filter.first,
                usage_filter.last,
                usage_filter.user_id,
                *(dimension in usage_filter.group_by for dimension in _DIMENSIONS),
                *_place(after, usage_filter.last),
                limit,
            )
        return [_usage_of(row, usage_filter) for row in rows]

    async def charged(self, tenant_id: TenantId, user_id: UserId | None, *, since: datetime, until: datetime) -> int:
        async with self._database.tenant_tx(tenant_id) as connection:
            return int(await connection.fetchval(_SQL["charged"], tenant_id, user_id, since, until))

    async def operations(self, day: date, tenant_id: TenantId | None) -> Sequence[OperationCost]:
        async with self._database.system_tx() as connection:
            rows = (
                await connection.fetch(_SQL["operations"], day)
                if tenant_id is None
                else await connection.fetch(_SQL["operations_of_tenant"], day, tenant_id)
            )
        return [
            OperationCost(
                Operation(row["operation"]),
                row["provider"],
                row["model"],
                int(row["calls"]),
                int(row["input_tokens"]),
                int(row["output_tokens"]),
                int(row["cost_pico_dollars"]),
                row["for_questions"],
            )
            for row in rows
        ]

    async def add(self, costs: Mapping[QuestionPlace, QuestionCost]) -> None:
        # Always in one order, so that no two processes wait for each other.
        rows = sorted(costs.items(), key=lambda item: astuple(item[0]))
        columns = zip(*((*astuple(place), *astuple(cost)) for place, cost in rows), strict=True)
        async with self._database.system_tx(durable=False) as connection:
            await connection.execute(_SQL["add_question_costs"], *map(list, columns))

    async def recent_calls(self, day: date, tenant_id: TenantId | None, *, limit: int) -> Sequence[AiCall]:
        async with self._database.system_tx() as connection:
            rows = (
                await connection.fetch(_SQL["recent_calls"], day, limit)
                if tenant_id is None
                else await connection.fetch(_SQL["recent_calls_of_tenant"], day, limit, tenant_id)
            )
        return [_call_of(row) for row in rows]

    async def house(
        self, tenant_id: TenantId | None, *, since: datetime, until: datetime
    ) -> Mapping[LedgerAccount, int]:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["house"], since, until, tenant_id)
        assert row is not None
        return {account: int(row[account.value]) for account in HOUSE_ACCOUNTS}


def _place(after: UsageRow | None, last: date) -> tuple[int, str, str, str, str]:
    """Where the rows go on, as the statement takes it."""
    if after is None:
        return -1, "", "", "", ""
    age = (last - after.day).days if after.day else 0
    # A token of another day's report may lie after the last day.
    return max(age, -1), after.operation or "", after.provider, after.model, after.user_id or ""


def _usage_of(row: Record, usage_filter: UsageFilter) -> UsageRow:
    by_day = UsageDimension.DAY in usage_filter.group_by
    return UsageRow(
        usage_filter.last - timedelta(days=row["age"]) if by_day else None,
        Operation(row["operation"]) if row["operation"] else None,
        row["provider"],
        row["model"],
        UserId(row["user_id"]) if UsageDimension.USER in usage_filter.group_by else None,
        row["calls"],
        int(row["input_tokens"]),
        int(row["output_tokens"]),
        int(row["items"]),
        int(row["cost_pico_dollars"]),
    )


def _call_of(row: Record) -> AiCall:
    return AiCall(
        row["tenant_id"],
        row["job_id"],
        row["attempt"],
        row["call"],
        Operation(row["operation"]),
        row["provider"],
        row["model"],
        row["input_tokens"],
        row["output_tokens"],
        row["cost_pico_dollars"],
        CallState(row["state"]) is not CallState.DONE,
        row["started_at"],
    )
