"""Jobs in PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from asyncpg import Record

from memoro_core.batching import Coalescer
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import (
    Claim,
    Finish,
    Job,
    JobEvent,
    JobFilter,
    JobRef,
    JobState,
    Stage,
    StageProgress,
    StageStatus,
)
from memoro_core.jobs.ports import LeaseLost
from memoro_core.jobs.states import WORKER_LOST, cancelled, check_finish, lost
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.job_rows import change_json, event_json, event_of, job_of, stages_json
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.webhook_rows import announcement
from memoro_core.tenancy.model import Tier
from memoro_core.webhooks.events import job_ended

_SQL: Final = load_queries("jobs")
_CLOCK_SKEW: Final = timedelta(seconds=1)
"""A worker whose clock is behind the server's must not refuse the job that it was just hinted of."""


class PostgresJobStore:
    """A `JobStore`. Reports of concurrent runs are gathered into one statement; heartbeats go through `beats`."""

    def __init__(self, database: Database, *, beats: Database | None = None) -> None:
        self._database = database
        self._beats = beats or database
        self._reports: Coalescer[None, _Report, tuple[JobEvent, bool]] = Coalescer(self._report_all)

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
            rows = await connection.fetch(_SQL["sequences"], *_columns(refs))
        return {_ref(row): row["last_seq"] for row in rows}

    async def claim(
        self, refs: Sequence[JobRef], *, worker_id: str, now: datetime, lease_until: datetime
    ) -> Sequence[tuple[Claim, JobEvent]]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["claim"],
                *_columns(refs),
                now + _CLOCK_SKEW,
                now,
                worker_id,
                lease_until,
                change_json(JobEvent(0, JobState.RUNNING, 0, now)),
            )
        return [(Claim(_ref(row), row["run_lease"], job_of(row)), event_of(row["event"])) for row in rows]

    async def extend(self, claims: Sequence[Claim], *, lease_until: datetime) -> Sequence[tuple[JobRef, bool]]:
        # A heartbeat that a crash takes back only makes the lease end earlier.
        async with self._beats.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["extend"], *_run_columns(claims), lease_until)
        return [(_ref(row), row["cancel_requested"]) for row in rows]

    async def report(
        self, claim: Claim, stages: Sequence[StageProgress], progress: StageProgress, *, now: datetime
    ) -> tuple[JobEvent, bool]:
        event = JobEvent(0, JobState.RUNNING, claim.job.attempt, now, stage=progress)
        return await self._reports.submit(None, _Report(claim, stages, event))

    async def finish(self, claim: Claim, finish: Finish, *, now: datetime) -> JobEvent:
        async with self._database.tenant_tx(claim.ref.tenant_id) as connection:
            return await finish_in(connection, claim, finish, now=now)

    async def release(self, claims: Sequence[Claim], *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["release"],
                *_run_columns(claims),
                now,
                change_json(JobEvent(0, JobState.QUEUED, 0, now, run_at=now)),
            )
        return [(_ref(row), event_of(row["event"])) for row in rows]

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
                event = JobEvent(job.sequence + 1, JobState.CANCELLED, job.attempt, now, usage=job.usage)
                told = announcement(job_ended(job, cancelled(stages=job.stages, usage=job.usage), now), now)
                await connection.execute(_SQL["cancel_waiting"], tenant_id, job_id, now, event_json(event), *told)
                await connection.execute(_SQL["fail_pending_memories"], tenant_id, job_id, job.memory_ids, now)
            else:
                return job, None
            row = await connection.fetchrow(_SQL["get_job"], tenant_id, job_id)
        return (job if row is None else job_of(row)), event

    async def due(self, *, now: datetime, hinted_before: datetime, limit: int) -> Sequence[tuple[JobRef, Tier]]:
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["due"], now, hinted_before, limit)
        return [(_ref(row), Tier(row["tier"])) for row in rows]

    async def expire(self, *, now: datetime, limit: int) -> Sequence[tuple[JobRef, JobEvent]]:
        told = change_json(JobEvent(0, JobState.QUEUED, 0, now, error=WORKER_LOST, run_at=now))
        async with self._database.system_tx() as connection:
            requeued = await connection.fetch(_SQL["requeue_expired"], now, limit, WORKER_LOST, told)
            without_attempts = await connection.fetch(_SQL["expired_for_good"], now, limit)
        events = [(_ref(row), event_of(row["event"])) for row in requeued]
        for row in without_attempts:
            claim = Claim(_ref(row), row["run_lease"], job_of(row))
            async with self._database.tenant_tx(claim.ref.tenant_id) as connection:
                # Its worker may have come back, or another reaper been quicker.
                if await connection.fetchval(_SQL["hold_expired"], *_run(claim), now):
                    event = await finish_in(connection, claim, lost(claim.job, now=now), now=now)
                    events.append((claim.ref, event))
        return events

    async def _report_all(self, _: None, reports: Sequence[_Report]) -> Sequence[tuple[JobEvent, bool] | Exception]:
        progress = [
            {
                "tenant_id": report.claim.ref.tenant_id,
                "job_id": report.claim.ref.job_id,
                "lease": report.claim.lease,
                "stages": stages_json(report.stages),
                "event": change_json(report.event),
            }
            for report in reports
        ]
        # Progress that a crash takes back is made again by the next attempt.
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["report"], progress, reports[-1].event.at)
        written = {_ref(row): row for row in rows}
        results: list[tuple[JobEvent, bool] | Exception] = []
        for report in reports:
            row = written.pop(report.claim.ref, None)
            if row is None:
                results.append(LeaseLost())
            else:
                event = dataclasses.replace(report.event, seq=row["last_seq"])
                results.append((event, row["cancel_requested"]))
        return results


async def finish_in(connection: Connection, claim: Claim, finish: Finish, *, now: datetime) -> JobEvent:
    """Ends a run within a transaction of its tenant, so that it commits together with what the run brought about.

    A job that ends without success fails its PENDING memories; one that is asked to cancel is not QUEUED again but
    CANCELLED. `finish.usage` is that of all attempts. Raises LeaseLost, upon which the transaction must be rolled back.
    """
    check_finish(finish)
    if finish.run_at is not None:
        event = _event_of_finish(claim, finish, now)
        seq = await connection.fetchval(
            _SQL["retry"],
            *_run(claim),
            finish.run_at,
            stages_json(finish.stages),
            finish.error,
            finish.usage.input_tokens,
            finish.usage.output_tokens,
            change_json(event),
            now,
        )
        if seq is not None:
            return dataclasses.replace(event, seq=seq)
        finish = cancelled(stages=finish.stages, usage=finish.usage)
    event = _event_of_finish(claim, finish, now)
    seq = await connection.fetchval(
        _SQL["finish"],
        *_run(claim),
        finish.state,
        stages_json(finish.stages),
        finish.partial,
        finish.result,
        finish.error,
        finish.usage.input_tokens,
        finish.usage.output_tokens,
        now,
        change_json(event),
        *announcement(job_ended(claim.job, finish, now), now),
    )
    if seq is None:
        raise LeaseLost
    if finish.state is not JobState.SUCCEEDED:
        await connection.execute(
            _SQL["fail_pending_memories"], claim.ref.tenant_id, claim.ref.job_id, claim.job.memory_ids, now
        )
    return dataclasses.replace(event, seq=seq)


@dataclass(frozen=True, slots=True)
class _Report:
    claim: Claim
    stages: Sequence[StageProgress]
    event: JobEvent


def _event_of_finish(claim: Claim, finish: Finish, now: datetime) -> JobEvent:
    # A commit succeeds together with its job, so that this event tells of both.
    committed = [one for one in finish.stages if one.stage is Stage.COMMIT and one.status is StageStatus.SUCCEEDED]
    return JobEvent(
        0,
        finish.state,
        claim.job.attempt,
        now,
        stage=committed[0] if committed else None,
        error=finish.error,
        run_at=finish.run_at,
        result=finish.result,
        partial=finish.partial,
        usage=finish.usage,
    )


def _ref(row: Record) -> JobRef:
    return JobRef(row["tenant_id"], row["job_id"])


def _columns(refs: Sequence[JobRef]) -> tuple[list[TenantId], list[JobId]]:
    return [ref.tenant_id for ref in refs], [ref.job_id for ref in refs]


def _run(claim: Claim) -> tuple[TenantId, JobId, int]:
    return claim.ref.tenant_id, claim.ref.job_id, claim.lease


def _run_columns(claims: Sequence[Claim]) -> tuple[list[TenantId], list[JobId], list[int]]:
    return *_columns([claim.ref for claim in claims]), [claim.lease for claim in claims]
