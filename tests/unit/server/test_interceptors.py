"""What every call passes through, over a real connection."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from structlog.testing import capture_logs

from memoro.v1 import jobs_service_pb2 as pb
from memoro_core.errors import Code, MemoroError, Reason, invalid_field, unavailable
from memoro_core.ids import new_id, parse_id
from memoro_server.call import Call, Handler, Method
from memoro_server.interceptors import ORDER, chain
from memoro_server.policy import POLICIES
from tests.support.interception import GET_JOB, GOOD_KEY, WATCH_JOB, outcome_of

Serve = Callable[..., Any]

JOB_ID = str(new_id())
REQUEST = pb.GetJobRequest(job_id=JOB_ID).SerializeToString()


async def _ok(request: Any, call: Call) -> pb.GetJobResponse:
    return pb.GetJobResponse()


def _raising(error: BaseException) -> Any:
    async def answer(request: Any, call: Call) -> Any:
        raise error

    return answer


class Named:
    """An interceptor that notes when it is passed."""

    def __init__(self, name: str, passed: list[str]) -> None:
        self.name = name
        self._passed = passed

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        async def noting(request: Any, call: Call) -> bytes | None:
            self._passed.append(self.name)
            return await proceed(request, call)

        return noting


async def test_calls_pass_the_interceptors_in_the_declared_order() -> None:
    passed: list[str] = []

    async def innermost(request: Any, call: Call) -> bytes:
        return b"done"

    method = Method(GET_JOB, POLICIES[GET_JOB], pb.GetJobRequest)
    handler = chain(method, [Named(name, passed) for name in ORDER], innermost)
    assert await handler(b"", Call(method, None)) == b"done"  # type: ignore[arg-type]
    assert passed == list(ORDER)
    assert ORDER == (
        "request_id",
        "tracing",
        "telemetry",
        "errors",
        "drain",
        "audit",
        "authentication",
        "standing",
        "deadline",
        "parsing",
        "rate_limit",
        "validation",
    )


@pytest.mark.parametrize("names", [("errors", "telemetry"), ("errors", "errors"), ("unheard_of",)])
def test_another_order_is_refused(names: tuple[str, ...]) -> None:
    method = Method(GET_JOB, POLICIES[GET_JOB], pb.GetJobRequest)
    with pytest.raises(ValueError, match=r"out of order|not in"):
        chain(method, [Named(name, []) for name in names], _ok)  # type: ignore[arg-type]


async def test_the_callers_request_id_comes_back(serve: Serve) -> None:
    async with serve(_ok) as server:
        outcome = await server.call(GET_JOB, REQUEST, metadata=(*GOOD_KEY, ("x-request-id", "mine-1")))
        assert outcome.code is grpc.StatusCode.OK
        assert outcome.trailers["x-request-id"] == "mine-1"


@pytest.mark.parametrize("sent", ["", "x" * 129])
async def test_a_senseless_request_id_is_replaced(serve: Serve, sent: str) -> None:
    async with serve(_ok) as server:
        outcome = await server.call(GET_JOB, REQUEST, metadata=(*GOOD_KEY, ("x-request-id", sent)))
        made = outcome.trailers["x-request-id"]
        assert isinstance(made, str)
        assert parse_id(made) is not None


async def test_an_unexpected_error_does_not_leak(serve: Serve) -> None:
    secret = "postgresql://memoro:hunter2@db/secret"
    async with serve(_raising(RuntimeError(secret))) as server:
        with capture_logs() as logs:
            outcome = await server.call(GET_JOB, REQUEST, metadata=(*GOOD_KEY, ("x-request-id", "find-me")))
    assert outcome.code is grpc.StatusCode.INTERNAL
    assert outcome.message == outcome.status.message == "internal error"
    assert outcome.info.reason == "INTERNAL"
    assert dict(outcome.info.metadata) == {"request_id": "find-me"}
    assert secret not in repr(outcome)
    assert [log["event"] for log in logs] == ["unexpected error", "call"]


async def test_an_answer_that_is_no_message_does_not_leak(serve: Serve) -> None:
    async def wrong(request: Any, call: Call) -> Any:
        return {"secret": "hunter2"}

    async with serve(wrong) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert outcome.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in repr(outcome)
    assert "dict" not in repr(outcome)


async def test_a_cancellation_from_within_is_not_silence(serve: Serve) -> None:
    async def answer(request: Any, call: Call) -> Any:
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting

    async with serve(answer) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert outcome.code is grpc.StatusCode.UNAVAILABLE
    assert outcome.info.reason == "DEPENDENCY_UNAVAILABLE"
    assert outcome.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 100


async def test_an_error_of_the_domain_goes_out_whole(serve: Serve) -> None:
    error = unavailable("database", retry_after=1.5)
    async with serve(_raising(error)) as server:
        outcome = await server.call(GET_JOB, REQUEST)
        await server.counted(GET_JOB, "UNAVAILABLE")
    assert outcome.code is grpc.StatusCode.UNAVAILABLE
    assert outcome.message == "database does not answer; try again"
    assert outcome.info.reason == "DEPENDENCY_UNAVAILABLE"
    assert outcome.info.domain == "memoro"
    assert dict(outcome.info.metadata) == {"dependency": "database"}
    assert outcome.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 1500
    assert "x-request-id" in outcome.trailers


async def test_a_rate_limit_pushes_back(serve: Serve) -> None:
    error = MemoroError(Code.RESOURCE_EXHAUSTED, Reason.RATE_LIMITED, "too many calls", retry_after=0.25)
    async with serve(_raising(error)) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert outcome.trailers["grpc-retry-pushback-ms"] == "250"
    assert outcome.detail(error_details_pb2.QuotaFailure).violations[0].description == "too many calls"


async def test_a_status_of_many_violations_still_arrives(serve: Serve) -> None:
    error = invalid_field("field" * 100, "é" * 1000)
    error.violations = error.violations * 500
    async with serve(_raising(error)) as server:
        outcome = await server.call(GET_JOB, REQUEST)
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.info.metadata["violations"] == "500"
    assert len(outcome.detail(error_details_pb2.BadRequest).field_violations) == 10


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_an_unknown_method_is_unknown_in_every_shape(serve: Serve, shape: str) -> None:
    async with serve() as server:
        call = getattr(server.channel, shape)("/memoro.v1.MemoryService/Forget")
        argument: Any = iter([b""]) if shape.startswith("stream") else b""
        ongoing = call(argument, timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (ongoing if shape.endswith("unary") else ongoing.read())
        await server.counted("unknown", "UNIMPLEMENTED")
    outcome = outcome_of(caught.value)
    assert outcome.code is grpc.StatusCode.UNIMPLEMENTED
    assert outcome.info.reason == "METHOD_UNKNOWN"
    assert outcome.message == "no method /memoro.v1.MemoryService/Forget"


async def test_nothing_is_parsed_for_a_stranger(serve: Serve) -> None:
    async with serve() as server:
        outcome = await server.call(GET_JOB, b"\xff\xff", metadata=())
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_a_key_needs_the_scope_of_the_method(serve: Serve) -> None:
    async with serve(_ok) as server:
        reader = (("authorization", "Bearer reader"),)
        assert (await server.call(GET_JOB, REQUEST, metadata=reader)).code is grpc.StatusCode.OK
        outcome = await server.call("/memoro.v1.JobsService/CancelJob", REQUEST, metadata=reader)
    assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert dict(outcome.info.metadata) == {"scope": "jobs"}


async def test_a_call_without_a_deadline_gets_the_longest_of_its_method(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = {**POLICIES, GET_JOB: dataclasses.replace(POLICIES[GET_JOB], longest_deadline=0.05)}
    monkeypatch.setattr("memoro_server.router.POLICIES", policies)

    async def slow(request: Any, call: Call) -> Any:
        await asyncio.sleep(10)

    async with serve(slow) as server:
        outcome = await server.call(GET_JOB, REQUEST, timeout=5)
        assert (outcome.code, outcome.info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
        await server.counted(GET_JOB, "DEADLINE_EXCEEDED")


async def test_a_timeout_of_the_handlers_own_is_not_the_deadline(serve: Serve) -> None:
    async def answer(request: Any, call: Call) -> Any:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)

    async with serve(answer) as server:
        assert (await server.call(GET_JOB, REQUEST)).code is grpc.StatusCode.INTERNAL


async def test_calls_are_counted_timed_and_logged(serve: Serve) -> None:
    async with serve(_ok) as server:
        with capture_logs() as logs:
            await server.call(GET_JOB, REQUEST)
        assert server.value("memoro_server_calls_total", method=GET_JOB, code="OK") == 1
        assert server.value("memoro_server_call_seconds_count", method=GET_JOB) == 1
        assert server.value("memoro_server_calls_in_flight") == 0
    (line,) = logs
    assert (line["event"], line["method"], line["code"], line["log_level"]) == ("call", GET_JOB, "OK", "info")
    assert parse_id(line["tenant_id"]) is not None
    json.dumps(line)


async def test_a_stream_ends_where_it_began_when_its_caller_goes(serve: Serve) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    ended: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()

    async def stream(request: Any, call: Call) -> AsyncIterator[pb.WatchJobResponse]:
        token = variable.set("set")
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(30):
                while True:
                    yield pb.WatchJobResponse(sequence=1)
                    await asyncio.sleep(0.01)
        finally:
            variable.reset(token)  # raises in another context
            ended.set_result((asyncio.current_task() is task, "done"))

    async with serve(stream=stream) as server:
        watching = server.channel.unary_stream(WATCH_JOB)(REQUEST, metadata=GOOD_KEY, timeout=5)
        await watching.read()
        watching.cancel()
        async with asyncio.timeout(5):
            assert await ended == (True, "done")
        await server.counted(WATCH_JOB, "CANCELLED")


async def test_a_stream_that_fails_says_why(serve: Serve) -> None:
    async def stream(request: Any, call: Call) -> AsyncIterator[pb.WatchJobResponse]:
        yield pb.WatchJobResponse(sequence=1)
        raise MemoroError(Code.OUT_OF_RANGE, Reason.RESUME_TOKEN_EXPIRED, "gone")

    async with serve(stream=stream) as server:
        watching = server.channel.unary_stream(WATCH_JOB)(REQUEST, metadata=GOOD_KEY, timeout=5)
        await watching.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching.read()
    assert outcome_of(caught.value).info.reason == "RESUME_TOKEN_EXPIRED"


async def test_draining_ends_streams_lets_calls_finish_and_refuses_new_ones(serve: Serve) -> None:
    release = asyncio.Event()

    async def slow(request: Any, call: Call) -> pb.GetJobResponse:
        await release.wait()
        return pb.GetJobResponse()

    async def stream(request: Any, call: Call) -> AsyncIterator[pb.WatchJobResponse]:
        yield pb.WatchJobResponse(sequence=1)
        await asyncio.sleep(30)

    async with serve(slow, stream) as server:
        watching = server.channel.unary_stream(WATCH_JOB)(REQUEST, metadata=GOOD_KEY, timeout=10)
        await watching.read()
        under_way = asyncio.create_task(server.call(GET_JOB, REQUEST))
        while server.drain.running < 2:
            await asyncio.sleep(0.01)

        server.drain.end_streams()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching.read()
        assert outcome_of(caught.value).info.reason == "SERVER_DRAINING"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.channel.unary_stream(WATCH_JOB)(REQUEST, metadata=GOOD_KEY, timeout=5).read()
        assert outcome_of(caught.value).info.reason == "SERVER_DRAINING"

        server.drain.refuse_calls()
        refused = await server.call(GET_JOB, REQUEST)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 100

        assert not under_way.done()
        release.set()
        assert (await under_way).code is grpc.StatusCode.OK
        async with asyncio.timeout(5):
            await server.drain.wait_idle()
