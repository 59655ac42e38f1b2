"""Memories in PostgreSQL."""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from pydantic import JsonValue

from memoro_core.errors import MemoroError, etag_mismatch
from memoro_core.idempotency import Idempotency, request_id_reused
from memoro_core.ids import JobId, MemoryId, TenantId, UserId
from memoro_core.jobs.model import Job, JobEvent
from memoro_core.memory.model import Memory, MemoryFilter
from memoro_core.memory.ports import Draft, Replay, Stored
from memoro_core.memory.service import content_hash
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.graph_traces import remove_traces_in
from memoro_core.postgres.memory_rows import memory_of
from memoro_core.postgres.queries import load_queries

_SQL = load_queries("memories")


class PostgresMemoryStore:
    """MemoryStore over PostgreSQL: set-based statements, one transaction a call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def accept(self, tenant_id: TenantId, drafts: Sequence[Draft]) -> Sequence[Stored | Replay | Exception]:
        try:
            async with self._database.tenant_tx(tenant_id) as connection:
                return await _accept(connection, tenant_id, drafts)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            # One draft that PostgreSQL can't take must not take down those that happened to come with it.
            if len(drafts) == 1:
                return [error]
            return [verdict for draft in drafts for verdict in await self.accept(tenant_id, [draft])]

    async def accept_conversation(self, tenant_id: TenantId, draft: Draft) -> Stored | Replay:
        job, messages, idempotency = draft.job, draft.memories, draft.idempotency
        async with self._database.tenant_tx(tenant_id) as connection:
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
                _queued_event(job),
                job.trace_parent,
            )
            if row is None:
                assert idempotency is not None
                replay = await _find_request(connection, tenant_id, idempotency)
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
        self, tenant_id: TenantId, draft: Draft | Memory, *, expected_version: int, idempotency: Idempotency | None
    ) -> Stored | Replay | None:
        memory = draft if isinstance(draft, Memory) else draft.memories[0]
        job = None if isinstance(draft, Memory) else draft.job
        async with self._database.tenant_tx(tenant_id) as connection:
            locked = await connection.fetchrow(_SQL["lock_memory"], tenant_id, memory.id)
            answer = _answer([memory.id], job.id if job else None)
            if locked is None or locked["version"] != expected_version:
                # It may have been this very request, sent twice, that changed it while this one waited.
                return await _find_request(connection, tenant_id, idempotency)
            if replay := await _record(connection, tenant_id, idempotency, answer, now=memory.updated_at):
                return replay
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
                _queued_event(job),
                job.trace_parent,
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
            if replay := await _find_request(connection, tenant_id, idempotency):
                return replay
            if row is None:
                return None
            memory = memory_of(row)
            if version is not None and version != memory.version:
                raise etag_mismatch("memory", version, memory.version)
            if replay := await _record(connection, tenant_id, idempotency, _answer([], None), now=now):
                return replay
            await remove_traces_in(connection, tenant_id, [memory_id])
            await connection.execute(_SQL["delete_memory"], tenant_id, memory_id)
        return memory

    async def find_request(self, tenant_id: TenantId, idempotency: Idempotency) -> Replay | None:
        async with self._database.tenant_tx(tenant_id) as connection:
            return await _find_request(connection, tenant_id, idempotency)


async def _accept(
    connection: Connection, tenant_id: TenantId, drafts: Sequence[Draft]
) -> Sequence[Stored | Replay | MemoroError]:
    first = drafts[0].job
    rows = await connection.fetch(
        _SQL["accept"],
        tenant_id,
        [draft.job.created_at for draft in drafts],
        [draft.memories[0].id for draft in drafts],
        [draft.job.id for draft in drafts],
        [draft.job.user_id for draft in drafts],
        [draft.memories[0].text for draft in drafts],
        [content_hash(draft.memories[0].text) for draft in drafts],
        [draft.memories[0].metadata for draft in drafts],
        [draft.memories[0].occurred_at for draft in drafts],
        [draft.job.priority for draft in drafts],
        [draft.idempotency.request_id if draft.idempotency else None for draft in drafts],
        [draft.idempotency.fingerprint if draft.idempotency else None for draft in drafts],
        first.stages,
        first.max_attempts,
        [_queued_event(draft.job) for draft in drafts],
        [draft.run_by_caller for draft in drafts],
        [draft.job.trace_parent for draft in drafts],
    )
    hinted: dict[JobId, bool] = {row["job_id"]: row["hinted"] for row in rows}
    repeated = [draft.idempotency for draft in drafts if draft.idempotency and draft.job.id not in hinted]
    known = await _find_requests(connection, tenant_id, repeated) if repeated else {}
    return [
        Stored(draft.memories, draft.job, hinted[draft.job.id])
        if draft.job.id in hinted or draft.idempotency is None
        else _verdict(draft.idempotency, known[draft.idempotency.request_id])
        for draft in drafts
    ]


def _queued_event(job: Job) -> JobEvent:
    return JobEvent(seq=1, state=job.state, attempt=0, at=job.created_at, run_at=job.run_at)


def _answer(memory_ids: Sequence[MemoryId], job_id: JobId | None) -> Mapping[str, JsonValue]:
    return {"memory_ids": [str(memory_id) for memory_id in memory_ids], "job_id": str(job_id) if job_id else None}


async def _record(
    connection: Connection,
    tenant_id: TenantId,
    idempotency: Idempotency | None,
    answer: Mapping[str, JsonValue],
    *,
    now: datetime,
) -> Replay | None:
    """Remembers the request; if another call with its id was quicker, what that one did."""
    if idempotency is None:
        return None
    recorded = await connection.fetchval(
        _SQL["record_request"],
        tenant_id,
        idempotency.request_id,
        idempotency.fingerprint,
        answer,
        now,
    )
    return None if recorded else await _find_request(connection, tenant_id, idempotency)


async def _find_request(connection: Connection, tenant_id: TenantId, idempotency: Idempotency | None) -> Replay | None:
    if idempotency is None:
        return None
    known = await _find_requests(connection, tenant_id, [idempotency])
    if (row := known.get(idempotency.request_id)) is None:
        return None
    verdict = _verdict(idempotency, row)
    if isinstance(verdict, MemoroError):
        raise verdict
    return verdict


async def _find_requests(
    connection: Connection, tenant_id: TenantId, requests: Sequence[Idempotency]
) -> Mapping[str, asyncpg.Record]:
    rows = await connection.fetch(_SQL["find_requests"], tenant_id, [request.request_id for request in requests])
    return {row["request_id"]: row for row in rows}


def _verdict(idempotency: Idempotency, row: asyncpg.Record) -> Replay | MemoroError:
    if not hmac.compare_digest(row["fingerprint"], idempotency.fingerprint):
        return request_id_reused(idempotency.request_id)
    answer = row["answer"]
    return Replay(
        memory_ids=[MemoryId(UUID(memory_id)) for memory_id in answer["memory_ids"]],
        job_id=JobId(UUID(answer["job_id"])) if answer["job_id"] else None,
    )
