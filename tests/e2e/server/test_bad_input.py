"""What `CreateMemory` answers to bad input: the error of the contract, and nothing stored."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from memoro.v1 import memory_service_pb2 as pb
from tests.support.deployment import Deployment

CREATE = "MemoryService/CreateMemory"
GOOD = pb.CreateMemoryRequest(user_id="ann", text="I live in Oslo.")
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def request(**fields: Any) -> bytes:
    return pb.CreateMemoryRequest(**{"user_id": "ann", "text": "I live in Oslo.", **fields}).SerializeToString()


def metadata(value: Any) -> bytes:
    bad = pb.CreateMemoryRequest(user_id="ann", text="hi")
    bad.metadata.update({"k": value})
    return bad.SerializeToString()


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"inner": value}
    return value


@pytest.mark.parametrize(
    ("data", "field"),
    [
        pytest.param(b"", "user_id", id="nothing at all"),
        pytest.param(request(text=""), "text", id="empty text"),
        pytest.param(request(text=" \n\t"), "text", id="blank text"),
        pytest.param(request(text="x" * 65_537), "text", id="text of a byte too many"),
        pytest.param(request(text="é" * 32_769), "text", id="text too large in bytes"),
        pytest.param(request(text="a\0b"), "text", id="NUL in the text"),
        pytest.param(request(user_id="a\0b"), "user_id", id="NUL in the user"),
        pytest.param(request(user_id=""), "user_id", id="no user"),
        pytest.param(request(user_id="u" * 129), "user_id", id="user too long"),
        pytest.param(request(request_id="r" * 129), "request_id", id="request id too long"),
        pytest.param(request(priority=99), "priority", id="undefined priority"),
        pytest.param(request(occurred_at={"seconds": 253_402_300_800}), "occurred_at", id="year 10,000"),
        # PostgreSQL's minus infinity, for its driver.
        pytest.param(request(occurred_at={"seconds": -62_135_596_800}), "occurred_at", id="first day of year 1"),
        pytest.param(request(occurred_at={"nanos": -1}), "occurred_at", id="negative nanos"),
        pytest.param(metadata("a\0b"), "metadata", id="NUL in the metadata"),
        pytest.param(metadata("x" * 16_384), "metadata", id="metadata too large"),
        pytest.param(metadata(deep(8)), "metadata", id="metadata too deep"),
        pytest.param(metadata(float("nan")), "metadata", id="no number"),
        pytest.param(request() + b"\x1a\x02\xff\xfe", "text", id="text that is not UTF-8"),
        pytest.param(b"\x12\x01\xff" + request(), "user_id", id="user that is not UTF-8"),
        pytest.param(request() + b"\xfa\x06\x01x", "#111", id="unknown field"),
        pytest.param(b"\xff\xff\xff", "request", id="garbage"),
    ],
)
async def test_a_bad_field_is_named_and_nothing_is_stored(deployment: Deployment, data: bytes, field: str) -> None:
    caller = await deployment.caller()
    outcome = await caller.call(CREATE, data)
    assert (outcome.code, outcome.info.reason, outcome.info.domain) == (INVALID, "INVALID_FIELD", "memoro")
    assert field in [it.field for it in outcome.detail(error_details_pb2.BadRequest).field_violations]
    assert not any((await deployment.rows(caller.tenant_id)).values())


async def test_a_message_larger_than_the_server_takes_is_refused(deployment: Deployment) -> None:
    caller = await deployment.caller()
    outcome = await caller.call(CREATE, request(text="x" * (9 * 1024 * 1024)))
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not any((await deployment.rows(caller.tenant_id)).values())


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        ((), "CREDENTIALS_MISSING"),
        ((("authorization", ""),), "CREDENTIALS_MISSING"),
        ((("authorization", "Bearer "),), "CREDENTIALS_INVALID"),
        ((("authorization", "Basic abc"),), "CREDENTIALS_INVALID"),
        ((("authorization", "Bearer mk_aaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),), "CREDENTIALS_INVALID"),
        ((("authorization", "Bearer " + "x" * 4000),), "CREDENTIALS_INVALID"),
    ],
)
async def test_without_a_good_key_nothing_is_stored(deployment: Deployment, shown: Any, reason: str) -> None:
    caller = await deployment.caller()
    outcome = await caller.call(CREATE, GOOD, metadata=shown)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert not any((await deployment.rows(caller.tenant_id)).values())


async def test_a_key_with_a_letter_changed_is_no_key(deployment: Deployment) -> None:
    caller = await deployment.caller()
    assert (await caller.call(CREATE, GOOD)).code is grpc.StatusCode.OK
    last = "A" if caller.key[-1] != "A" else "B"
    outcome = await caller.call(CREATE, GOOD, metadata=(("authorization", f"Bearer {caller.key[:-1]}{last}"),))
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_after_its_deadline_a_call_stores_nothing(deployment: Deployment) -> None:
    caller = await deployment.caller()
    outcome = await caller.call(CREATE, GOOD, timeout=0)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not any((await deployment.rows(caller.tenant_id)).values())


async def test_a_request_id_with_another_payload_is_refused_and_nothing_more_stored(deployment: Deployment) -> None:
    caller = await deployment.caller()
    first = await caller.ask(CREATE, pb.CreateMemoryRequest(request_id="one", user_id="ann", text="I live in Oslo."))
    stored = await deployment.rows(caller.tenant_id)
    outcome = await caller.call(CREATE, request(request_id="one", text="I live in Rome."))
    assert (outcome.code, outcome.info.reason) == (INVALID, "REQUEST_ID_REUSED")
    assert dict(outcome.info.metadata) == {"request_id": "one"}
    assert await deployment.rows(caller.tenant_id) == stored

    again = await caller.ask(CREATE, pb.CreateMemoryRequest(request_id="one", user_id="ann", text="I live in Oslo."))
    assert (again.memory.id, again.job.id) == (first.memory.id, first.job.id)
    assert await deployment.rows(caller.tenant_id) == stored


async def test_each_item_of_a_batch_has_its_own_verdict(deployment: Deployment) -> None:
    caller = await deployment.caller()
    items = [
        pb.CreateMemoryRequest(user_id="ann", text="one"),
        pb.CreateMemoryRequest(user_id="", text="two"),
        pb.CreateMemoryRequest(user_id="ann", text="a\0b"),
        pb.CreateMemoryRequest(user_id="ann", text="four", request_id="four"),
        pb.CreateMemoryRequest(user_id="ann", text="not four", request_id="four"),
    ]
    answer = await caller.ask("MemoryService/BatchCreateMemories", pb.BatchCreateMemoriesRequest(requests=items))
    assert [it.WhichOneof("verdict") for it in answer.results][:3] == ["created", "error", "error"]
    assert sorted(it.WhichOneof("verdict") for it in answer.results[3:]) == ["created", "error"]
    assert [it.field for it in answer.results[1].error.field_violations] == ["user_id"]
    assert {it.error.reason for it in answer.results if it.HasField("error")} == {"INVALID_FIELD", "REQUEST_ID_REUSED"}
    assert (await deployment.rows(caller.tenant_id))["memories"] == 2


@pytest.mark.parametrize("count", [0, 101])
async def test_a_batch_has_its_limits(deployment: Deployment, count: int) -> None:
    caller = await deployment.caller()
    batch = pb.BatchCreateMemoriesRequest(requests=[GOOD] * count)
    outcome = await caller.call("MemoryService/BatchCreateMemories", batch)
    assert (outcome.code, outcome.info.reason) == (INVALID, "INVALID_FIELD")
    assert (await deployment.rows(caller.tenant_id))["memories"] == 0
