"""The units of days, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final

from memoro_core.ids import TenantId
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("daily_units")


class PostgresUnitStore:
    """A `UnitStore`. A crash of PostgreSQL may take the latest of what it counted back."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, units: Mapping[tuple[TenantId, date], int]) -> Mapping[tuple[TenantId, date], int]:
        added = {key: count for key, count in units.items() if count >= 0}
        totals: dict[tuple[TenantId, date], int] = {}
        if added:
            async with self._database.system_tx(durable=False) as connection:
                totals.update(await _add(connection, added))
        for (tenant_id, day), count in units.items():
            if count < 0:
                async with self._database.system_tx(durable=False) as connection:
                    total = await connection.fetchval(_SQL["give_back_units"], tenant_id, day, -count)
                totals[tenant_id, day] = total or 0
        return totals

    async def take(self, tenant_id: TenantId, day: date, units: int, *, minimum: int, maximum: int) -> tuple[int, int]:
        async with self._database.system_tx(durable=False) as connection:
            before = await _add(connection, {(tenant_id, day): 0})
            row = await connection.fetchrow(_SQL["take_units"], tenant_id, day, units, minimum, maximum)
        return (0, before[tenant_id, day]) if row is None else (row["taken"], row["total"])


async def _add(connection: Connection, units: Mapping[tuple[TenantId, date], int]) -> dict[tuple[TenantId, date], int]:
    tenants, days = [tenant_id for tenant_id, _ in units], [day for _, day in units]
    rows = await connection.fetch(_SQL["add_units"], tenants, days, list(units.values()))
    return {(row["tenant_id"], row["day"]): row["units"] for row in rows}
