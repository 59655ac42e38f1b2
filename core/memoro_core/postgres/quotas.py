"""What tenants have stored against what they may, in transactions of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from memoro_core.errors import MemoroError
from memoro_core.ids import JobId, TenantId
from memoro_core.limits.model import Quota, TenantUsage
from memoro_core.memory.model import Memory
from memoro_core.memory.ports import Draft
from memoro_core.memory.quotas import judge, size_of
from memoro_core.postgres.database import Connection
from memoro_core.postgres.queries import load_queries
from memoro_core.postgres.replays import find_all_in

_SQL: Final = load_queries("memories")


async def beyond_quota_in(
    connection: Connection, tenant_id: TenantId, drafts: Sequence[Draft], quota: Quota
) -> Mapping[JobId, MemoroError]:
    """QUOTA_EXCEEDED for those drafts, by their jobs, that are new and for which there is no room.

    What other transactions have not committed yet is not counted.
    """
    usage = await _usage_in(connection, tenant_id)
    if not any(judge(quota, usage, [size_of(draft.memories) for draft in drafts])):
        return {}
    # What is known takes no room, and is not refused.
    known = await find_all_in(connection, tenant_id, [draft.idempotency for draft in drafts if draft.idempotency])
    new = [draft for draft in drafts if draft.idempotency not in known]
    verdicts = judge(quota, usage, [size_of(draft.memories) for draft in new])
    return {draft.job.id: error for draft, error in zip(new, verdicts, strict=True) if error}


async def check_growth_in(connection: Connection, tenant_id: TenantId, old: Memory, new: Memory, quota: Quota) -> None:
    """Raises QUOTA_EXCEEDED when a memory becomes larger, and there is no room for that."""
    growth = size_of([new]).bytes - size_of([old]).bytes
    if growth > 0 and quota.max_bytes is not None:
        usage = await _usage_in(connection, tenant_id)
        (error,) = judge(Quota(None, quota.max_bytes), usage, [TenantUsage(0, growth)])
        if error:
            raise error


async def _usage_in(connection: Connection, tenant_id: TenantId) -> TenantUsage:
    row = await connection.fetchrow(_SQL["usage"], tenant_id)
    assert row is not None
    return TenantUsage(row["memories"], row["bytes"])
