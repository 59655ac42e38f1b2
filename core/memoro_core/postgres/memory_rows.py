"""Rows of `memories`, as the domain has them."""

from __future__ import annotations

from asyncpg import Record

from memoro_core.memory.model import Memory, MemoryKind, MemoryStatus, Role


def memory_of(row: Record) -> Memory:
    """A memory from a row with the columns of `get_memories`."""
    role = row["role"]
    return Memory(
        id=row["memory_id"],
        user_id=row["user_id"],
        kind=MemoryKind(row["kind"]),
        text=row["text"],
        metadata=row["metadata"],
        status=MemoryStatus(row["status"]),
        conversation_id=row["conversation_id"],
        position=row["position"],
        role=None if role is None else Role(role),
        speaker=row["speaker"],
        occurred_at=row["occurred_at"],
        job_id=row["job_id"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
