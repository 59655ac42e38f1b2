"""Memories in PostgreSQL."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from memoro_core.errors import MemoroError, etag_mismatch
from memoro_core.idempotency import Idempotency
from memoro_core.ids import MemoryId, TenantId, UserId
from memoro_core.jobs.model import Job
from memoro_core.limits.model import Quota
from memoro_core.memory.model import Memory, MemoryFilter
from memoro_core.memory.ports import Draft, Replay, Stored
from memoro_core.memory.service import content_hash
from memoro_core.postgres.acceptance import Overtaken, accept_in, first_event, hold_in
from memoro_core.postgres.credit_holds import CreditHolds
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.graph_traces import remove_traces_in
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.quotas import beyond_quota_in, check_growth_in
from memoro_core.postgres.replays import find_in, record_in

_SQL = load_queries("memories")


class PostgresMemoryStore:
    """MemoryStore over PostgreSQL: set-based statements, one transaction a call."""

    def __init__(self, database: Database, holds: CreditHolds) -> None:
        self._database = database
        self._holds = holds

    async def accept(self, tenant_id: TenantId, drafts: Sequence[Draft]) -> Sequence[Stored | Replay | Exception]:
        try:
            verdicts = await self._accept(tenant_id, drafts)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            # One draft that PostgreSQL can't take must not take down those that happened to come with it.
            if len(drafts) == 1:
                return [error]
            return [verdict for draft in drafts for verdict in await self.accept(tenant_id, [draft])]
        again = [draft for draft, verdict in zip(drafts, verdicts, strict=True) if verdict is None]
        later = iter(await self.accept(tenant_id, again)) if again else iter(())
        return [next(later) if verdict is None else verdict for verdict in verdicts]

    async def accept_conversation(self, tenant_id: TenantId, draft: Draft) -> Stored | Replay:
        job, messages, idempotency = draft.job, draft.memories, draft.idempotency
        async with self._database.tenant_tx(tenant_id) as connection:
            if draft.quota:
                beyond = await beyond_quota_in(connection, tenant_id, [draft], draft.quota)
                if beyond:
                    raise beyond[job.id]
            if job.cost_bound:
                replay = await record_in(connection, tenant_id, idempotency, job.memory_ids, job.id, now=job.created_at)
                if replay is not None:
                    return replay
                job, idempotency = await self._hold(connection, tenant_id, draft), None
            row = await connection.fetchrow(
                _SQL["accept_conversation"],
                tenant_id,
                job.created_at,
                job.user_id,
                messages[0].conversation_id,
                idempotency.request_id if idempotency else None,
                idempotency.fingerprint if idempotency else None,
                job.id,
                job.priority,
                [message.id for message in messages],
                [message.text for message in messages],
                [content_hash(message.text) for message in messages],
                [message.metadata for message in messages],
                [message.role for message in messages],
                [message.speaker for message in messages],
                [message.occurred_at for message in messages],
                job.stages,
                job.max_attempts,
                first_event(job),
                job.trace_parent,
                job.cost_bound,
                job.deferral_reason,
                job.run_at if job.deferral_reason else None,
            )
            if row is None:
                replay = await find_in(connection, tenant_id, idempotency)
                assert replay is not None
                return replay
        placed = [
            dataclasses.replace(message, position=row["first_position"] + place)
            for place, message in enumerate(messages)
        ]
        return Stored(placed, job, row["hinted"])

    async def get(self, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> Sequence[Memory]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(_SQL["get_memories"], tenant_id, memory_ids)
        found = {memory.id: memory for memory in map(memory_of, rows)}
        return [found[memory_id] for memory_id in memory_ids if memory_id in found]

    async def list_memories(
        self,
        tenant_id: TenantId,
        user_id: UserId | None,
        memory_filter: MemoryFilter,
        *,
        limit: int,
        before: MemoryId | None,
    ) -> Sequence[Memory]:
        async with self._database.tenant_tx(tenant_id) as connection:
            rows = await connection.fetch(
                _SQL["list_memories"],
                tenant_id,
                user_id,
                memory_filter.kinds,
                memory_filter.statuses,
                memory_filter.conversation_id,
                memory_filter.metadata,
                memory_filter.occurred_from,
                memory_filter.occurred_until,
                before,
                limit,
            )
        return [memory_of(row) for row in rows]

    async def update(
        self,
        tenant_id: TenantId,
        draft: Draft | Memory,
        *,
        expected_version: int,
        idempotency: Idempotency | None,
        quota: Quota | None = None,
    ) -> Stored | Replay | None:
        memory = draft if isinstance(draft, Memory) else draft.memories[0]
        job = None if isinstance(draft, Memory) else draft.job
        async with self._database.tenant_tx(tenant_id) as connection:
            locked = await connection.fetchrow(_SQL["lock_memory"], tenant_id, memory.id)
            if locked is None or locked["version"] != expected_version:
                # It may have been this very request, sent twice, that changed it while this one waited.
                return await find_in(connection, tenant_id, idempotency)
            job_id = job.id if job else None
            if replay := await record_in(
                connection, tenant_id, idempotency, [memory.id], job_id, now=memory.updated_at
            ):
                return replay
            if quota:
                await check_growth_in(connection, tenant_id, memory_of(locked), memory, quota)
            if isinstance(draft, Draft) and draft.job.cost_bound:
                job = await self._hold(connection, tenant_id, draft)
            await connection.execute(
                _SQL["update_memory"],
                tenant_id,
                memory.id,
                memory.text,
                content_hash(memory.text),
                memory.metadata,
                memory.occurred_at,
                memory.status,
                memory.job_id,
                memory.updated_at,
            )
            if job is None:
                return Stored([memory], None)
            in_flight = await connection.fetchval(
                _SQL["queue_job"],
                tenant_id,
                job.id,
                job.priority,
                job.user_id,
                job.memory_ids,
                job.stages,
                job.max_attempts,
                job.created_at,
                first_event(job),
                job.trace_parent,
                job.cost_bound,
                job.deferral_reason,
                job.run_at if job.deferral_reason else None,
            )
        return Stored([memory], job, in_flight)

    async def delete(
        self,
        tenant_id: TenantId,
        memory_id: MemoryId,
        *,
        version: int | None,
        idempotency: Idempotency | None,
        now: datetime,
    ) -> Replay | Memory | None:
        async with self._database.tenant_tx(tenant_id) as connection:
            row = await connection.fetchrow(_SQL["lock_memory"], tenant_id, memory_id)
            # Looked up with the row locked, so that this very request, sent twice, is seen even if both came at once.
            if replay := await find_in(connection, tenant_id, idempotency):
                return replay
            if row is None:
                return None
            memory = memory_of(row)
            if version is not None and version != memory.version:
                raise etag_mismatch("memory", version, memory.version)
            if replay := await record_in(connection, tenant_id, idempotency, [], None, now=now):
                return replay
            await remove_traces_in(connection, tenant_id, [memory_id])
            await connection.execute(_SQL["delete_memory"], tenant_id, memory_id)
        return memory

    async def find_request(self, tenant_id: TenantId, idempotency: Idempotency) -> Replay | None:
        async with self._database.tenant_tx(tenant_id) as connection:
            return await find_in(connection, tenant_id, idempotency)

    async def _accept(
        self, tenant_id: TenantId, drafts: Sequence[Draft]
    ) -> Sequence[Stored | Replay | MemoroError | None]:
        ask_first = False
        while True:
            try:
                async with self._database.tenant_tx(tenant_id) as connection:
                    return await accept_in(connection, self._holds, tenant_id, drafts, ask_first=ask_first)
            except Overtaken:
                # Each time more of the requests are known.
                ask_first = True

    async def _hold(self, connection: Connection, tenant_id: TenantId, draft: Draft) -> Job:
        """The job as it is to be stored. Raises INSUFFICIENT_CREDITS."""
        (job,) = await hold_in(connection, self._holds, tenant_id, [draft])
        if isinstance(job, MemoroError):
            raise job
        return job
