"""Calls of providers in PostgreSQL: the fence before each, and what it has used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from asyncpg import Record

from memoro_core.batching import Coalescer
from memoro_core.billing.calls import CallEnd, CallId, NewCall, shortage
from memoro_core.billing.model import Cost
from memoro_core.errors import MemoroError
from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import Claim, JobState
from memoro_core.jobs.run_ports import LeaseLost
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("calls")

_Write: TypeAlias = NewCall | CallEnd


class PostgresCallStore:
    """A `CallStore`. What concurrent runs of a tenant write is gathered into one durable transaction."""

    def __init__(self, database: Database, holds: CreditHolds, *, margin_basis_points: int) -> None:
        self._database = database
        self._holds = holds
        self._margin = margin_basis_points
        self._writes: Coalescer[TenantId, _Write, CallId | None] = Coalescer(self._write_all)

    async def open(self, call: NewCall) -> CallId:
        opened = await self._writes.submit(call.claim.ref.tenant_id, call)
        assert opened is not None, "what opens a call gets its id"
        return opened

    async def still_holds(self, claim: Claim) -> None:
        async with self._database.tenant_tx(claim.ref.tenant_id) as connection:
            if not await connection.fetchval(_SQL["still_holds"], claim.ref.tenant_id, claim.ref.job_id, claim.lease):
                raise LeaseLost

    async def close(self, end: CallEnd) -> None:
        await self._writes.submit(end.id.tenant_id, end)

    async def _write_all(self, tenant_id: TenantId, writes: Sequence[_Write]) -> Sequence[CallId | Exception | None]:
        ends = [write for write in writes if isinstance(write, CallEnd)]
        calls = [write for write in writes if isinstance(write, NewCall)]
        job_ids = {end.id.job_id for end in ends} | {call.claim.ref.job_id for call in calls}
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(_SQL["lock_runs"], tenant_id, list(job_ids))
            if ends:
                await _close(connection, tenant_id, ends)
            runs = {row["job_id"]: row for row in rows}
            opened = iter(await self._open(connection, tenant_id, calls, runs) if calls else ())
        return [next(opened) if isinstance(write, NewCall) else None for write in writes]

    async def _open(
        self, connection: Connection, tenant_id: TenantId, calls: Sequence[NewCall], runs: Mapping[JobId, Record]
    ) -> Sequence[CallId | Exception]:
        """Writes those of the calls that may be made, one result for each."""
        standing: dict[JobId, list[NewCall]] = {}
        for call in calls:
            if _holds_its_job(call, runs):
                standing.setdefault(call.claim.ref.job_id, []).append(call)
        rows = await connection.fetch(_SQL["spent"], tenant_id, list(standing)) if standing else []
        # Budgets are locked day by day, as whatever settles jobs of several days does: else both may wait.
        rows.sort(key=lambda row: (row["day"] or standing[row["job_id"]][0].day, row["job_id"]))
        refused: dict[JobId, MemoroError] = {}
        numbers: dict[JobId, int] = {}
        for row in rows:
            job_id = row["job_id"]
            numbers[job_id] = row["calls"]
            try:
                await self._cover(connection, tenant_id, row, standing[job_id])
            except MemoroError as error:
                refused[job_id] = error
        results: list[CallId | Exception] = []
        made: list[tuple[CallId, NewCall]] = []
        for call in calls:
            job_id = call.claim.ref.job_id
            if job_id in refused:
                results.append(refused[job_id])
            elif not _holds_its_job(call, runs):
                results.append(LeaseLost())
            else:
                numbers[job_id] += 1
                call_id = CallId(tenant_id, job_id, runs[job_id]["attempt"], numbers[job_id])
                made.append((call_id, call))
                results.append(call_id)
        if made:
            await _insert(connection, tenant_id, made)
        return results

    async def _cover(self, connection: Connection, tenant_id: TenantId, row: Record, calls: Sequence[NewCall]) -> None:
        """Sees to it that the job's hold is enough for what it has spent and for these calls."""
        job_id, held = row["job_id"], row["amount"]
        missing = shortage(
            held or 0,
            Cost(row["pico_dollars"], row["fees"]),
            [call.most for call in calls],
            margin_basis_points=self._margin if held is None else row["margin_basis_points"],
        )
        if missing:
            await self._holds.extend_in(connection, tenant_id, job_id, missing, now=calls[0].at)
            if held is None:
                # Nothing had a price when the job was accepted.
                await connection.execute(_SQL["bind_cost"], tenant_id, job_id, missing)


def _holds_its_job(call: NewCall, runs: Mapping[JobId, Record]) -> bool:
    run = runs.get(call.claim.ref.job_id)
    return run is not None and run["state"] == JobState.RUNNING and run["run_lease"] == call.claim.lease


async def _close(connection: Connection, tenant_id: TenantId, ends: Sequence[CallEnd]) -> None:
    await connection.execute(
        _SQL["close_calls"],
        tenant_id,
        [end.id.job_id for end in ends],
        [end.id.attempt for end in ends],
        [end.id.call for end in ends],
        [end.input_tokens for end in ends],
        [end.output_tokens for end in ends],
        [end.failed for end in ends],
        [end.at for end in ends],
    )


async def _insert(connection: Connection, tenant_id: TenantId, calls: Sequence[tuple[CallId, NewCall]]) -> None:
    await connection.execute(
        _SQL["open_calls"],
        tenant_id,
        [made.job_id for made, _ in calls],
        [made.attempt for made, _ in calls],
        [made.call for made, _ in calls],
        [call.claim.job.user_id for _, call in calls],
        [call.day for _, call in calls],
        [call.bound.provider for _, call in calls],
        [call.bound.model for _, call in calls],
        [call.bound.operation for _, call in calls],
        [call.request_hash for _, call in calls],
        [call.bound.input_tokens for _, call in calls],
        [call.bound.output_tokens for _, call in calls],
        [call.bound.items for _, call in calls],
        [call.price.input_price for _, call in calls],
        [call.price.output_price for _, call in calls],
        [call.price.fee for _, call in calls],
        [call.at for _, call in calls],
    )
