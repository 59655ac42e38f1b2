"""`grpc.health.v1`, from the state of what the server depends on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Final

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as pb

from memoro_server.call import Call
from memoro_server.serving import Serving

_SERVING: Final = pb.HealthCheckResponse.SERVING
_NOT_SERVING: Final = pb.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer:
    """Answers probes: `""` is the whole server, and each service stands and falls with it, for all need PostgreSQL."""

    def __init__(self, serving: Serving, services: Iterable[str]) -> None:
        self._serving = serving
        self._services = frozenset(services) | {""}

    async def Check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            # As its protocol says; the reasons of our contract have no name for it.
            await call.context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def List(self, request: Message, call: Call) -> Message:
        statuses = {name: pb.HealthCheckResponse(status=self._status(name)) for name in self._services}
        response: Message = pb.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # newer than the stubs
        return response

    async def Watch(self, request: pb.HealthCheckRequest, call: Call) -> AsyncGenerator[pb.HealthCheckResponse]:
        while True:
            change = self._serving.next_change()
            yield pb.HealthCheckResponse(status=self._status(request.service))
            await change.wait()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _SERVICE_UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING
