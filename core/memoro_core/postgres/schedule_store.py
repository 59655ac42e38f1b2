"""Times of schedules in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from memoro_core.jobs.recurring_ports import Fire
from memoro_core.postgres.database import Database, rows_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("schedules")


class PostgresScheduleStore:
    """A `ScheduleStore`: who inserts the row of a time works on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, schedule: str) -> Fire | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["latest_fire"], schedule)
        return None if row is None else Fire(row["fire_at"], row["started_at"], row["ended_at"])

    async def introduce(self, schedule: str, *, now: datetime) -> None:
        async with self._database.system_tx() as connection:
            await connection.execute(_SQL["introduce_schedule"], schedule, now)

    async def begin(self, schedule: str, fire_at: datetime, *, now: datetime, lost_before: datetime) -> bool:
        async with self._database.system_tx() as connection:
            taken = await connection.fetchval(_SQL["begin_fire"], schedule, fire_at, now, lost_before)
        return taken is not None

    async def end(self, schedule: str, fire_at: datetime, *, started_at: datetime, now: datetime) -> bool:
        async with self._database.system_tx() as connection:
            return rows_of(await connection.execute(_SQL["end_fire"], schedule, fire_at, started_at, now)) == 1
