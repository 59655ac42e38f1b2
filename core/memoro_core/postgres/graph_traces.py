"""Traces."""

from __future__ import annotations

from collections.abc import Sequence

from memoro_core.ids import MemoryId, TenantId
from memoro_core.postgres.database import Connection


async def remove_traces_in(connection: Connection, tenant_id: TenantId, memory_ids: Sequence[MemoryId]) -> None:
    pass
