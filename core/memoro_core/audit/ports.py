"""What the audit log needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from memoro_core.audit.model import AuditEvent, AuditFilter
from memoro_core.ids import AuditEventId


class AuditStore(Protocol):
    """The events, which are only ever added, and in the end forgotten."""

    async def add(self, event: AuditEvent) -> None:
        """Keeps an event. Raises UNAVAILABLE."""
        ...

    async def list(self, event_filter: AuditFilter, *, limit: int, before: AuditEventId | None) -> Sequence[AuditEvent]:
        """Events newest first, at most `limit`, older than `before`."""
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Forgets events from before that time, the oldest first, at most `limit`; how many."""
        ...
