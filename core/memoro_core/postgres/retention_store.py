"""Deleting what is old, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from memoro_core.jobs.model import JobState
from memoro_core.jobs.retention_ports import Keeping
from memoro_core.postgres.database import Database, rows_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("retention")


class PostgresRetentionStore:
    """A `RetentionStore`: one transaction a batch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keeping(self) -> Sequence[Keeping]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["keeping"])
        return [Keeping(row["tier"], row["kept_succeeded"], row["kept_failed"]) for row in rows]

    async def forget_jobs(
        self, tier: str, states: Sequence[JobState], *, ended_from: datetime, ended_before: datetime, limit: int
    ) -> tuple[int, datetime]:
        # What a crash takes back is deleted by the next sweep.
        async with self._database.system_tx(durable=False) as connection:
            await connection.execute(_SQL["read_in_order"])
            row = await connection.fetchrow(
                _SQL["forget_jobs"], ended_from, ended_before, [str(state) for state in states], tier, limit
            )
        assert row is not None
        return row["jobs"], row["ended_until"] or ended_before

    async def forget_fires(self, *, before: datetime) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["forget_fires"], before))

    async def forget_workers(self, *, silent_since: datetime) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["forget_workers"], silent_since))

    async def forget_unit_days(self, *, before: date) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["forget_unit_days"], before))

    async def forget_budget_days(self, *, before: date) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["forget_budget_days"], before))

    async def forget_relation_slots(self, *, before: datetime) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["forget_relation_slots"], before))
