"""Memories and jobs as a call first has them, before they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from memoro_core.ids import JobId, MemoryId, new_id
from memoro_core.jobs.model import PLANNED_STAGES, Job, JobKind, JobState, Priority
from memoro_core.memory.model import Memory, MemoryKind, MemoryStatus, NewConversation, NewMemory
from memoro_core.tracing import current_trace_parent


def draft_text(new: NewMemory, job_id: JobId, now: datetime) -> Memory:
    """The memory of a text."""
    return Memory(
        id=MemoryId(new_id()),
        user_id=new.user_id,
        kind=MemoryKind.TEXT,
        text=new.text,
        metadata=new.metadata,
        status=MemoryStatus.PENDING,
        conversation_id=None,
        position=0,
        role=None,
        speaker=None,
        occurred_at=new.occurred_at or now,
        job_id=job_id,
        version=1,
        created_at=now,
        updated_at=now,
    )


def draft_messages(new: NewConversation, job_id: JobId, now: datetime) -> Sequence[Memory]:
    """A memory per message; their positions are known once they are stored."""
    return [
        Memory(
            id=MemoryId(new_id()),
            user_id=new.user_id,
            kind=MemoryKind.MESSAGE,
            text=message.text,
            metadata=message.metadata,
            status=MemoryStatus.PENDING,
            conversation_id=new.conversation_id,
            position=0,
            role=message.role,
            speaker=message.speaker or None,
            occurred_at=message.occurred_at or now,
            job_id=job_id,
            version=1,
            created_at=now,
            updated_at=now,
        )
        for message in new.messages
    ]


def draft_job(
    job_id: JobId,
    memories: Sequence[Memory],
    priority: Priority,
    now: datetime,
    *,
    max_attempts: int,
    cost_bound: int,
) -> Job:
    """The job that enriches the memories."""
    return Job(
        id=job_id,
        kind=JobKind.MEMORY_ENRICH,
        state=JobState.QUEUED,
        priority=priority,
        user_id=memories[0].user_id,
        memory_ids=tuple(memory.id for memory in memories),
        stages=PLANNED_STAGES,
        attempt=0,
        max_attempts=max_attempts,
        run_at=now,
        sequence=1,
        created_at=now,
        trace_parent=current_trace_parent(),
        cost_bound=cost_bound,
    )
