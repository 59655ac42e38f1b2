"""Waiting jobs of all tenants in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from memoro_core.ids import TenantId
from memoro_core.jobs.fairness import WaitingTenant
from memoro_core.jobs.model import JobRef
from memoro_core.jobs.scheduling_ports import Allotment, Choice, WorkerLoad
from memoro_core.postgres.database import Database, rows_of
from memoro_core.postgres.job_rows import ref_columns
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("scheduling")
_DUE_AT_ONCE: Final = 1_000
"""Jobs whose time is seen to have come at one look, at most."""


class PostgresSchedulingStore:
    """A `SchedulingStore`. A hint that a crash takes back is given again, so nothing here waits for the disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, *, seen_since: datetime) -> WorkerLoad:
        async with self._database.system_tx(durable=False) as connection:
            row = await connection.fetchrow(_SQL["load"], seen_since)
        assert row is not None
        return WorkerLoad(row["workers"], row["concurrency"], row["running"], row["hinted"])

    async def tenants_waiting(self, *, now: datetime, limit: int) -> Sequence[WaitingTenant]:
        async with self._database.system_tx(durable=False) as connection:
            await connection.execute(_SQL["come_due"], now, _DUE_AT_ONCE)
            rows = await connection.fetch(_SQL["tenants_waiting"], now, limit)
        return [WaitingTenant(row["tenant_id"], row["weight"], row["jobs"], row["released"]) for row in rows]

    async def hint(self, allotments: Sequence[Allotment], *, now: datetime) -> Mapping[TenantId, Choice]:
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(
                _SQL["hint"],
                [allotment.tenant_id for allotment in allotments],
                [allotment.quota for allotment in allotments],
                [allotment.after_user for allotment in allotments],
                now,
            )
        return {
            row["tenant_id"]: Choice(
                [JobRef(row["tenant_id"], job_id) for job_id in row["job_ids"]],
                row["last_user"],
            )
            for row in rows
        }

    async def take_back(self, refs: Sequence[JobRef]) -> None:
        async with self._database.system_tx(durable=False) as connection:
            await connection.execute(_SQL["take_back"], *ref_columns(refs))

    async def forget_hints(self, *, fresh_before: datetime, before: datetime, limit: int) -> int:
        async with self._database.system_tx(durable=False) as connection:
            return rows_of(await connection.execute(_SQL["forget_hints"], before, limit, fresh_before))
