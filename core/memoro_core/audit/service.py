"""Writing the audit log, and reading it."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from memoro_core.audit.model import AuditEvent, AuditFilter
from memoro_core.audit.ports import AuditStore
from memoro_core.clock import Clock
from memoro_core.ids import AuditEventId, TenantId, new_id
from memoro_core.paging import Page, cut, identifier
from memoro_core.tenancy.model import Principal

MAX_REQUEST_BYTES: Final = 4096
_log: Final = structlog.get_logger(__name__)


class AuditService:
    """The audit log of the deployment."""

    def __init__(self, store: AuditStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._writing: set[asyncio.Task[None]] = set()

    async def record(
        self,
        principal: Principal,
        method: str,
        *,
        code: str,
        reason: str,
        tenant_id: TenantId | None,
        request: str,
        request_id: str,
    ) -> None:
        """Writes an event, to the end even if its caller goes away meanwhile. Raises UNAVAILABLE.

        Of the request's JSON 4 KiB are kept.
        """
        event = AuditEvent(
            id=AuditEventId(new_id()),
            at=self._clock.now(),
            method=method,
            code=code,
            reason=reason,
            actor_tenant_id=principal.tenant_id,
            actor_api_key_id=principal.api_key_id,
            actor_subject=principal.subject,
            tenant_id=tenant_id,
            request=request.encode()[:MAX_REQUEST_BYTES].decode(errors="ignore"),
            request_id=request_id,
        )
        writing = asyncio.create_task(self._store.add(event))
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        await asyncio.shield(writing)

    async def list(self, event_filter: AuditFilter, *, size: int, position: tuple[str, ...] | None) -> Page[AuditEvent]:
        """Events, newest first. Raises PAGE_TOKEN_INVALID."""
        before = AuditEventId(identifier(position)) if position else None
        rows = await self._store.list(event_filter, limit=size + 1, before=before)
        return cut(rows, size, (str(rows[size - 1].id),) if len(rows) > size else None)

    async def close(self) -> None:
        """Waits until what is being written is written."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    def _written(self, writing: asyncio.Task[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled() and writing.exception() is not None:
            _log.error("audit_event_lost", exc_info=writing.exception())
