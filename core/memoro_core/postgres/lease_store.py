"""Leases and signs of life in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from memoro_core.jobs.heart import WorkerIdentity
from memoro_core.jobs.model import Claim, JobRef
from memoro_core.postgres.database import Database
from memoro_core.postgres.job_rows import claim_columns, ref_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("leases")


class PostgresLeaseStore:
    """A `LeaseStore`. Nothing that it writes waits for the disk: what a crash takes back only ends leases earlier."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def extend(self, claims: Sequence[Claim], *, lease_until: datetime) -> Mapping[JobRef, bool]:
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["extend"], *claim_columns(claims), lease_until)
        return {ref_of(row): row["extended"] for row in rows}

    async def cancel_requests(self, claims: Sequence[Claim]) -> Sequence[JobRef]:
        async with self._database.system_tx(durable=False) as connection:
            rows = await connection.fetch(_SQL["cancel_requests"], *claim_columns(claims))
        return [ref_of(row) for row in rows]

    async def seen(self, worker: WorkerIdentity, *, stopping: bool, now: datetime) -> None:
        async with self._database.system_tx(durable=False) as connection:
            await connection.execute(
                _SQL["worker_seen"],
                worker.id,
                worker.host,
                worker.process_id,
                worker.version,
                worker.concurrency,
                stopping,
                worker.started_at,
                now,
            )

    async def gone(self, worker_id: str) -> None:
        async with self._database.system_tx(durable=False) as connection:
            await connection.execute(_SQL["worker_gone"], worker_id)
