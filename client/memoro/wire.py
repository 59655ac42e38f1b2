"""Enumerations, times and JSON as they go over the wire, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from memoro import enums
from memoro.v1 import (
    admin_pb2,
    billing_pb2,
    billing_service_pb2,
    jobs_pb2,
    memory_pb2,
    memory_service_pb2,
    webhooks_pb2,
)

E = TypeVar("E", bound=StrEnum)


def _numbers(kind: type[StrEnum], descriptor: EnumDescriptor) -> dict[str, int]:
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = {value.name.removeprefix(prefix): value.number for value in descriptor.values}
    return {member: names[member] for member in kind if member != "UNKNOWN"}


_NUMBERS: dict[type[StrEnum], dict[str, int]] = {
    kind: _numbers(kind, descriptor)
    for kind, descriptor in (
        (enums.AiOperation, billing_pb2.AiOperation.DESCRIPTOR),
        (enums.AlertSeverity, admin_pb2.AlertSeverity.DESCRIPTOR),
        (enums.BreakerState, billing_pb2.BreakerState.DESCRIPTOR),
        (enums.BudgetScope, billing_pb2.BudgetScope.DESCRIPTOR),
        (enums.DeliveryState, webhooks_pb2.DeliveryState.DESCRIPTOR),
        (enums.DiagnosisStatus, admin_pb2.DiagnosisStatus.DESCRIPTOR),
        (enums.Direction, memory_service_pb2.Direction.DESCRIPTOR),
        (enums.JobKind, jobs_pb2.JobKind.DESCRIPTOR),
        (enums.JobState, jobs_pb2.JobState.DESCRIPTOR),
        (enums.LedgerAccount, billing_pb2.LedgerAccount.DESCRIPTOR),
        (enums.LedgerEntryKind, billing_pb2.LedgerEntryKind.DESCRIPTOR),
        (enums.MemoryKind, memory_pb2.MemoryKind.DESCRIPTOR),
        (enums.MemoryStatus, memory_pb2.MemoryStatus.DESCRIPTOR),
        (enums.Priority, memory_pb2.Priority.DESCRIPTOR),
        (enums.ProcessingMode, memory_pb2.ProcessingMode.DESCRIPTOR),
        (enums.Role, memory_pb2.Role.DESCRIPTOR),
        (enums.Scope, admin_pb2.Scope.DESCRIPTOR),
        (enums.Stage, jobs_pb2.Stage.DESCRIPTOR),
        (enums.StageStatus, jobs_pb2.StageStatus.DESCRIPTOR),
        (enums.TenantState, admin_pb2.TenantState.DESCRIPTOR),
        (enums.UsageDimension, billing_service_pb2.UsageDimension.DESCRIPTOR),
        (enums.WebhookEndpointState, webhooks_pb2.WebhookEndpointState.DESCRIPTOR),
        (enums.WebhookEventType, webhooks_pb2.WebhookEventType.DESCRIPTOR),
    )
}
_NAMES = {kind: {number: name for name, number in numbers.items()} for kind, numbers in _NUMBERS.items()}


def enum_of(kind: type[E], number: int) -> E:
    """The member for a number on the wire; UNKNOWN for one that this version does not know."""
    return kind(_NAMES[kind].get(number, "UNKNOWN"))


def optional_enum_of(kind: type[E], number: int) -> E | None:
    """The same; None for what is not told."""
    return enum_of(kind, number) if number else None


def enum_number(kind: type[StrEnum], value: StrEnum | None) -> Any:
    """The number on the wire; 0, with which the service chooses, for None. Raises ValueError for UNKNOWN."""
    if value is None:
        return 0
    try:
        return _NUMBERS[kind][value]
    except KeyError:
        raise ValueError(f"{kind.__name__}: {value} can't be sent") from None


def time_of(message: Message, field: str) -> datetime | None:
    """A timestamp field as an aware datetime; None when it is not set."""
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)


def timestamp(name: str, value: datetime | None) -> Timestamp | None:
    """An aware datetime on the wire. Raises ValueError for a naive one, whose zone can only be guessed."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"{name}: an aware datetime is needed, e.g. datetime.now(timezone.utc)")
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp


def duration(value: timedelta | None) -> Duration | None:
    """A time span on the wire."""
    if value is None:
        return None
    span = Duration()
    span.FromTimedelta(value)
    return span


def struct(name: str, value: Mapping[str, Any] | None) -> Struct | None:
    """A mapping as JSON on the wire, where all numbers are doubles. Raises ValueError for what is not JSON."""
    if value is None:
        return None
    message = Struct()
    try:
        message.update(dict(value))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: only JSON values can be stored: {error}") from error
    return message


def mapping_of(message: Struct) -> dict[str, Any]:
    """A mapping from JSON on the wire, whole numbers as int."""
    return {key: _plain(value) for key, value in message.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return mapping_of(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None
