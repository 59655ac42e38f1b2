"""Identifiers. All but the caller's own user and conversation ids are UUIDv7: unique, and sorted by time."""

from __future__ import annotations

from typing import NewType
from uuid import UUID

from uuid_utils.compat import uuid7

TenantId = NewType("TenantId", UUID)
ApiKeyId = NewType("ApiKeyId", UUID)
MemoryId = NewType("MemoryId", UUID)
EntityId = NewType("EntityId", UUID)
RelationshipId = NewType("RelationshipId", UUID)
JobId = NewType("JobId", UUID)
WebhookEndpointId = NewType("WebhookEndpointId", UUID)
EventId = NewType("EventId", UUID)
GrantId = NewType("GrantId", UUID)
AlertId = NewType("AlertId", UUID)
AuditEventId = NewType("AuditEventId", UUID)
UserId = NewType("UserId", str)
"""The caller's own name for one of its users; opaque, unique within a tenant."""
ConversationId = NewType("ConversationId", str)
"""The caller's own name for a conversation; unique within a tenant and user."""


def new_id() -> UUID:
    """A fresh UUIDv7."""
    return uuid7()


def parse_id(text: str) -> UUID | None:
    """The UUID that `text` spells in its canonical form, or None."""
    try:
        parsed = UUID(text)
    except ValueError:
        return None
    return parsed if str(parsed) == text.lower() else None
