"""From bytes to a message, and what exactly is wrong with bytes that are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from memoro_core.errors import MemoroError, invalid_field

M = TypeVar("M", bound=Message)

_LENGTH_DELIMITED: Final = 2
_MAX_DEPTH: Final = 32
_NOT_UTF8: Final = "must be valid UTF-8"


def parse(request_class: type[M], data: bytes) -> M:
    """The request that `data` spells. Raises INVALID_FIELD for garbage, text that is not UTF-8, and unknown fields."""
    try:
        request = request_class.FromString(data)
    except DecodeError:
        raise _why_garbage(request_class.DESCRIPTOR, data) from None
    size = request.ByteSize()
    request.DiscardUnknownFields()
    if request.ByteSize() != size:
        path = next(_unknown_fields(request_class.FromString(data), ""), "request")
        raise invalid_field(path, "is not a field of this request")
    return request


def _why_garbage(descriptor: Any, data: bytes) -> MemoroError:
    path = _first_bad_text(descriptor, data, "", _MAX_DEPTH)
    if path is not None:
        return invalid_field(path, _NOT_UTF8)
    return invalid_field("request", f"is not an encoded {descriptor.full_name}")


def _first_bad_text(descriptor: Any, data: bytes, prefix: str, depth: int) -> str | None:
    """The path of the first text field that is not UTF-8. Reads the wire format through a message without fields."""
    try:
        fields = _unknown(Empty.FromString(data))
    except DecodeError:
        return None
    seen: dict[int, int] = {}
    for field in fields:
        known = descriptor.fields_by_number.get(field.field_number)
        if known is None or field.wire_type != _LENGTH_DELIMITED:
            continue
        index = seen.get(known.number, 0)
        seen[known.number] = index + 1
        path = f"{prefix}{known.name}" + (f"[{index}]" if known.is_repeated else "")
        if known.type == FieldDescriptor.TYPE_STRING and not _is_utf8(field.data):
            return path
        if known.message_type is not None and depth:
            inner = _first_bad_text(known.message_type, field.data, f"{path}.", depth - 1)
            if inner is not None:
                return inner
    return None


def _unknown(message: Message) -> Sequence[Any]:
    fields = UnknownFieldSet(message)
    return [fields[index] for index in range(len(fields))]


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unknown_fields(message: Message, prefix: str) -> Iterator[str]:
    """The paths of unknown fields, `#17` for the field with that number."""
    for field in _unknown(message):
        yield f"{prefix}#{field.field_number}"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        path = f"{prefix}{descriptor.name}"
        if descriptor.message_type.GetOptions().map_entry:
            if descriptor.message_type.fields_by_name["value"].message_type is not None:
                for key in value:
                    yield from _unknown_fields(value[key], f'{path}["{key}"].')
        elif descriptor.is_repeated:
            for index, item in enumerate(value):
                yield from _unknown_fields(item, f"{path}[{index}].")
        else:
            yield from _unknown_fields(value, f"{path}.")
