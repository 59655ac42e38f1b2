"""The audit log in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from asyncpg import Record

from memoro_core.audit.model import AuditEvent, AuditFilter
from memoro_core.ids import AuditEventId, TenantId
from memoro_core.postgres.database import Database, rows_of
from memoro_core.postgres.queries import load_queries

_SQL: Final = load_queries("audit")
_DEPLOYMENT: Final = TenantId(UUID(int=0))
"""In the place of a tenant: what was about all of them."""
_APART: Final = timedelta(minutes=1)
"""How far an event's time and that in its id may be apart at most: the id is made by the machine's own clock."""
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MILLISECOND: Final = timedelta(milliseconds=1)
_LARGEST: Final = (1 << 48) - 1


class PostgresAuditStore:
    """An `AuditStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event: AuditEvent) -> None:
        async with self._database.system_tx() as connection:
            await connection.execute(
                _SQL["add_event"],
                event.id,
                event.at,
                event.method,
                event.code,
                event.reason,
                event.actor_tenant_id,
                event.actor_api_key_id,
                event.actor_subject,
                event.tenant_id or _DEPLOYMENT,
                event.request,
                event.request_id,
            )

    async def list(self, event_filter: AuditFilter, *, limit: int, before: AuditEventId | None) -> Sequence[AuditEvent]:
        first, last = _ids_between(event_filter.at_from, event_filter.until)
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(
                _SQL["list_events"],
                before,
                event_filter.tenant_id,
                event_filter.method,
                event_filter.at_from,
                event_filter.until,
                first,
                last,
                limit,
            )
        return [_event_of(row) for row in rows]

    async def forget(self, *, before: datetime, limit: int) -> int:
        async with self._database.system_tx() as connection:
            return rows_of(await connection.execute(_SQL["forget_events"], before, limit))


def _ids_between(at_from: datetime | None, until: datetime | None) -> tuple[UUID, UUID]:
    first = 0 if at_from is None else _milliseconds(at_from) - _APART // _MILLISECOND
    last = _LARGEST if until is None else _milliseconds(until) + _APART // _MILLISECOND
    return UUID(int=_within(first) << 80), UUID(int=(_within(last) << 80) | ((1 << 80) - 1))


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _within(milliseconds: int) -> int:
    return min(max(milliseconds, 0), _LARGEST)


def _event_of(row: Record) -> AuditEvent:
    return AuditEvent(
        id=row["event_id"],
        at=row["at"],
        method=row["method"],
        code=row["code"],
        reason=row["reason"],
        actor_tenant_id=row["actor_tenant_id"],
        actor_api_key_id=row["actor_api_key_id"],
        actor_subject=row["actor_subject"],
        tenant_id=None if row["tenant_id"] == _DEPLOYMENT else row["tenant_id"],
        request=row["request"],
        request_id=row["request_id"],
    )
