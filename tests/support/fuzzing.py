"""Requests for any method, made from its descriptor: some keep the rules, some break them, some are no requests."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from buf.validate import validate_pb2

Draw = Callable[[st.SearchStrategy[Any]], Any]
Ids = Mapping[str, Sequence[str]]
"""Things that are there, by the name of the field that may name them."""

HOSTILE: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "'; DROP TABLE memories; --",
    "' OR '1'='1",
    "$1",
    "%",
    "_%\\",
    "\\",
    '$.** ? (@ like_regex ".*")',
    '{"a": {"$ne": null}}',
    "a&b|c:*<->!()",
    "(((((((((",
    "[a-z]{1,99999}",
    "\u202eevil\u202c",
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦" * 20,
    "e" + "\u0301" * 300,
    "\ufeff\u200b\u2028",
    "\x1b[31m\r\n\t",
    "NaN",
    "infinity",
    "-1",
    "99999999999999999999",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "{01890a5d-ac96-774b-bcce-b302099a8057}",
    "*",
    "../../../etc/passwd",
    "${jndi:ldap://x}",
    "0001-01-01",
    "9999-12-31",
    "2026-02-30",
    "http://127.0.0.1:1/",
    "https://[::1]:99999/",
    "AAAA",
    "=" * 64,
    "x" * 129,
    "x" * 70_000,
)
"""Texts that mean something to somebody on the way: SQL, JSON paths, patterns, terminals, people."""

MOST_LEVELS: Final = 6
_WILD_RATES: Final = (0, 0, 5, 30, 100)
"""Of a hundred values, how many break rules: most requests are to come far."""
_SPANS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_RULE_NAMES: Final = {
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
}
_DOUBLES: Final = st.sampled_from((0.0, 1.0, 0.5, -1.0, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan))
WORDS: Final = (
    "",
    "a",
    "john",
    "Where does Ann work?",
    "pro",
    "free",
    "openai",
    "WORKS_AT",
    "2026-01-31",
    "AdminService/CreateApiKey",
    "https://a.example/b",
)
_WORDS: Final = st.sampled_from(WORDS)


@st.composite
def requests(draw: Draw, descriptor: Descriptor, ids: Ids) -> Message:
    """A request of this type."""
    request = GetMessageClass(descriptor)()
    _complete(draw, request, ids, draw(st.sampled_from(_WILD_RATES)), MOST_LEVELS)
    return request


@st.composite
def mutilated(draw: Draw, data: bytes) -> bytes:
    """The bytes of a request, with something done to them on the way."""
    at: int = draw(st.integers(0, len(data)))
    noise: bytes = draw(st.binary(min_size=1, max_size=64))
    groups: int = draw(st.sampled_from((1, 99, 10_000)))
    match draw(st.integers(0, 8)):
        case 0:
            return data[:at]
        case 1:
            return data + data
        case 2:
            return data + b"\xfa\xff\xff\xff\x0f\x03abc"  # the last field there may be
        case 3:
            return data[:at] + noise[:8] + data[at:]
        case 4:
            return bytes(reversed(data))
        case 5:
            return _with_bad_utf8(data)
        case 6:
            return data + b"\x0b" * groups  # groups that do not end
        case 7:
            return b"\x0a\xff\xff\xff\xff\x0f" + data  # four gigabytes to come
        case _:
            return noise


def _with_bad_utf8(data: bytes) -> bytes:
    letters = [index for index, byte in enumerate(data) if chr(byte).isalpha()]
    if not letters:
        return data + b"\x0a\x01\xff"
    return data[: letters[-1]] + b"\xff" + data[letters[-1] + 1 :]


def fields_of(descriptor: Descriptor, levels: int = 12) -> Sequence[tuple[str, Any]]:
    """Every field that a request may have, by its path; those of `google.protobuf` as what they are."""
    found: list[tuple[str, Any]] = []
    for field in descriptor.fields:
        found.append((field.name, field))
        inner = field.message_type
        if inner is not None and levels and not inner.full_name.startswith("google.protobuf."):
            found += [(f"{field.name}.{path}", it) for path, it in fields_of(inner, levels - 1)]
    return found


def rules_of(field: Any) -> validate_pb2.FieldRules:
    """What the contract says of a field's values."""
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return rules


def _complete(draw: Draw, message: Message, ids: Ids, wild: int, levels: int) -> None:
    well_known = _WELL_KNOWN.get(message.DESCRIPTOR.full_name)
    if well_known is not None:
        message.SetInParent()
        well_known(draw, message, draw(st.integers(0, 99)) < wild)
        return
    for field in message.DESCRIPTOR.fields:
        if levels <= 0 and field.message_type is not None:
            continue
        # What the rules ask for is there, unless they are to be broken; of the rest each thing now and then.
        if draw(st.integers(0, 3)) == 0 or (_is_needed(field) and draw(st.integers(0, 99)) >= wild):
            _fill(draw, message, field, ids, wild, levels)


def _is_needed(field: Any) -> bool:
    rules = rules_of(field)
    return rules.required or not (field.has_presence or field.is_repeated)


def _fill(draw: Draw, message: Any, field: Any, ids: Ids, wild: int, levels: int) -> None:
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    if not field.is_repeated:
        if field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _complete(draw, inner, ids, wild, levels - 1)
        else:
            setattr(message, field.name, _scalar(draw, field, rules_of(field), ids, wild))
        return
    items = rules_of(field).repeated.items
    for _ in range(draw(st.sampled_from((0, 1, 1, 2, 3) if draw(st.integers(0, 99)) >= wild else (101, 1100)))):
        if field.message_type is not None:
            _complete(draw, getattr(message, field.name).add(), ids, wild, levels - 2)
        else:
            getattr(message, field.name).append(_scalar(draw, field, items, ids, wild))


def _scalar(draw: Draw, field: Any, rules: validate_pb2.FieldRules, ids: Ids, wild: int) -> Any:
    is_wild = draw(st.integers(0, 99)) < wild
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return draw(st.binary(max_size=100_000 if is_wild else 16))
        case FieldDescriptor.CPPTYPE_STRING:
            return draw(st.sampled_from(HOSTILE) | st.text(max_size=40)) if is_wild else _text(draw, field, rules, ids)
        case FieldDescriptor.CPPTYPE_BOOL:
            return draw(st.booleans())
        case FieldDescriptor.CPPTYPE_ENUM:
            if is_wild:
                return draw(st.sampled_from((-1, 99, 2**31 - 1, -(2**31))))
            numbers = [value.number for value in field.enum_type.values]
            return draw(st.sampled_from(numbers[1:] * 3 + numbers[:1]))
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return draw(_DOUBLES if is_wild else st.floats(0, 1, width=32))
        case kind:
            lowest, highest = _SPANS[kind]
            if is_wild:
                return draw(st.sampled_from((lowest, highest, 0, -1 if lowest else 1)))
            asked = getattr(rules, _RULE_NAMES[kind])
            least = asked.gte if asked.HasField("gte") else asked.gt + 1 if asked.HasField("gt") else 0
            most = asked.lte if asked.HasField("lte") else asked.lt - 1 if asked.HasField("lt") else least + 1000
            # The bounds themselves are where it breaks.
            return draw(st.sampled_from((least, most)) | st.integers(least, min(most, least + 20)))


def _text(draw: Draw, field: Any, rules: validate_pb2.FieldRules, ids: Ids) -> str:
    asked = rules.string
    if known := ids.get(field.name) or ids.get(field.name.removesuffix("s")):
        return str(draw(st.sampled_from(known)))
    if getattr(asked, "in"):
        return str(draw(st.sampled_from(list(getattr(asked, "in")))))
    if asked.uuid:
        return str(draw(st.uuids()))
    return str(draw(st.sampled_from(_fitting(asked.pattern, asked.min_len, asked.max_len or asked.max_bytes or 40))))


@cache
def _fitting(pattern: str, least: int, most: int) -> Sequence[str]:
    """Words that keep the rules; what a pattern says of kinds of characters in Unicode, they do."""
    plain = re.sub(r"\\p\{\w+\}", "", pattern)
    words = [word for word in WORDS if least <= len(word) <= most and re.search(plain or ".*", word)]
    return words or WORDS


def _timestamp(draw: Draw, message: Any, wild: bool) -> None:
    edges = (-62_135_596_800, 253_402_300_799, 253_402_300_800, -(2**63), 2**63 - 1)
    message.seconds = draw(st.sampled_from(edges) if wild else st.integers(946_684_800, 4_102_444_800))
    message.nanos = draw(st.sampled_from((-1, 999_999_999, 2**31 - 1)) if wild else st.sampled_from((0, 123_456_789)))


def _duration(draw: Draw, message: Any, wild: bool) -> None:
    edges = (-1, 315_576_000_000, 315_576_000_001, 2**63 - 1, -(2**63))
    message.seconds = draw(st.sampled_from(edges) if wild else st.integers(0, 100_000))
    message.nanos = draw(st.sampled_from((-1, 999_999_999, -(2**31))) if wild else st.just(0))


def _mask(draw: Draw, message: Any, wild: bool) -> None:
    if wild:
        paths = (*HOSTILE, "text", "metadata", "display_name", "tier", "limits", "state")
        message.paths.extend(draw(st.lists(st.sampled_from(paths), max_size=4)))


def _struct(draw: Draw, message: Any, wild: bool) -> None:
    if not wild:
        message.update({"k": draw(_WORDS), "n": draw(st.integers(-9, 9)), "l": [1, {"m": None}]})
        return
    match draw(st.integers(0, 4)):
        case 0:
            inner = message
            for _ in range(draw(st.sampled_from((9, 24, 60)))):
                inner = inner.fields["in"].struct_value
        case 1:
            message.update({str(number): number for number in range(draw(st.sampled_from((300, 5000))))})
        case 2:
            message.fields["n"].number_value = draw(_DOUBLES)
        case 3:
            message.fields[draw(st.sampled_from(HOSTILE))].string_value = draw(st.sampled_from(HOSTILE))
        case _:
            message.fields["no kind"].SetInParent()
            message.fields["list"].list_value.values.add()


_WELL_KNOWN: Final[Mapping[str, Callable[[Draw, Any, bool], None]]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.FieldMask": _mask,
    "google.protobuf.Struct": _struct,
}
