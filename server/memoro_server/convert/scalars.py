"""Ids, times, etags and enums."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from memoro_core.errors import invalid_field
from memoro_core.ids import parse_id

E = TypeVar("E", bound=Enum)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = -62_135_596_800
_LAST: Final = 253_402_300_799
_BILLION: Final = 1_000_000_000
_MAX_ETAG_DIGITS: Final = 18


def to_id(text: str, field: str) -> UUID:
    """The id that `text` spells. Raises INVALID_FIELD."""
    parsed = parse_id(text)
    if parsed is None:
        raise invalid_field(field, "must be a UUID, as the service makes them")
    return parsed


def to_time(message: Message, field: str, path: str | None = None) -> datetime | None:
    """The time in a Timestamp field, to the microsecond, or None when it is not set.

    Raises INVALID_FIELD, naming `path` or else `field`, beyond the years 1 to 9999.
    """
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    if not (_FIRST <= stamp.seconds <= _LAST and 0 <= stamp.nanos < _BILLION):
        raise invalid_field(path or field, "must be a time of the years 1 to 9999, with nanos from 0 to 999,999,999")
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def to_duration(message: Message, field: str) -> timedelta | None:
    """The time in a Duration field, to the microsecond, or None when it is not set. The contract bounds it."""
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)


@lru_cache(maxsize=256)
def from_time(moment: datetime) -> Timestamp:
    """A Timestamp of an aware time, to be copied into a message and not to be changed.

    Remembered, because what was just accepted bears the same time in five places.
    """
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def from_time_or_none(moment: datetime | None) -> Timestamp | None:
    """A Timestamp, or None for a field that stays unset."""
    return None if moment is None else from_time(moment)


def to_version(etag: str) -> int | None:
    """The version that an etag stands for; None for an empty one. Raises INVALID_FIELD."""
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) <= _MAX_ETAG_DIGITS):
        raise invalid_field("etag", "must be an etag as it was returned, or empty")
    return int(etag)


def from_version(version: int) -> str:
    """The etag of a version."""
    return str(version)


class _ProtoEnum(Protocol):
    def Value(self, name: str) -> Any: ...  # noqa: N802 - protobuf's name


def enum_numbers(domain: type[E], proto: _ProtoEnum, prefix: str) -> Mapping[E, Any]:
    """The number of each member of a domain enum in its proto enum, whose values are named `prefix` and the member."""
    return {member: proto.Value(prefix + member.name) for member in domain}


def enum_members(numbers: Mapping[E, Any]) -> Mapping[int, E]:
    """The other way round. UNSPECIFIED has no member."""
    return {int(number): member for member, number in numbers.items()}
