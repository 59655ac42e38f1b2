"""Request ids in PostgreSQL, when their time is over."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from memoro_core.postgres.database import Database, rows_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("idempotency")


class PostgresRequestStore:
    """A `RequestStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget(self, *, before: datetime, limit: int) -> int:
        async with self._database.system_tx() as connection:
            return rows_of(await connection.execute(_SQL["forget_requests"], before, limit))
