"""For how many jobs of a user entities and facts were found, and what waits for its turn, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from memoro_core.ids import JobId, MemoryId, TenantId, UserId, new_id
from memoro_core.jobs.model import RELATING_STAGES, Claim, Finish, JobEvent, JobKind, JobState
from memoro_core.memory.enrichment_ports import Relating
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.run_store import finish_in, hold_run_in

_SQL: Final = load_queries("relations")


class PostgresRelationSlots:
    """A `RelationSlots`.

    A user's slots are numbered, so that the one that was taken so many before is found at once. Who reads and takes
    them holds the user's lock, and waits for no other lock of a job or memory then.
    """

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds

    async def take(self, claim: Claim, per_hour: int, *, now: datetime) -> bool:
        tenant_id, job = claim.ref.tenant_id, claim.job
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            await _lock(connection, tenant_id, job.user_id)
            waited = job.kind is JobKind.MEMORY_RELATE
            taken: bool = await connection.fetchval(_SQL["take"], tenant_id, job.user_id, job.id, now, per_hour, waited)
        return taken

    async def put_off(
        self, claim: Claim, per_hour: int, finish: Callable[[datetime], Finish], *, now: datetime
    ) -> JobEvent:
        tenant_id, job = claim.ref.tenant_id, claim.job
        async with self._database.tenant_tx(tenant_id, generic_plans=True) as connection:
            await hold_run_in(connection, claim)
            await _lock(connection, tenant_id, job.user_id)
            until = await connection.fetchval(_SQL["turn"], tenant_id, job.user_id, now, per_hour, job.id)
            return await finish_in(connection, self._holds, claim, finish(until), now=now)


async def leave_relations_in(
    connection: Connection, claim: Claim, relating: Relating, memory_ids: Sequence[MemoryId], *, now: datetime
) -> JobId:
    """Makes the job that finds entities and facts in memories of this one when the user's turn has come; its id."""
    tenant_id, job, relate_job_id = claim.ref.tenant_id, claim.job, JobId(new_id())
    await _lock(connection, tenant_id, job.user_id)
    run_at = await connection.fetchval(_SQL["turn"], tenant_id, job.user_id, now, relating.relation_detections, None)
    await connection.execute(
        _SQL["leave_relations"],
        tenant_id,
        relate_job_id,
        job.priority,
        job.user_id,
        memory_ids,
        RELATING_STAGES,
        job.max_attempts,
        run_at,
        now,
        job.trace_parent,
        relating.cost_bound,
        JobEvent(1, JobState.DEFERRED, 0, now, run_at=run_at),
    )
    return relate_job_id


async def _lock(connection: Connection, tenant_id: TenantId, user_id: UserId) -> None:
    # A statement of its own: the next one sees what was written until the lock was had.
    await connection.execute(_SQL["lock_user"], tenant_id, user_id)
