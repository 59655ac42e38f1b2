"""Jobs that are put off, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from asyncpg import Record

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobEvent, JobRef, JobState
from memoro_core.postgres.database import Database
from memoro_core.postgres.job_rows import event_of, ref_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("deferrals")
_ANY_TIME: Final = datetime.max.replace(tzinfo=UTC)


class PostgresDeferralStore:
    """A `DeferralStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def defer(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, until: datetime, now: datetime
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        told = JobEvent(0, JobState.DEFERRED, 0, now, run_at=until)
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            return _events(await connection.fetch(_SQL["defer"], tenant_id, job_ids, now, until, told))

    async def release(
        self, *, now: datetime, limit: int, tenant_id: TenantId | None = None, due_only: bool = True
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        told = JobEvent(0, JobState.QUEUED, 0, now, run_at=now)
        latest = now if due_only else _ANY_TIME
        async with self._database.system_tx() as connection:
            return _events(await connection.fetch(_SQL["release"], now, latest, tenant_id, limit, told))

    async def hasten(
        self, *, now: datetime, limit: int, tenant_id: TenantId | None = None
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        told = JobEvent(0, JobState.QUEUED, 0, now, run_at=now)
        async with self._database.system_tx() as connection:
            return _events(await connection.fetch(_SQL["hasten"], now, tenant_id, limit, told))


def _events(rows: Sequence[Record]) -> Sequence[tuple[JobRef, JobEvent]]:
    return [(ref_of(row), event_of(row["event"])) for row in rows]
