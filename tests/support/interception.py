"""A real gRPC server behind the real interceptors, whose servicer gives the answers that a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from memoro.v1 import jobs_service_pb2
from memoro_core.clock import SystemClock
from memoro_core.errors import Code, MemoroError, Reason
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.limits.model import NO_LIMITS
from memoro_core.limits.ports import Limiter
from memoro_core.limits.unlimited import Unlimited
from memoro_core.tenancy.model import FREE_TIER, Principal, Scope
from memoro_server.call import Call
from memoro_server.interceptors.authentication import AuthenticationInterceptor
from memoro_server.interceptors.deadline import DeadlineInterceptor
from memoro_server.interceptors.drain import DrainInterceptor
from memoro_server.interceptors.errors import ErrorsInterceptor
from memoro_server.interceptors.parsing import ParsingInterceptor
from memoro_server.interceptors.rate_limit import RateLimitInterceptor
from memoro_server.interceptors.request_id import RequestIdInterceptor
from memoro_server.interceptors.telemetry import TelemetryInterceptor
from memoro_server.interceptors.validation import ValidationInterceptor
from memoro_server.metrics import ServerMetrics
from memoro_server.router import Router
from memoro_server.rules import Rules

JOBS: Any = jobs_service_pb2.DESCRIPTOR.services_by_name["JobsService"]
GET_JOB = "/memoro.v1.JobsService/GetJob"
WATCH_JOB = "/memoro.v1.JobsService/WatchJob"
GOOD_KEY = (("authorization", "Bearer good"),)

Unary = Callable[[Any, Call], Awaitable[Any]]
Stream = Callable[[Any, Call], AsyncIterator[Any]]


class OneKey:
    """Knows the key `good`, with every scope but admin, and `reader`, which may only read."""

    def __init__(self, *, shadow: bool) -> None:
        self._limits = replace(NO_LIMITS, shadow=shadow)

    async def authenticate(self, authorization: str | None) -> Principal:
        scopes = {
            "Bearer good": frozenset({Scope.READ, Scope.WRITE, Scope.JOBS}),
            "Bearer reader": frozenset({Scope.READ}),
        }.get(authorization or "")
        if scopes is None:
            raise MemoroError(Code.UNAUTHENTICATED, Reason.CREDENTIALS_INVALID, "the key is not valid")
        return Principal(TenantId(new_id()), ApiKeyId(new_id()), scopes, FREE_TIER, self._limits)


class ScriptedJobs:
    """JobsService with the answers of a test."""

    def __init__(self, unary: Unary, stream: Stream) -> None:
        self._unary = unary
        self._stream = stream

    async def GetJob(self, request: Any, call: Call) -> Any:
        return await self._unary(request, call)

    async def ListJobs(self, request: Any, call: Call) -> Any:
        return await self._unary(request, call)

    async def CancelJob(self, request: Any, call: Call) -> Any:
        return await self._unary(request, call)

    async def RetryJob(self, request: Any, call: Call) -> Any:
        return await self._unary(request, call)

    async def WatchJob(self, request: Any, call: Call) -> AsyncIterator[Any]:
        async for response in self._stream(request, call):
            yield response

    async def WatchJobs(self, request: Any, call: Call) -> AsyncIterator[Any]:
        async for response in self._stream(request, call):
            yield response


@dataclass
class Scripted:
    """The server, and a channel to it."""

    channel: grpc.aio.Channel
    metrics: ServerMetrics
    drain: DrainInterceptor
    port: int

    async def call(self, path: str, request: bytes, *, metadata: Any = GOOD_KEY, timeout: float = 5.0) -> Outcome:
        """One unary call with raw bytes."""
        start: Any = self.channel.unary_unary(path)
        ongoing = start(request, metadata=metadata, timeout=timeout)
        try:
            response = await ongoing
        except grpc.aio.AioRpcError as error:
            return outcome_of(error)
        return Outcome(grpc.StatusCode.OK, "", response, dict(await ongoing.trailing_metadata()))

    async def counted(self, method: str, code: str) -> None:
        """Waits until a call is counted: a failed one is, just after its caller has heard of it."""
        async with asyncio.timeout(5):
            while self.value("memoro_server_calls_total", method=method, code=code) != 1:
                await asyncio.sleep(0.005)

    def value(self, name: str, **labels: str) -> float | None:
        """What a metric says."""
        return self.metrics.registry.get_sample_value(name, labels)


@dataclass
class Outcome:
    """How a call ended, as its caller sees it."""

    code: grpc.StatusCode
    message: str
    response: bytes = b""
    trailers: Mapping[str, str | bytes] = field(default_factory=dict)
    status: Any = None

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        return self.detail(error_details_pb2.ErrorInfo)

    def detail(self, kind: type[Any]) -> Any:
        """The one detail of a kind."""
        found = [detail for detail in self.status.details if detail.Is(kind.DESCRIPTOR)]
        assert len(found) == 1, f"{len(found)} details {kind.__name__}"
        unpacked = kind()
        found[0].Unpack(unpacked)
        return unpacked


def outcome_of(error: grpc.aio.AioRpcError) -> Outcome:
    """The outcome of a call that failed."""
    trailers = dict(error.trailing_metadata())
    status = None
    if raw := trailers.get("grpc-status-details-bin"):
        assert isinstance(raw, bytes)
        status = status_pb2.Status.FromString(raw)
    return Outcome(error.code(), error.details() or "", b"", trailers, status)


async def _nothing(request: Any, call: Call) -> Any:
    raise AssertionError("not scripted")


async def _no_stream(request: Any, call: Call) -> AsyncIterator[Any]:
    yield await _nothing(request, call)


@asynccontextmanager
async def serving(
    unary: Unary = _nothing, stream: Stream = _no_stream, *, limiter: Limiter | None = None, shadow: bool = False
) -> AsyncIterator[Scripted]:
    """A server on a free port, and a channel to it."""
    metrics, drain = ServerMetrics(), DrainInterceptor()
    interceptors = (
        RequestIdInterceptor(),
        TelemetryInterceptor(metrics),
        ErrorsInterceptor(),
        drain,
        AuthenticationInterceptor(OneKey(shadow=shadow)),
        DeadlineInterceptor(),
        ParsingInterceptor(),
        RateLimitInterceptor(limiter or Unlimited(), SystemClock(), metrics),
        ValidationInterceptor(Rules()),
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Router({JOBS: (ScriptedJobs(unary, stream),)}, interceptors),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Scripted(channel, metrics, drain, port)
    finally:
        await server.stop(None)
