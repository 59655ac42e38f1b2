"""Retries of ended jobs in PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import Record

from memoro_core.billing.bounds import CostBounds
from memoro_core.billing.errors import insufficient_credits
from memoro_core.billing.model import Deferred, Held, HoldRequest, HoldVerdict, Refused
from memoro_core.idempotency import Idempotency
from memoro_core.ids import JobId, TenantId, new_id
from memoro_core.jobs.model import Job, JobEvent, JobKind, JobRef, JobState
from memoro_core.jobs.operation_model import Candidate, RequeueFilter
from memoro_core.jobs.operation_ports import RetriedBatch
from memoro_core.jobs.retrying import RETRYABLE, not_ended_badly, nothing_left, retried_before
from memoro_core.jobs.service import job_not_found
from memoro_core.memory.model import Memory
from memoro_core.postgres.answer_store import answered_before_in
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.job_rows import job_of, ref_of
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("retries")
_HELD: Final = Held()


@dataclass(frozen=True, slots=True)
class _Retry:
    """A job to be made of an ended one, the most that it may cost, and what the money says of it."""

    old_id: JobId
    id: JobId
    kind: JobKind
    bound: int = 0
    verdict: HoldVerdict = _HELD

    def event(self, now: datetime) -> JobEvent:
        """What is told of it when it is made."""
        if isinstance(self.verdict, Deferred):
            return JobEvent(1, JobState.DEFERRED, 0, now, run_at=self.verdict.until)
        return JobEvent(1, JobState.QUEUED, 0, now, run_at=now)


class PostgresRetryStore:
    """A `RetryStore`. What a retry may cost is reckoned anew, by the prices of now and what work is left."""

    def __init__(self, database: Database, holds: CreditHolds, bounds: CostBounds) -> None:
        self._database = database
        self._holds = holds
        self._bounds = bounds

    async def retry(
        self, tenant_id: TenantId, job_id: JobId, *, max_attempts: int, idempotency: Idempotency | None, now: datetime
    ) -> tuple[Job, JobEvent] | JobId:
        retry_id = JobId(new_id())
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
            request_id = idempotency.request_id if idempotency else ""
            (retry,) = await self._judge(
                connection, tenant_id, [_Retry(job_id, retry_id, JobKind(row["kind"]))], request_id, now=now
            )
            if isinstance(retry.verdict, Refused):
                raise insufficient_credits(tenant_id, retry.verdict.need, retry.verdict.have)
            (made,) = await _retry_in(connection, tenant_id, [retry], max_attempts=max_attempts, now=now)
            if made["job_id"] is None:
                raise nothing_left(job_id, state)
            return job_of(made), retry.event(now)

    async def retry_all(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, max_attempts: int, now: datetime
    ) -> RetriedBatch:
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            locked = await connection.fetch(_SQL["lock_jobs"], tenant_id, job_ids)
            kinds = {row["job_id"]: JobKind(row["kind"]) for row in locked}
            retries = [_Retry(job_id, JobId(new_id()), kinds[job_id]) for job_id in job_ids if job_id in kinds]
            judged = await self._judge(connection, tenant_id, retries, "", now=now)
            allowed = {retry.id: retry for retry in judged if not isinstance(retry.verdict, Refused)}
            rows = await _retry_in(connection, tenant_id, list(allowed.values()), max_attempts=max_attempts, now=now)
        made = [
            (JobRef(tenant_id, row["job_id"]), allowed[row["job_id"]].event(now))
            for row in rows
            if row["job_id"] is not None
        ]
        return RetriedBatch(made, skipped=len(rows) - len(made) + len(judged) - len(allowed))

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

    async def _judge(
        self, connection: Connection, tenant_id: TenantId, retries: Sequence[_Retry], request_id: str, *, now: datetime
    ) -> Sequence[_Retry]:
        """The retries with what the money says of them. Raises PRICE_UNKNOWN."""
        # What work there is stays until the jobs are made.
        work = await _lock_work(connection, tenant_id, retries)
        if self._bounds.free(now):
            return retries
        # A hold must have a job: what no work is left of gets none.
        requests = [
            HoldRequest(retry.id, memories[0].user_id, self._bound(retry, memories, now), request_id)
            for retry in retries
            if (memories := work.get(retry.old_id))
        ]
        verdicts = await self._holds.hold_in(connection, tenant_id, requests, now=now)
        judged = {request.job_id: (request.bound, verdict) for request, verdict in zip(requests, verdicts, strict=True)}
        return [_Retry(retry.old_id, retry.id, retry.kind, *judged.get(retry.id, (0, _HELD))) for retry in retries]

    def _bound(self, retry: _Retry, memories: Sequence[Memory], now: datetime) -> int:
        if retry.kind is JobKind.MEMORY_RELATE:
            return self._bounds.bound_relations(memories, at=now)
        return self._bounds.bound(memories, at=now)


async def _lock_work(
    connection: Connection, tenant_id: TenantId, retries: Sequence[_Retry]
) -> Mapping[JobId, Sequence[Memory]]:
    work: defaultdict[JobId, list[Memory]] = defaultdict(list)
    for row in await connection.fetch(_SQL["lock_work"], tenant_id, [retry.old_id for retry in retries]):
        memory = memory_of(row)
        work[memory.job_id].append(memory)
    return work


async def _retry_in(
    connection: Connection, tenant_id: TenantId, retries: Sequence[_Retry], *, max_attempts: int, now: datetime
) -> Sequence[Record]:
    deferrals = [retry.verdict if isinstance(retry.verdict, Deferred) else None for retry in retries]
    return await connection.fetch(
        _SQL["retry"],
        tenant_id,
        [retry.old_id for retry in retries],
        [retry.id for retry in retries],
        now,
        max_attempts,
        [retry.bound for retry in retries],
        [deferral.reason if deferral else None for deferral in deferrals],
        [deferral.until if deferral else None for deferral in deferrals],
        [retry.event(now) for retry in retries],
    )
