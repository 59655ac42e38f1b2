"""Every field of every request has an end: what may be long is bounded by a rule, or by what reads it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from memoro.v1 import memory_service_pb2 as pb
from memoro_core.errors import MemoroError
from memoro_core.settings import Settings
from memoro_server.convert.memory import to_items
from tests.support.deployment import METHODS
from tests.support.fuzzing import fields_of, rules_of

LONGEST_TEXT, MOST_ITEMS = 256 * 1024, 10_000
BY_THEIR_READER = {
    # Held to 16 KiB and 8 levels where it is read: see test_convert.
    "google.protobuf.Struct",
    # Each path must be that of a field that may be changed, and none may stand twice.
    "google.protobuf.FieldMask",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
}
COUNTED_BY_THEIR_READER = "memoro.v1.BatchCreateMemoriesRequest.requests"
"""The rules pass over it, so that a bad item does not stop the others: see the test below."""
FIELDS: dict[str, Any] = {
    f"{method.input_type.full_name}.{path}": field
    for method in METHODS.values()
    for path, field in fields_of(method.input_type)
}


def longest(field: Any) -> int | None:
    """How many characters or bytes the rules allow."""
    rules = rules_of(field).repeated.items if field.is_repeated else rules_of(field)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rules.bytes.max_len or rules.bytes.len or None
    text = rules.string
    if text.uuid or getattr(text, "in"):
        return 64
    return text.max_len or text.max_bytes or text.len or text.len_bytes or _of_pattern(text.pattern)


def _of_pattern(pattern: str) -> int | None:
    """A pattern bounds what it describes when it is anchored and repeats nothing without end."""
    bounded = pattern.startswith("^") and pattern.endswith("$") and not any(it in pattern for it in ("*", "+", ",}"))
    return 1024 if bounded else None


@pytest.mark.parametrize("path", [path for path, it in FIELDS.items() if it.cpp_type == it.CPPTYPE_STRING])
def test_every_text_has_a_longest(path: str) -> None:
    bound = longest(FIELDS[path])
    assert bound is not None
    assert bound <= LONGEST_TEXT


@pytest.mark.parametrize(
    "path", [path for path, it in FIELDS.items() if it.is_repeated and it.full_name != COUNTED_BY_THEIR_READER]
)
def test_every_list_has_a_most(path: str) -> None:
    field = FIELDS[path]
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    bound = rules_of(field).map.max_pairs if is_map else rules_of(field).repeated.max_items
    assert 0 < bound <= MOST_ITEMS


@pytest.mark.parametrize("path", [path for path, it in FIELDS.items() if it.message_type is not None])
def test_no_request_holds_itself(path: str) -> None:
    """Nothing nests without end but what its reader bounds."""
    name = FIELDS[path].message_type.full_name
    if name.startswith("google.protobuf."):
        assert name in BY_THEIR_READER
    else:
        within = {it.message_type.full_name for _, it in fields_of(FIELDS[path].message_type) if it.message_type}
        assert name not in within


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_is_counted_where_it_is_read(count: int) -> None:
    batch = pb.BatchCreateMemoriesRequest(requests=[pb.CreateMemoryRequest(user_id="ann", text="hi")] * count)
    with pytest.raises(MemoroError, match="1 to 100"):
        to_items(batch)


def test_a_whole_message_has_a_largest() -> None:
    assert Settings().max_message_bytes <= 64 * 1024 * 1024
