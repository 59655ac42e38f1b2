"""Workers and queues in PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobEvent, JobKind, JobRef, JobState
from memoro_core.jobs.operation_model import Candidate, ClearFilter, QueueStatus, RunningJob, WorkerStatus
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Database
from memoro_core.postgres.job_rows import job_of, ref_of
from memoro_core.postgres.job_store import cancel_waiting_in
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.model import TierName

_SQL: Final = load_queries("queues")
_LATELY: Final = timedelta(minutes=1)
"""Over what rates are measured."""


class PostgresQueueStore:
    """A `QueueStore`."""

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds

    async def workers(self, *, seen_from: datetime, limit: int, jobs_each: int) -> Sequence[WorkerStatus]:
        async with self._database.system_tx() as connection:
            workers = await connection.fetch(_SQL["workers"], seen_from, limit)
            runs = await connection.fetch(_SQL["running"], [row["worker_id"] for row in workers], jobs_each)
        jobs: defaultdict[str, list[RunningJob]] = defaultdict(list)
        counts: dict[str, int] = {}
        for row in runs:
            counts[row["worker_id"]] = row["jobs"]
            jobs[row["worker_id"]].append(
                RunningJob(ref_of(row), JobKind(row["kind"]), row["attempt"], row["started_at"])
            )
        return [
            WorkerStatus(
                id=row["worker_id"],
                host=row["host"],
                process_id=row["process_id"],
                version=row["version"],
                concurrency=row["concurrency"],
                running=counts.get(row["worker_id"], 0),
                jobs=jobs[row["worker_id"]],
                stopping=row["stopping"],
                started_at=row["started_at"],
                seen_at=row["seen_at"],
            )
            for row in workers
        ]

    async def queues(self, *, now: datetime, day_start: datetime) -> Sequence[QueueStatus]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["queues"], now, day_start, now - _LATELY)
        return [
            QueueStatus(
                tier=TierName(row["tier"]),
                waiting=row["waiting"],
                active=row["active"],
                deferred=row["deferred"],
                succeeded_today=row["succeeded"],
                failed_today=row["failed"],
                rate=row["lately"] / _LATELY.total_seconds(),
                oldest_due_at=row["oldest"],
                paused_at=row["queue_paused_at"],
            )
            for row in rows
        ]

    async def has_queue(self, tier: TierName) -> bool:
        async with self._database.system_tx() as connection:
            return bool(await connection.fetchval(_SQL["has_queue"], tier))

    async def pause(self, tier: TierName | None, *, now: datetime) -> Sequence[TierName]:
        async with self._database.system_tx() as connection:
            return [TierName(row["tier"]) for row in await connection.fetch(_SQL["pause"], tier, now)]

    async def resume(self, tier: TierName | None) -> Sequence[TierName]:
        async with self._database.system_tx() as connection:
            return [TierName(row["tier"]) for row in await connection.fetch(_SQL["resume"], tier)]

    async def waiting(self, clear_filter: ClearFilter, *, limit: int) -> Sequence[Candidate]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["waiting"],
                clear_filter.tier,
                clear_filter.tenant_id,
                list(clear_filter.kinds),
                clear_filter.deferred,
                limit,
            )
        return [Candidate(ref_of(row), row["memories"]) for row in rows]

    async def cancel_all(
        self, tenant_id: TenantId, job_ids: Sequence[JobId], *, deferred: bool, now: datetime
    ) -> Sequence[tuple[JobRef, JobEvent]]:
        states = [JobState.QUEUED, *([JobState.DEFERRED] if deferred else [])]
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            jobs = [job_of(row) for row in await connection.fetch(_SQL["lock_waiting"], tenant_id, job_ids, states)]
            if not jobs:
                return []
            events = await cancel_waiting_in(connection, self._holds, tenant_id, jobs, now=now)
        return [(JobRef(tenant_id, job.id), event) for job, event in zip(jobs, events, strict=True)]
