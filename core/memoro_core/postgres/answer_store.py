"""Answers to requests in PostgreSQL."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pydantic import JsonValue

from memoro_core.idempotency import Idempotency, request_id_reused
from memoro_core.ids import TenantId
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("answers")


class PostgresAnswerStore:
    """An `AnswerStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: TenantId, idempotency: Idempotency) -> Mapping[str, JsonValue] | None:
        async with self._database.system_tx() as connection:
            return await _find_in(connection, tenant_id, idempotency)

    async def record(
        self, tenant_id: TenantId, idempotency: Idempotency, answer: Mapping[str, JsonValue], *, now: datetime
    ) -> None:
        async with self._database.system_tx() as connection:
            await answered_before_in(connection, tenant_id, idempotency, answer, now=now)

    async def claim(
        self, tenant_id: TenantId, idempotency: Idempotency, *, now: datetime
    ) -> Mapping[str, JsonValue] | None:
        async with self._database.system_tx() as connection:
            return await answered_before_in(connection, tenant_id, idempotency, {}, now=now)

    async def answer(self, tenant_id: TenantId, idempotency: Idempotency, answer: Mapping[str, JsonValue]) -> None:
        async with self._database.system_tx() as connection:
            await connection.execute(_SQL["answer"], tenant_id, idempotency.request_id, answer)


async def answered_before_in(
    connection: Connection,
    tenant_id: TenantId,
    idempotency: Idempotency | None,
    answer: Mapping[str, JsonValue],
    *,
    kept: bool = False,
    now: datetime,
) -> Mapping[str, JsonValue] | None:
    """What the request was answered before; None when it is new, and now remembered with this transaction.

    One that is `kept` is never forgotten. Waits for another transaction that holds the same request id. Raises
    REQUEST_ID_REUSED.
    """
    if idempotency is None:
        return None
    record = (tenant_id, idempotency.request_id, idempotency.fingerprint, answer, now, kept)
    if await connection.fetchval(_SQL["record_answer"], *record) is not None:
        return None
    return await _find_in(connection, tenant_id, idempotency)


async def _find_in(
    connection: Connection, tenant_id: TenantId, idempotency: Idempotency
) -> Mapping[str, JsonValue] | None:
    row = await connection.fetchrow(_SQL["find_answer"], tenant_id, idempotency.request_id)
    if row is None:
        return None
    if not hmac.compare_digest(row["fingerprint"], idempotency.fingerprint):
        raise request_id_reused(idempotency.request_id)
    answer: Mapping[str, JsonValue] = row["answer"]
    return answer
