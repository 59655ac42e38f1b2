"""The audit log: what of a request is kept, and events as operators see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import Message
from pydantic_core import to_json

from memoro.v1 import admin_pb2
from memoro_core.audit.model import AuditEvent
from memoro_server.convert.scalars import from_time

TOLD: Final = frozenset(
    {
        "api_key_id",
        "endpoint_id",
        "etag",
        "event_id",
        "model",
        "name",
        "operation",
        "provider",
        "queue",
        "reason",
        "request_id",
        "tenant_id",
        "tier",
        "user_id",
    }
)
"""The fields with a text that are kept: names and ids."""
HIDDEN: Final = "…"
"""Stands for a text that was there and is not kept."""
_WELL_KNOWN: Final = "google.protobuf."


def to_audit_json(request: Message) -> str:
    """A request as JSON: numbers, times, enums, and of the texts those that name something."""
    return to_json(_told(request)).decode()


def from_audit_event(event: AuditEvent) -> admin_pb2.AuditEvent:
    """An event as operators see it."""
    return admin_pb2.AuditEvent(
        id=str(event.id),
        event_time=from_time(event.at),
        method=event.method,
        code=event.code,
        reason=event.reason,
        actor_tenant_id=str(event.actor_tenant_id),
        actor_api_key_id=str(event.actor_api_key_id) if event.actor_api_key_id else "",
        actor_subject=event.actor_subject,
        tenant_id=str(event.tenant_id) if event.tenant_id else "",
        request=event.request,
        request_id=event.request_id,
    )


def _told(message: Message) -> Mapping[str, Any]:
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        return [_one(field, item) for item in value]
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return value if field.name in TOLD else HIDDEN
    if field.type == FieldDescriptor.TYPE_BYTES:
        return HIDDEN
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if field.message_type is None:
        return value
    if field.message_type.full_name.startswith(_WELL_KNOWN):
        return _well_known(value)
    return _told(value)


def _well_known(value: Message) -> Any:
    try:
        return MessageToDict(value)
    except (Error, ValueError):
        # A time that JSON can't tell, in a request that was refused.
        return HIDDEN
