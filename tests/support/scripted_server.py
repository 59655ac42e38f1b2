"""A real gRPC server that gives the answers a test puts in its mouth, and remembers what it was asked.

It runs on threads, so that one process can hold it beside a client of either kind.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from memoro.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    billing_service_pb2,
    billing_service_pb2_grpc,
    jobs_service_pb2,
    jobs_service_pb2_grpc,
    memory_service_pb2,
    memory_service_pb2_grpc,
    webhooks_service_pb2,
    webhooks_service_pb2_grpc,
)

_SERVICES: tuple[tuple[Any, str, Any], ...] = (
    (memory_service_pb2, "MemoryService", memory_service_pb2_grpc),
    (jobs_service_pb2, "JobsService", jobs_service_pb2_grpc),
    (admin_service_pb2, "AdminService", admin_service_pb2_grpc),
    (billing_service_pb2, "BillingService", billing_service_pb2_grpc),
    (webhooks_service_pb2, "WebhooksService", webhooks_service_pb2_grpc),
)


@dataclass(frozen=True)
class Failure(Exception):
    """Ends the call with a status of the contract."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "it failed"
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    trailers: tuple[tuple[str, str], ...] = ()

    def abort(self, context: grpc.ServicerContext) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="memoro", metadata=self.metadata)
            status.details.add().Pack(info)
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for name, description in self.violations.items():
                bad.field_violations.add(field=name, description=description)
            status.details.add().Pack(bad)
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(round(self.retry_after * 1000))
            status.details.add().Pack(retry)
        details = (("grpc-status-details-bin", status.SerializeToString()),) if self.reason else ()
        context.set_trailing_metadata((*details, *self.trailers))
        context.abort(self.code, self.message)


Answer = Message | Failure | Callable[[Any, grpc.ServicerContext], Any]
"""A message, a failure, or what makes one from the request. A stream is several of these."""


@dataclass(frozen=True)
class Call:
    """One call as it reached the server."""

    method: str
    request: Any
    metadata: dict[str, str | bytes]
    seconds: float | None
    """Of the deadline that was left."""


class ScriptedServer:
    """Answers each method with the next step of its script, the last one over and over."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.calls: list[Call] = []
        self.port = 0
        self.health = health.HealthServicer()
        self._scripts: dict[str, list[Any]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self.stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def script(self, method: str, *steps: Answer | Iterable[Answer]) -> None:
        """The answers to a method's next calls; several for one call of a streaming method."""
        self._scripts[method] = list(steps)

    def requests(self, method: str) -> list[Any]:
        return [call.request for call in self.calls if call.method == method]

    def start(self) -> None:
        """Listens: on a free port the first time, then on the same again."""
        self.stopping.clear()
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        for module, name, generated in _SERVICES:
            servicer = self._servicer(module.DESCRIPTOR.services_by_name[name])
            getattr(generated, f"add_{name}Servicer_to_server")(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        self.health.set("", health_pb2.HealthCheckResponse.SERVING)
        address = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = server.add_insecure_port(address)
        else:
            self.port = server.add_secure_port(address, self._credentials)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Breaks every call under way, as the death of the process would."""
        self.stopping.set()
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def _servicer(self, service: Any) -> Any:
        def handler(method: Any) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
            def unary(_: Any, request: Any, context: grpc.ServicerContext) -> Any:
                return _played(self._step(method.name, request, context), request, context)

            def stream(_: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                for step in self._step(method.name, request, context):
                    message = _played(step, request, context)
                    if message is not None:
                        yield message

            return stream if method.server_streaming else unary

        return type(service.name, (), {method.name: handler(method) for method in service.methods})()

    def _step(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        with self._lock:
            self.calls.append(Call(method, request, metadata, context.time_remaining()))
            script = self._scripts[method]
            if not script:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the test has no answer to {method}")
            return script.pop(0) if len(script) > 1 else script[0]


def _played(step: Any, request: Any, context: grpc.ServicerContext) -> Any:
    if callable(step):
        step = step(request, context)
    if isinstance(step, Failure):
        step.abort(context)
    return step


@contextmanager
def scripted_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[ScriptedServer]:
    """A server that listens, with TLS when it has credentials, stopped at the end."""
    server = ScriptedServer(credentials)
    server.start()
    try:
        yield server
    finally:
        server.stop()
