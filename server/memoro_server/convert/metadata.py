"""The caller's own JSON, to and from `google.protobuf.Struct`."""

from __future__ import annotations

import math
from typing import Final

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from pydantic import JsonValue
from pydantic_core import to_json

from memoro_core.errors import invalid_field

MAX_BYTES: Final = 16 * 1024
"""The largest metadata, as JSON."""
MAX_DEPTH: Final = 8
"""The deepest metadata; an object of plain values is one level deep."""
_MAX_WIRE_BYTES: Final = 16 * MAX_BYTES
"""No JSON within the limit is larger than this as a Struct: two characters of a list, `0,`, take 11 bytes."""
_MAX_EXACT: Final = 2**53


def to_metadata(message: Message, field: str = "metadata", path: str | None = None) -> dict[str, JsonValue]:
    """The object in a Struct field, empty when it is not set; whole numbers become ints.

    Raises INVALID_FIELD above 16 KiB as JSON or 8 levels, for NUL, for numbers that are not finite, and for values
    without a kind.
    """
    if not message.HasField(field):
        return {}
    struct: Struct = getattr(message, field)
    path = path or field
    if struct.ByteSize() > _MAX_WIRE_BYTES:
        raise _too_large(path)
    metadata = _object(struct, path, 1)
    if len(to_json(metadata)) > MAX_BYTES:
        raise _too_large(path)
    return metadata


def _object(struct: Struct, path: str, depth: int) -> dict[str, JsonValue]:
    if depth > MAX_DEPTH:
        raise invalid_field(path, f"must be at most {MAX_DEPTH} levels deep")
    result: dict[str, JsonValue] = {}
    for key, value in struct.fields.items():
        if "\0" in key:
            raise invalid_field(path, "must not hold NUL")
        result[key] = _value(value, path, depth)
    return result


def _value(value: Value, path: str, depth: int) -> JsonValue:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        if "\0" in value.string_value:
            raise invalid_field(path, "must not hold NUL")
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value, path)
    if kind == "bool_value":
        return value.bool_value
    if kind == "null_value":
        return None
    if kind == "struct_value":
        return _object(value.struct_value, path, depth + 1)
    if kind == "list_value":
        if depth + 1 > MAX_DEPTH:
            raise invalid_field(path, f"must be at most {MAX_DEPTH} levels deep")
        return [_value(item, path, depth + 1) for item in value.list_value.values]
    raise invalid_field(path, "must not hold a value without a kind")


def _number(number: float, path: str) -> JsonValue:
    if not math.isfinite(number):
        raise invalid_field(path, "must not hold NaN or infinite numbers")
    # JSON's 3 comes as 3.0: a Struct knows doubles only.
    return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT else number


def _too_large(path: str) -> Exception:
    return invalid_field(path, f"must be at most {MAX_BYTES:,} bytes as JSON")
