"""Memories, and what callers send to store, change and find them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memoro.v1 import memory_pb2, memory_service_pb2
from memoro_core.errors import MemoroError, invalid_field
from memoro_core.ids import ConversationId, UserId
from memoro_core.memory.model import (
    Accepted,
    Memory,
    MemoryFilter,
    MemoryKind,
    MemoryPatch,
    MemoryStatus,
    NewConversation,
    NewMemory,
    NewMessage,
    ProcessingMode,
    Role,
    SearchHit,
)
from memoro_server.convert.jobs import from_job, to_priority
from memoro_server.convert.mask import fields_to_change
from memoro_server.convert.metadata import to_metadata
from memoro_server.convert.scalars import enum_members, enum_numbers, from_time, from_version, to_time, to_version

KINDS: Final = enum_numbers(MemoryKind, memory_pb2.MemoryKind, "MEMORY_KIND_")
STATUSES: Final = enum_numbers(MemoryStatus, memory_pb2.MemoryStatus, "MEMORY_STATUS_")
ROLES: Final = enum_numbers(Role, memory_pb2.Role, "ROLE_")
PROCESSING_MODES: Final = enum_numbers(ProcessingMode, memory_pb2.ProcessingMode, "PROCESSING_MODE_")
_MAX_BATCH: Final = 100
_KIND_OF: Final = enum_members(KINDS)
_STATUS_OF: Final = enum_members(STATUSES)
_ROLE_OF: Final = enum_members(ROLES)
_PROCESSING_MODE_OF: Final = enum_members(PROCESSING_MODES)


def to_new_memory(request: memory_service_pb2.CreateMemoryRequest) -> NewMemory:
    """The text to remember."""
    return NewMemory(
        user_id=UserId(request.user_id),
        text=request.text,
        metadata=to_metadata(request),
        occurred_at=to_time(request, "occurred_at"),
        priority=to_priority(request.priority),
    )


def to_items(
    request: memory_service_pb2.BatchCreateMemoriesRequest,
) -> Sequence[memory_service_pb2.CreateMemoryRequest]:
    """The items of a batch, each still to be checked. Raises INVALID_FIELD when there are none or too many."""
    if not 1 <= len(request.requests) <= _MAX_BATCH:
        raise invalid_field("requests", f"must hold 1 to {_MAX_BATCH} items")
    return request.requests


def to_processing_mode(request: memory_service_pb2.CreateMemoryRequest) -> ProcessingMode:
    """Whether the call waits for the pipeline; ASYNC when it does not say."""
    return _PROCESSING_MODE_OF.get(request.processing_mode, ProcessingMode.ASYNC)


def to_new_conversation(request: memory_service_pb2.AddConversationRequest) -> NewConversation:
    """The messages to remember."""
    return NewConversation(
        user_id=UserId(request.user_id),
        conversation_id=ConversationId(request.conversation_id),
        messages=[
            NewMessage(
                text=message.text,
                role=_ROLE_OF.get(message.role),
                speaker=message.speaker or None,
                occurred_at=to_time(message, "occurred_at", f"messages[{index}].occurred_at"),
                metadata=to_metadata(message, path=f"messages[{index}].metadata"),
            )
            for index, message in enumerate(request.messages)
        ],
        priority=to_priority(request.priority),
    )


def to_memory_filter(message: memory_service_pb2.MemoryFilter) -> MemoryFilter:
    """Which memories fit; an empty filter fits all."""
    return MemoryFilter(
        # UNSPECIFIED among the values asks for every one.
        kinds=() if 0 in message.kinds else tuple(_KIND_OF[number] for number in message.kinds),
        statuses=() if 0 in message.statuses else tuple(_STATUS_OF[number] for number in message.statuses),
        conversation_id=ConversationId(message.conversation_id) if message.conversation_id else None,
        metadata=to_metadata(message, path="filter.metadata"),
        occurred_from=to_time(message, "occurred_from", "filter.occurred_from"),
        occurred_until=to_time(message, "occurred_until", "filter.occurred_until"),
    )


def to_memory_patch(request: memory_service_pb2.UpdateMemoryRequest) -> MemoryPatch:
    """What to change: the fields that the mask names, or all that are set. Raises INVALID_FIELD when that is none."""
    changed = fields_to_change(request, ("text", "metadata", "occurred_at"))
    for field in ("text", "occurred_at"):
        if field in changed and not request.HasField(field):
            raise _cannot_clear(field)
    return MemoryPatch(
        text=request.text if "text" in changed else None,
        metadata=to_metadata(request) if "metadata" in changed else None,
        occurred_at=to_time(request, "occurred_at") if "occurred_at" in changed else None,
        version=to_version(request.etag),
    )


def _cannot_clear(field: str) -> MemoroError:
    return invalid_field(field, "is named in update_mask but not set, and cannot be cleared")


def from_memory(memory: Memory) -> memory_pb2.Memory:
    """A memory as callers see it."""
    return memory_pb2.Memory(
        id=str(memory.id),
        user_id=memory.user_id,
        kind=KINDS[memory.kind],
        text=memory.text,
        metadata=memory.metadata or None,  # type: ignore[arg-type]  # the runtime takes a mapping for a Struct; its stub does not
        status=STATUSES[memory.status],
        conversation_id=memory.conversation_id or "",
        position=memory.position,
        role=memory_pb2.ROLE_UNSPECIFIED if memory.role is None else ROLES[memory.role],
        speaker=memory.speaker or "",
        occurred_at=from_time(memory.occurred_at),
        job_id=str(memory.job_id),
        etag=from_version(memory.version),
        create_time=from_time(memory.created_at),
        update_time=from_time(memory.updated_at),
    )


def from_created(accepted: Accepted) -> memory_service_pb2.CreateMemoryResponse:
    """What `CreateMemory` answers."""
    return memory_service_pb2.CreateMemoryResponse(
        memory=from_memory(accepted.memory), job=None if accepted.job is None else from_job(accepted.job)
    )


def from_search_hit(hit: SearchHit, *, explain: bool) -> memory_service_pb2.SearchHit:
    """A hit, with where its score comes from if that was asked."""
    explanation = None
    if explain:
        arms = [
            memory_service_pb2.SearchArmScore(arm=arm.arm, raw=arm.raw, rank=arm.rank, contribution=arm.contribution)
            for arm in hit.arms
        ]
        explanation = memory_service_pb2.SearchExplanation(arms=arms)
    return memory_service_pb2.SearchHit(memory=from_memory(hit.memory), score=hit.score, explanation=explanation)
