"""`grpc.health.v1`, from the state of what the server depends on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2 as pb

from memoro_server.call import Call

_SERVING: Final = pb.HealthCheckResponse.SERVING
_NOT_SERVING: Final = pb.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Serving:
    """Whether the server takes calls, and waits for that to change. It begins as not serving; once closed, it stays so."""

    def __init__(self) -> None:
        self._value = False
        self._closed = False
        self._changed = asyncio.Event()

    def __bool__(self) -> bool:
        return self._value

    @property
    def closed(self) -> bool:
        """Whether the server is on its way out."""
        return self._closed

    def set(self, value: bool) -> None:
        """Tells everyone who waits, if this is a change."""
        if not self._closed:
            self._set(value)

    def close(self) -> None:
        """Not serving, for good."""
        self._closed = True
        self._set(False)

    def next_change(self) -> asyncio.Event:
        """Is set with the next change. Take it before reading the value, and no change is missed."""
        return self._changed

    def _set(self, value: bool) -> None:
        if value != self._value:
            self._value = value
            self._changed.set()
            self._changed = asyncio.Event()


class HealthServicer:
    """Answers probes: `""` is the whole server, and every service stands and falls with it, since all need PostgreSQL."""

    def __init__(self, serving: Serving, services: Iterable[str]) -> None:
        self._serving = serving
        self._services = frozenset(services) | {""}

    async def Check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            # As its protocol says; the reasons of our contract have no name for it.
            await call.context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def List(self, request: pb.HealthListRequest, call: Call) -> pb.HealthListResponse:
        return pb.HealthListResponse(
            statuses={name: pb.HealthCheckResponse(status=self._status(name)) for name in self._services}
        )

    async def Watch(self, request: pb.HealthCheckRequest, call: Call) -> AsyncGenerator[pb.HealthCheckResponse]:
        while True:
            change = self._serving.next_change()
            yield pb.HealthCheckResponse(status=self._status(request.service))
            await change.wait()

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus:
        if service not in self._services:
            return _SERVICE_UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING
