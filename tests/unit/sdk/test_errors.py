"""How failures of calls reach the caller."""

from __future__ import annotations

import logging

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoro import (
    AlreadyExists,
    AsyncClient,
    Cancelled,
    Client,
    Code,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    MemoroError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from memoro.status import error_from_call
from tests.support.scripted_server import Failure, ScriptedServer

NO_RETRY = (("grpc-retry-pushback-ms", "-1"),)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, AlreadyExists),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, RateLimited),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPrecondition),
        (grpc.StatusCode.ABORTED, Conflict),
        (grpc.StatusCode.OUT_OF_RANGE, OutOfRange),
        (grpc.StatusCode.UNIMPLEMENTED, Unimplemented),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.DATA_LOSS, MemoroError),
    ],
)
async def test_each_code_has_its_class(
    server: ScriptedServer, client: AsyncClient, code: grpc.StatusCode, kind: type[MemoroError]
) -> None:
    server.script("GetMemory", Failure(code, "A_REASON", "what happened", {"k": "v"}, trailers=NO_RETRY))
    with pytest.raises(MemoroError) as caught:
        await client.memories.get("m1")
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert caught.value.reason == "A_REASON"
    assert caught.value.message == "what happened"
    assert caught.value.metadata == {"k": "v"}
    assert str(caught.value) == "what happened (A_REASON)"


async def test_bad_fields_and_times_to_wait_are_told(server: ScriptedServer, client: AsyncClient) -> None:
    server.script(
        "GetMemory",
        Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "RATE_LIMITED",
            violations={"text": "too long"},
            retry_after=1.5,
            trailers=NO_RETRY,
        ),
    )
    with pytest.raises(RateLimited) as caught:
        await client.memories.get("m1")
    assert caught.value.retry_after == 1.5
    assert [(bad.field, bad.description) for bad in caught.value.violations] == [("text", "too long")]


async def test_a_call_that_takes_too_long_ends(server: ScriptedServer, client: AsyncClient) -> None:
    server.script("GetMemory", lambda request, context: server.stopping.wait(5))
    with pytest.raises(DeadlineExceeded) as caught:
        await client.memories.get("m1", timeout=0.2)
    assert caught.value.reason == ""


async def test_no_server_is_told_after_a_few_tries() -> None:
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable) as caught:
            await client.memories.get("m1")
    assert caught.value.code is Code.UNAVAILABLE


@given(st.sampled_from(list(grpc.StatusCode)), st.text(), st.binary())
def test_details_that_cannot_be_read_are_left_out(code: grpc.StatusCode, details: str, trailer: bytes) -> None:
    error = error_from_call(code, details, (("grpc-status-details-bin", trailer), ("other", "text")))
    assert isinstance(error, MemoroError)


def test_each_number_of_a_code_is_that_of_grpc() -> None:
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            assert Code.of_number(code.value[0]) == code.name
    assert Code.of_number(0) == Code.of_number(99) == Code.UNKNOWN


async def test_the_key_is_nowhere_to_be_read(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "mk_very_s3cret"
    server.script("GetMemory", Failure(grpc.StatusCode.INTERNAL))
    with caplog.at_level(logging.DEBUG):
        async with AsyncClient(server.endpoint, api_key=key) as client:
            with pytest.raises(InternalError) as caught:
                await client.memories.get("m1")
            shown = f"{client!r} {vars(client)!r} {caught.value!r} {caught.value} {caught.value.__cause__!r}"
    with Client(server.endpoint, api_key=key) as blocking:
        shown += f"{blocking!r} {vars(blocking)!r}"
    captured = capfd.readouterr()
    assert key not in shown + caplog.text + captured.out + captured.err


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel", "tab\t"])
def test_what_cannot_be_a_key_is_refused_without_being_told(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Client("127.0.0.1:1", api_key=key)
    assert key not in str(caught.value)
