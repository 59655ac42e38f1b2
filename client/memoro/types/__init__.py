"""What goes in and comes out of the client: plain frozen dataclasses. Times are aware UTC datetimes."""

from __future__ import annotations

from memoro.types.admin import (
    ApiKey,
    ClearResult,
    NewApiKey,
    ProcessingStatus,
    QueueStatus,
    RequeueResult,
    RunningJob,
    Tenant,
    TriggerResult,
    Worker,
)
from memoro.types.graph import Entity, EntityFacts, GraphNode, Relationship, Subgraph
from memoro.types.jobs import Job, JobError, JobResult, JobUpdate, JobUsage, StageProgress
from memoro.types.memories import (
    ArmScore,
    ConversationHandle,
    Memory,
    MemoryFilter,
    MemoryHandle,
    Message,
    NewMemory,
    SearchHit,
)
from memoro.types.webhooks import NewWebhookSecret, WebhookDelivery, WebhookEndpoint

__all__ = [
    "ApiKey",
    "ArmScore",
    "ClearResult",
    "ConversationHandle",
    "Entity",
    "EntityFacts",
    "GraphNode",
    "Job",
    "JobError",
    "JobResult",
    "JobUpdate",
    "JobUsage",
    "Memory",
    "MemoryFilter",
    "MemoryHandle",
    "Message",
    "NewApiKey",
    "NewMemory",
    "NewWebhookSecret",
    "ProcessingStatus",
    "QueueStatus",
    "Relationship",
    "RequeueResult",
    "RunningJob",
    "SearchHit",
    "StageProgress",
    "Subgraph",
    "Tenant",
    "TriggerResult",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
