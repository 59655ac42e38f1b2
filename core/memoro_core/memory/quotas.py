"""How much a tenant may store. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from memoro_core.errors import MemoroError
from memoro_core.limits.errors import quota_exceeded
from memoro_core.limits.model import Quota, TenantUsage
from memoro_core.memory.model import Memory


def size_of(memories: Sequence[Memory]) -> TenantUsage:
    """What memories take: as PostgreSQL counts it, but for numbers that it writes in another way."""
    return TenantUsage(len(memories), sum(_bytes(memory) for memory in memories))


def judge(quota: Quota, usage: TenantUsage, sizes: Sequence[TenantUsage]) -> Sequence[MemoroError | None]:
    """For each of what is to be added, in order: None where it fits, else QUOTA_EXCEEDED; then a smaller one may."""
    verdicts: list[MemoroError | None] = []
    memories, stored = usage.memories, usage.bytes
    for size in sizes:
        error = _beyond(quota, memories + size.memories, stored + size.bytes)
        if error is None:
            memories, stored = memories + size.memories, stored + size.bytes
        verdicts.append(error)
    return verdicts


def _beyond(quota: Quota, memories: int, stored: int) -> MemoroError | None:
    if quota.max_memories is not None and memories > quota.max_memories:
        return quota_exceeded("max_memories", quota.max_memories)
    if quota.max_bytes is not None and stored > quota.max_bytes:
        return quota_exceeded("max_bytes", quota.max_bytes)
    return None


def _bytes(memory: Memory) -> int:
    return len(memory.text.encode()) + len(json.dumps(memory.metadata, ensure_ascii=False).encode())
