"""Runs of jobs in PostgreSQL, from the claim to the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeAlias

from memoro_core.batching import Coalescer
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Claim, Finish, JobEvent, JobKind, JobRef, JobState, Stage, StageProgress, StageStatus
from memoro_core.jobs.run_ports import Expired, LeaseLost
from memoro_core.jobs.states import cancelled, check_finish
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.job_rows import (
    claim_columns,
    claim_of,
    event_of,
    ref_columns,
    ref_of,
)
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.settlements import settle_in
from memoro_core.postgres.webhook_store import announce_in
from memoro_core.webhooks.events import job_ended
from memoro_core.webhooks.model import WebhookEvent

_SQL: Final = load_queries("runs")
_CLOCK_SKEW: Final = timedelta(seconds=1)
"""A worker whose clock is behind the server's must not refuse the job that it was just hinted of."""


_Run: TypeAlias = tuple[JobId, int]
"""A run of a tenant's job, by its lease."""


class PostgresRunStore:
    """A `RunStore`. What concurrent runs report, and how they end, is gathered into one statement each."""

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds
        self._reports: Coalescer[None, _Report, tuple[JobEvent, bool]] = Coalescer(self._report_all)
        self._ends: Coalescer[TenantId, _End, JobEvent] = Coalescer(self._finish_all)

    async def claim(
        self,
        refs: Sequence[JobRef],
        *,
        worker_id: str,
        now: datetime,
        lease_until: datetime,
        limits: Mapping[JobKind, float],
    ) -> Sequence[Claim]:
        async with self._database.system_tx(claiming_for={ref.tenant_id for ref in refs}) as connection:
            rows = await connection.fetch(
                _SQL["claim"],
                # A job that is named twice would take the room of two.
                *ref_columns(list(dict.fromkeys(refs))),
                now + _CLOCK_SKEW,
                now,
                worker_id,
                lease_until,
                JobEvent(0, JobState.RUNNING, 0, now),
                limits,
            )
        return [claim_of(row) for row in rows]

    async def report(
        self, claim: Claim, stages: Sequence[StageProgress], progress: StageProgress, *, now: datetime
    ) -> tuple[JobEvent, bool]:
        event = JobEvent(0, JobState.RUNNING, claim.job.attempt, now, stage=progress)
        return await self._reports.submit(None, _Report(claim, stages, event))

    async def finish(self, claim: Claim, finish: Finish, *, now: datetime) -> JobEvent:
        check_finish(finish)
        return await self._ends.submit(claim.ref.tenant_id, _End(claim, finish, now))

    async def release(self, claims: Sequence[Claim], *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["release"],
                *claim_columns(claims),
                now,
                JobEvent(0, JobState.QUEUED, 0, now, run_at=now),
            )
        return [(ref_of(row), event_of(row["event"])) for row in rows]

    async def expired(self, *, now: datetime, limit: int) -> Sequence[Expired]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["expired"], now, limit)
        return [Expired(claim_of(row), row["timed_out"]) for row in rows]

    async def reap(self, ends: Sequence[tuple[Claim, Finish]], *, now: datetime) -> Sequence[tuple[JobRef, JobEvent]]:
        reaped: list[tuple[JobRef, JobEvent]] = []
        by_tenant = attrgetter("claim.ref.tenant_id")
        items = sorted((_End(claim, finish, now) for claim, finish in ends), key=by_tenant)
        for tenant_id, group in groupby(items, key=by_tenant):
            of_tenant = list(group)
            async with self._database.tenant_tx(tenant_id) as connection:
                # Its worker may have come back, or another reaper been quicker.
                _, job_ids, leases = claim_columns([end.claim for end in of_tenant])
                rows = await connection.fetch(_SQL["hold_expired"], tenant_id, job_ids, leases, now)
                held = {row["job_id"] for row in rows}
                standing = [end for end in of_tenant if end.claim.ref.job_id in held]
                events = await _end_runs(connection, self._holds, tenant_id, standing)
            reaped += [(end.claim.ref, event) for end in standing if (event := events.get(end.run))]
        return reaped

    async def _report_all(self, _: None, reports: Sequence[_Report]) -> Sequence[tuple[JobEvent, bool] | Exception]:
        progress = [
            {
                "tenant_id": report.claim.ref.tenant_id,
                "job_id": report.claim.ref.job_id,
                "lease": report.claim.lease,
                "stages": report.stages,
                "event": report.event,
            }
            for report in reports
        ]
        # Progress that a crash takes back is made again by the next attempt.
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["report"], progress, reports[-1].event.at)
        # A process may hold a job again while a run of it that has lost its lease still speaks up.
        written = {(ref_of(row), row["lease"]): row for row in rows}
        results: list[tuple[JobEvent, bool] | Exception] = []
        for report in reports:
            row = written.pop((report.claim.ref, report.claim.lease), None)
            if row is None:
                results.append(LeaseLost())
            else:
                event = dataclasses.replace(report.event, seq=row["last_seq"])
                results.append((event, row["cancel_requested"]))
        return results

    async def _finish_all(self, tenant_id: TenantId, ends: Sequence[_End]) -> Sequence[JobEvent | Exception]:
        async with self._database.tenant_tx(tenant_id) as connection:
            events = await _end_runs(connection, self._holds, tenant_id, ends)
        # Of two ends of one run, the first holds.
        return [events.pop(end.run) if end.run in events else LeaseLost() for end in ends]


async def hold_run_in(connection: Connection, claim: Claim) -> None:
    """Makes sure, until a transaction of its tenant ends, that the run has its job. Raises LeaseLost."""
    ref = claim.ref
    if await connection.fetchval(_SQL["hold_run"], ref.tenant_id, ref.job_id, claim.lease) is None:
        raise LeaseLost


async def finish_in(
    connection: Connection, holds: CreditHolds, claim: Claim, finish: Finish, *, now: datetime
) -> JobEvent:
    """Ends a run within a transaction of its tenant, so that it commits together with what the run brought about.

    Raises LeaseLost, upon which the transaction must be rolled back.
    """
    check_finish(finish)
    events = await _end_runs(connection, holds, claim.ref.tenant_id, [_End(claim, finish, now)])
    if not events:
        raise LeaseLost
    return events[claim.ref.job_id, claim.lease]


@dataclass(frozen=True, slots=True)
class _Report:
    claim: Claim
    stages: Sequence[StageProgress]
    event: JobEvent


@dataclass(frozen=True, slots=True)
class _End:
    claim: Claim
    finish: Finish
    now: datetime

    @property
    def run(self) -> _Run:
        return self.claim.ref.job_id, self.claim.lease


async def _end_runs(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, ends: Sequence[_End]
) -> dict[_Run, JobEvent]:
    """The last event of each run that still held its job."""
    events = await _write_ends(connection, holds, tenant_id, ends)
    # Who is asked to cancel is not tried again.
    again = [end for end in ends if end.finish.run_at is not None and end.run not in events]
    if again:
        stopped = [dataclasses.replace(end, finish=_cancelled(end.finish)) for end in again]
        events |= await _write_ends(connection, holds, tenant_id, stopped)
    return events


def _cancelled(finish: Finish) -> Finish:
    end = cancelled(stages=finish.stages, usage=finish.usage)
    return dataclasses.replace(end, free_calls=finish.free_calls)


async def _write_ends(
    connection: Connection, holds: CreditHolds, tenant_id: TenantId, ends: Sequence[_End]
) -> dict[_Run, JobEvent]:
    if not ends:
        return {}
    first = {end.run: (end, _last_event(end)) for end in reversed(ends)}
    rows = await connection.fetch(
        _SQL["finish"], tenant_id, [_end_json(end, event) for end, event in first.values()], ends[-1].now
    )
    paid = [row["job_id"] for row in rows if row["paid"]]
    charged = await settle_in(connection, holds, tenant_id, paid, now=ends[-1].now)
    events: dict[_Run, JobEvent] = {}
    told: list[WebhookEvent] = []
    for row in rows:
        run = row["job_id"], row["lease"]
        end, event = first[run]
        usage = dataclasses.replace(end.finish.usage, charged=charged.get(row["job_id"], 0))
        events[run] = dataclasses.replace(event, seq=row["last_seq"], usage=usage)
        if row["listened"] and end.finish.state.terminal:
            told.append(job_ended(end.claim.job, dataclasses.replace(end.finish, usage=usage), end.now))
    if told:
        await announce_in(connection, tenant_id, told, now=ends[-1].now)
    return events


def _end_json(end: _End, event: JobEvent) -> dict[str, Any]:
    claim, finish = end.claim, end.finish
    return {
        "job_id": claim.ref.job_id,
        "lease": claim.lease,
        "state": finish.state,
        "stages": finish.stages,
        "partial": finish.partial,
        "result": finish.result,
        "error": finish.error,
        "input_tokens": finish.usage.input_tokens,
        "output_tokens": finish.usage.output_tokens,
        "run_at": finish.run_at,
        "deferral_reason": finish.deferral_reason,
        "event": event,
        "free_calls": [
            {
                "day": call.day,
                "provider": call.usage.provider,
                "model": call.usage.model,
                "operation": call.usage.operation,
                "failed": call.failed,
                "input_tokens": call.usage.input_tokens,
                "output_tokens": call.usage.output_tokens,
                "items": call.usage.items,
                "started_at": call.started_at,
                "ended_at": call.ended_at,
            }
            for call in finish.free_calls
        ],
    }


def _last_event(end: _End) -> JobEvent:
    finish = end.finish
    # A commit succeeds together with its job, so that this event tells of both.
    committed = [one for one in finish.stages if one.stage is Stage.COMMIT and one.status is StageStatus.SUCCEEDED]
    attempts = end.claim.job.attempt
    return JobEvent(
        0,
        finish.state,
        attempts - 1 if finish.state is JobState.DEFERRED else attempts,
        end.now,
        stage=committed[0] if committed else None,
        error=finish.error,
        run_at=finish.run_at,
        result=finish.result,
        partial=finish.partial,
        usage=finish.usage,
    )
