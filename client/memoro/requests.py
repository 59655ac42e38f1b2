"""Turns what callers pass into messages of requests."""

from __future__ import annotations

import uuid

from memoro import wire
from memoro.enums import MemoryKind, MemoryStatus, Priority, Role
from memoro.types import MemoryFilter, Message, NewMemory
from memoro.v1 import memory_service_pb2


def request_id_or_new(request_id: str | None) -> str:
    """The caller's id, or one made now: once per call, so that a repeated call carries the same."""
    return str(uuid.uuid4()) if request_id is None else request_id


def new_memory(item: NewMemory) -> memory_service_pb2.CreateMemoryRequest:
    return memory_service_pb2.CreateMemoryRequest(
        request_id=request_id_or_new(item.request_id),
        user_id=item.user_id,
        text=item.text,
        metadata=wire.struct("metadata", item.metadata),
        occurred_at=wire.timestamp("occurred_at", item.occurred_at),
        priority=wire.enum_number(Priority, item.priority),
    )


def message(item: Message) -> memory_service_pb2.Message:
    return memory_service_pb2.Message(
        role=wire.enum_number(Role, item.role),
        speaker=item.speaker,
        text=item.text,
        occurred_at=wire.timestamp("occurred_at", item.occurred_at),
        metadata=wire.struct("metadata", item.metadata),
    )


def memory_filter(item: MemoryFilter | None) -> memory_service_pb2.MemoryFilter | None:
    if item is None:
        return None
    return memory_service_pb2.MemoryFilter(
        kinds=[wire.enum_number(MemoryKind, kind) for kind in item.kinds],
        statuses=[wire.enum_number(MemoryStatus, status) for status in item.statuses],
        conversation_id=item.conversation_id,
        metadata=wire.struct("filter.metadata", item.metadata),
        occurred_from=wire.timestamp("filter.occurred_from", item.occurred_from),
        occurred_until=wire.timestamp("filter.occurred_until", item.occurred_until),
    )
