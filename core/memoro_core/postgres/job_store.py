"""Jobs in PostgreSQL, as callers see them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Job, JobEvent, JobFilter, JobRef, JobState
from memoro_core.jobs.states import cancelled
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.job_rows import event_of, job_of, ref_columns, ref_of
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.settlements import settle_in
from memoro_core.postgres.webhook_store import announce_in
from memoro_core.webhooks.events import job_ended

_SQL: Final = load_queries("jobs")


class PostgresJobStore:
    """A `JobStore`."""

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds

    async def get(self, tenant_id: TenantId, job_id: JobId) -> Job | None:
        async with self._database.tenant_tx(tenant_id) as connection:
            row = await connection.fetchrow(_SQL["get_job"], tenant_id, job_id)
        return None if row is None else job_of(row)

    async def list_jobs(
        self, tenant_id: TenantId, job_filter: JobFilter, *, limit: int, before: JobId | None
    ) -> Sequence[Job]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(
                _SQL["list_jobs"],
                tenant_id,
                list(job_filter.states),
                list(job_filter.kinds),
                job_filter.user_id,
                job_filter.created_from,
                job_filter.created_until,
                before,
                limit,
            )
        return [job_of(row) for row in rows]

    async def events_after(self, tenant_id: TenantId, job_id: JobId, seq: int, *, limit: int) -> Sequence[JobEvent]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(_SQL["events_after"], tenant_id, job_id, seq, limit)
        return [event_of(row["event"]) for row in rows]

    async def sequences(self, refs: Sequence[JobRef]) -> Mapping[JobRef, int]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["sequences"], *ref_columns(refs))
        return {ref_of(row): row["last_seq"] for row in rows}

    async def cancel(self, tenant_id: TenantId, job_id: JobId, *, now: datetime) -> tuple[Job, JobEvent | None] | None:
        event: JobEvent | None = None
        async with self._database.tenant_tx(tenant_id) as connection:
            row = await connection.fetchrow(_SQL["lock_job"], tenant_id, job_id)
            if row is None:
                return None
            job = job_of(row)
            if job.state is JobState.RUNNING:
                await connection.execute(_SQL["request_cancel"], tenant_id, job_id)
            elif not job.state.terminal:
                (event,) = await cancel_waiting_in(connection, self._holds, tenant_id, [job], now=now)
            else:
                return job, None
            row = await connection.fetchrow(_SQL["get_job"], tenant_id, job_id)
        return (job if row is None else job_of(row)), event


async def cancel_waiting_in(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, jobs: Sequence[Job], *, now: datetime
) -> Sequence[JobEvent]:
    """Ends jobs that wait, and that the transaction of their tenant holds locked; their last events."""
    events = [JobEvent(job.sequence + 1, JobState.CANCELLED, job.attempt, now, usage=job.usage) for job in jobs]
    job_ids = [job.id for job in jobs]
    await connection.execute(_SQL["cancel_waiting"], tenant_id, job_ids, now, events)
    paid = [job.id for job in jobs if job.cost_bound]
    # A job that was tried before may have spent something.
    charged = await settle_in(connection, holds, tenant_id, paid, now=now)
    usages = [dataclasses.replace(job.usage, charged=charged.get(job.id, 0)) for job in jobs]
    ends = [
        job_ended(job, cancelled(stages=job.stages, usage=usage), now) for job, usage in zip(jobs, usages, strict=True)
    ]
    await announce_in(connection, tenant_id, ends, now=now)
    memory_ids = [memory_id for job in jobs for memory_id in job.memory_ids]
    await connection.execute(_SQL["fail_pending_memories"], tenant_id, job_ids, memory_ids, now)
    return [dataclasses.replace(event, usage=usage) for event, usage in zip(events, usages, strict=True)]
