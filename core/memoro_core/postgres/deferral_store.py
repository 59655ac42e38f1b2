"""Jobs that are put off, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from asyncpg import Record

from memoro_core.billing.calendar import Calendar
from memoro_core.billing.model import DeferralReason, Deferred, Held, HoldRequest, HoldVerdict
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.deferral_ports import Released, Waiting
from memoro_core.jobs.model import JobEvent, JobRef, JobState
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.job_rows import event_of, ref_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("deferrals")
_ANY_TIME: Final = datetime.max.replace(tzinfo=UTC)
_FIRST: Final = Waiting(datetime.min.replace(tzinfo=UTC), JobId(UUID(int=0)))
_BEFORE_ALL: Final = TenantId(UUID(int=0))


class PostgresDeferralStore:
    """A `DeferralStore`."""

    def __init__(self, database: Database, holds: CreditHolds, calendar: Calendar) -> None:
        self._database = database
        self._holds = holds
        self._calendar = calendar

    async def defer(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, until: datetime, now: datetime
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        told = JobEvent(0, JobState.DEFERRED, 0, now, run_at=until)
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            return _events(await connection.fetch(_SQL["defer"], tenant_id, job_ids, now, until, told))

    async def release(
        self, *, now: datetime, limit: int, tenant_id: TenantId | None = None, due_only: bool = True
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        latest = now if due_only else _ANY_TIME
        async with self._database.system_tx() as connection:
            return _events(await connection.fetch(_SQL["release"], now, latest, tenant_id, limit, _let_go_at(now)))

    async def tenants_with_candidates(self, *, now: datetime, limit: int) -> Sequence[TenantId]:
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["tenants_with_candidates"], now, self._calendar.day(now), limit)
        return [row["tenant_id"] for row in rows]

    async def tenants_deferred(self, *, after: TenantId | None, limit: int) -> Sequence[TenantId]:
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["tenants_deferred"], after or _BEFORE_ALL, limit)
        return [row["tenant_id"] for row in rows]

    async def release_candidates(
        self, tenant_id: TenantId, *, now: datetime, limit: int
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        day = self._calendar.day(now)
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_SQL["lock_candidates"], tenant_id, now, day, limit)
            return await self._let_go(connection, tenant_id, rows, now)

    async def release_after(self, tenant_id: TenantId, after: Waiting | None, *, now: datetime, limit: int) -> Released:
        last = after or _FIRST
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            rows = await connection.fetch(_SQL["lock_deferred"], tenant_id, last.run_at, last.job_id, limit)
            events = await self._let_go(connection, tenant_id, rows, now)
        more = len(rows) == limit
        return Released(events, Waiting(rows[-1]["run_at"], rows[-1]["job_id"]) if more else None)

    async def hasten(
        self, *, now: datetime, limit: int, tenant_id: TenantId | None = None
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        async with self._database.system_tx() as connection:
            return _events(await connection.fetch(_SQL["hasten"], now, tenant_id, limit, _let_go_at(now)))

    async def _let_go(
        self, connection: Connection, tenant_id: TenantId, jobs: Sequence[Record], now: datetime
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        """Lets jobs go that the transaction holds locked, as far as credits and budgets allow; the others stay."""
        if not jobs:
            return []
        requests = [HoldRequest(job["job_id"], job["user_id"], job["cost_bound"]) for job in jobs]
        verdicts = await self._holds.hold_in(connection, tenant_id, requests, now=now)
        decided = list(zip(requests, verdicts, strict=True))
        if staying := [(one.job_id, _reason(verdict)) for one, verdict in decided if not isinstance(verdict, Held)]:
            job_ids, reasons = zip(*staying, strict=True)
            # Also those that credits are missing for: they are let go as soon as there are some.
            until = self._calendar.day_end(now)
            await connection.execute(_SQL["put_off_again"], tenant_id, job_ids, until, reasons)
        held = [one.job_id for one, verdict in decided if isinstance(verdict, Held)]
        if not held:
            return []
        rows = await connection.fetch(_SQL["let_go"], tenant_id, held, now, _let_go_at(now))
        return _events(rows)


def _reason(verdict: HoldVerdict) -> DeferralReason:
    return verdict.reason if isinstance(verdict, Deferred) else DeferralReason.CREDITS


def _let_go_at(now: datetime) -> JobEvent:
    return JobEvent(0, JobState.QUEUED, 0, now, run_at=now)


def _events(rows: Sequence[Record]) -> Sequence[tuple[JobRef, JobEvent]]:
    return [(ref_of(row), event_of(row["event"])) for row in rows]
