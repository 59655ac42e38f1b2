"""Retries of ended jobs in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import Record

from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId, new_id
from memoro_core.jobs.model import Job, JobEvent, JobRef, JobState
from memoro_core.jobs.operation_model import Candidate, RequeueFilter
from memoro_core.jobs.operation_ports import RetriedBatch
from memoro_core.jobs.retrying import RETRYABLE, not_ended_badly, nothing_left, retried_before
from memoro_core.jobs.service import job_not_found
from memoro_core.postgres.answer_store import answered_before_in
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.job_rows import job_of, ref_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("retries")


class PostgresRetryStore:
    """A `RetryStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def retry(
        self, tenant_id: TenantId, job_id: JobId, *, max_attempts: int, idempotency: Idempotency | None, now: datetime
    ) -> tuple[Job, JobEvent] | JobId:
        retry_id, event = JobId(new_id()), _queued(now)
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            answer = await answered_before_in(connection, tenant_id, idempotency, {"job_id": str(retry_id)}, now=now)
            if answer is not None:
                return JobId(UUID(str(answer["job_id"])))
            row = await connection.fetchrow(_SQL["lock_jobs"], tenant_id, [job_id])
            if row is None:
                raise job_not_found(job_id)
            state = JobState(row["state"])
            if state not in RETRYABLE:
                raise not_ended_badly(job_id, state)
            retried_by = await connection.fetchval(_SQL["retried_by"], tenant_id, job_id)
            if retried_by is not None:
                raise retried_before(job_id, state, JobId(retried_by))
            (made,) = await _retry_in(
                connection, tenant_id, [job_id], [retry_id], max_attempts=max_attempts, event=event
            )
            if made["job_id"] is None:
                raise nothing_left(job_id, state)
            return job_of(made), event

    async def retry_all(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, max_attempts: int, now: datetime
    ) -> RetriedBatch:
        event = _queued(now)
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            await connection.execute(_SQL["lock_jobs"], tenant_id, job_ids)
            rows = await _retry_in(
                connection,
                tenant_id,
                job_ids,
                [JobId(new_id()) for _ in job_ids],
                max_attempts=max_attempts,
                event=event,
            )
        made = [(JobRef(tenant_id, row["job_id"]), event) for row in rows if row["job_id"] is not None]
        return RetriedBatch(made, skipped=len(rows) - len(made))

    async def not_retried(
        self, requeue_filter: RequeueFilter, *, after: Candidate | None, limit: int
    ) -> Sequence[Candidate]:
        position = (after.ended_at, after.ref.tenant_id, after.ref.job_id) if after else (None, None, None)
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["not_retried"],
                list(requeue_filter.states),
                requeue_filter.tenant_id,
                list(requeue_filter.kinds),
                requeue_filter.reason,
                requeue_filter.ended_from,
                requeue_filter.ended_until,
                *position,
                limit,
            )
        return [Candidate(ref_of(row), row["memories"], row["ended_at"]) for row in rows]


async def _retry_in(
    connection: Connection,
    tenant_id: TenantId,
    job_ids: Sequence[JobId],
    retry_ids: Sequence[JobId],
    *,
    max_attempts: int,
    event: JobEvent,
) -> Sequence[Record]:
    return await connection.fetch(_SQL["retry"], tenant_id, job_ids, retry_ids, event.at, max_attempts, event)


def _queued(now: datetime) -> JobEvent:
    return JobEvent(1, JobState.QUEUED, 0, now, run_at=now)
