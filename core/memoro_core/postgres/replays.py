"""Requests about memories that come again, in a transaction of their tenant."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import Record
from pydantic import JsonValue

from memoro_core.errors import MemoroError
from memoro_core.idempotency import Idempotency, request_id_reused
from memoro_core.ids import JobId, MemoryId, TenantId
from memoro_core.memory.ports import Replay
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("memories")


async def record_in(
    connection: Connection,
    tenant_id: TenantId,
    idempotency: Idempotency | None,
    memory_ids: Sequence[MemoryId],
    job_id: JobId | None,
    *,
    now: datetime,
) -> Replay | None:
    """Remembers what a request does; if another call with its id was quicker, what that one did.

    Waits for another transaction that has the same id. Raises REQUEST_ID_REUSED.
    """
    if idempotency is None:
        return None
    answer: Mapping[str, JsonValue] = {
        "memory_ids": [str(memory_id) for memory_id in memory_ids],
        "job_id": str(job_id) if job_id else None,
    }
    recorded = await connection.fetchval(
        _SQL["record_request"], tenant_id, idempotency.request_id, idempotency.fingerprint, answer, now
    )
    return None if recorded else await find_in(connection, tenant_id, idempotency)


async def find_in(connection: Connection, tenant_id: TenantId, idempotency: Idempotency | None) -> Replay | None:
    """What the request id did before, None when it is new. Raises REQUEST_ID_REUSED."""
    if idempotency is None:
        return None
    verdict = (await find_all_in(connection, tenant_id, [idempotency])).get(idempotency)
    if isinstance(verdict, MemoroError):
        raise verdict
    return verdict


async def find_all_in(
    connection: Connection, tenant_id: TenantId, requests: Sequence[Idempotency]
) -> Mapping[Idempotency, Replay | MemoroError]:
    """What these requests did before, those that are known: REQUEST_ID_REUSED where it had another payload."""
    if not requests:
        return {}
    rows = await connection.fetch(_SQL["find_requests"], tenant_id, [request.request_id for request in requests])
    known = {row["request_id"]: row for row in rows}
    return {
        request: _verdict(request, known[request.request_id]) for request in requests if request.request_id in known
    }


def _verdict(idempotency: Idempotency, row: Record) -> Replay | MemoroError:
    if not hmac.compare_digest(row["fingerprint"], idempotency.fingerprint):
        return request_id_reused(idempotency.request_id)
    answer = row["answer"]
    return Replay(
        memory_ids=[MemoryId(UUID(memory_id)) for memory_id in answer["memory_ids"]],
        job_id=JobId(UUID(answer["job_id"])) if answer["job_id"] else None,
    )
