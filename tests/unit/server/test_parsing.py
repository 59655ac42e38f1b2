"""From bytes to requests."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from memoro.v1 import memory_service_pb2 as pb
from memoro_core.errors import Code, MemoroError, Reason
from memoro_server.parsing import parse

GOOD = pb.CreateMemoryRequest(user_id="u", text="hello").SerializeToString()
UNKNOWN = b"\xfa\x06\x01x"  # field 111, a string


def refused(data: bytes, kind: type[object] = pb.CreateMemoryRequest) -> tuple[str, str]:
    with pytest.raises(MemoroError) as caught:
        parse(kind, data)  # type: ignore[type-var]
    assert (caught.value.code, caught.value.reason) == (Code.INVALID_ARGUMENT, Reason.INVALID_FIELD)
    (violation,) = caught.value.violations
    return violation.field, violation.description


def test_a_request_is_what_was_sent() -> None:
    assert parse(pb.CreateMemoryRequest, GOOD).text == "hello"


def test_garbage_is_named() -> None:
    assert refused(b"\xff\xff") == ("request", "is not an encoded memoro.v1.CreateMemoryRequest")


@pytest.mark.parametrize(
    ("request_class", "data", "path"),
    [
        (pb.CreateMemoryRequest, GOOD + b"\x1a\x02\xff\xfe", "text"),
        (pb.AddConversationRequest, b"\x22\x00\x22\x04\x1a\x02\xff\xfe", "messages[1].text"),
        (pb.ListMemoriesRequest, b"\x12\x04\x1a\x02\xc3\x28", "filter.conversation_id"),
    ],
)
def test_text_that_is_not_utf8_is_found(request_class: type[object], data: bytes, path: str) -> None:
    assert refused(data, request_class) == (path, "must be valid UTF-8")


def _with_unknown_message() -> bytes:
    message = pb.Message(text="hi").SerializeToString() + UNKNOWN
    return b"\x22" + bytes([len(message)]) + message


def _with_unknown_metadata_value() -> bytes:
    value = b"\x1a\x01x" + UNKNOWN
    entry = b"\x0a\x01k\x12" + bytes([len(value)]) + value
    struct = b"\x0a" + bytes([len(entry)]) + entry
    return GOOD + b"\x22" + bytes([len(struct)]) + struct


@pytest.mark.parametrize(
    ("request_class", "data", "path"),
    [
        (pb.CreateMemoryRequest, GOOD + UNKNOWN, "#111"),
        (pb.CreateMemoryRequest, UNKNOWN + GOOD, "#111"),
        (pb.AddConversationRequest, _with_unknown_message(), "messages[0].#111"),
        (pb.ListMemoriesRequest, b"\x12\x04" + UNKNOWN, "filter.#111"),
        (pb.CreateMemoryRequest, _with_unknown_metadata_value(), 'metadata.fields["k"].#111'),
    ],
)
def test_an_unknown_field_is_refused_at_any_depth(request_class: type[object], data: bytes, path: str) -> None:
    assert refused(data, request_class) == (path, "is not a field of this request")


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_request_or_refused(data: bytes) -> None:
    try:
        request = parse(pb.AddConversationRequest, data)
    except MemoroError:
        refused(data, pb.AddConversationRequest)
    else:
        assert pb.AddConversationRequest.FromString(request.SerializeToString()) == request


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_nested_garbage_never_breaks_the_search_for_its_cause(outer: bytes, inner: bytes) -> None:
    data = outer + b"\x22" + bytes([len(inner)]) + inner
    try:
        pb.AddConversationRequest.FromString(data)
    except DecodeError:
        refused(data, pb.AddConversationRequest)
