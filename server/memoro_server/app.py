"""The gRPC server as a whole: what it serves, where it listens, how it stops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection

from memoro.v1 import (
    admin_service_pb2,
    billing_service_pb2,
    jobs_service_pb2,
    memory_service_pb2,
    webhooks_service_pb2,
)
from memoro_core.container import Container
from memoro_core.settings import Settings
from memoro_core.tasks import end_task
from memoro_server.interceptors import Interceptor
from memoro_server.interceptors.audit import AuditInterceptor
from memoro_server.interceptors.authentication import AuthenticationInterceptor
from memoro_server.interceptors.deadline import DeadlineInterceptor
from memoro_server.interceptors.drain import DrainInterceptor
from memoro_server.interceptors.errors import ErrorsInterceptor
from memoro_server.interceptors.parsing import ParsingInterceptor
from memoro_server.interceptors.rate_limit import RateLimitInterceptor
from memoro_server.interceptors.request_id import RequestIdInterceptor
from memoro_server.interceptors.standing import StandingInterceptor
from memoro_server.interceptors.telemetry import TelemetryInterceptor
from memoro_server.interceptors.tracing import TracingInterceptor
from memoro_server.interceptors.validation import ValidationInterceptor
from memoro_server.metrics import ServerMetrics
from memoro_server.monitor import Monitor
from memoro_server.router import Router, Servicers
from memoro_server.rules import Rules
from memoro_server.servicers.admin import AdminServicer
from memoro_server.servicers.audit import AuditServicer
from memoro_server.servicers.billing import BillingServicer
from memoro_server.servicers.diagnosis import DiagnosisServicer
from memoro_server.servicers.graph import GraphServicer
from memoro_server.servicers.health import HealthServicer
from memoro_server.servicers.jobs import JobsServicer
from memoro_server.servicers.memory import MemoryServicer
from memoro_server.servicers.queues import QueuesServicer
from memoro_server.servicers.spending import SpendingServicer
from memoro_server.servicers.tiers import TiersServicer
from memoro_server.servicers.webhooks import WebhooksServicer
from memoro_server.serving import Serving
from memoro_server.tls import server_credentials

MEMORY: Final = memory_service_pb2.DESCRIPTOR.services_by_name["MemoryService"]
JOBS: Final = jobs_service_pb2.DESCRIPTOR.services_by_name["JobsService"]
BILLING: Final = billing_service_pb2.DESCRIPTOR.services_by_name["BillingService"]
ADMIN: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
WEBHOOKS: Final = webhooks_service_pb2.DESCRIPTOR.services_by_name["WebhooksService"]
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION: Final = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

_MAX_METADATA_BYTES: Final = 16 * 1024
"""A bearer token of some size is in it."""
_MAX_PENDING: Final = 10_000
"""Calls that may wait to be looked at: a burst of as many callers."""
_AGE_GRACE: Final = 150.0
"""How long the calls of a connection that is too old may go on: longer than any call but a watch, which resumes."""
_KEEPALIVE: Final = 60.0
_KEEPALIVE_TIMEOUT: Final = 20.0
_FLUSH: Final = 1.0
"""How long the last answers may take to leave."""


class MemoroServer:
    """Serves the contract from a container, on `grpc_host` and `grpc_port`; with `shared_port` beside other processes.

    `async with` starts it and, at the end, stops it at once; `drain` before that is the gentle way out.
    """

    def __init__(self, container: Container, metrics: ServerMetrics, *, shared_port: bool = False) -> None:
        self._settings = container.settings
        self._metrics = metrics
        self._drain = DrainInterceptor()
        self._tasks: list[asyncio.Task[None]] = []
        self._port = 0
        self._logger = structlog.get_logger("memoro.server")
        self._standing = StandingInterceptor(container.authenticator, interval=container.settings.watch_heartbeat)
        self._policy_changes = container.policy_changes
        self._policy_changes.add(self._standing)
        self.serving = Serving()
        self.monitor = Monitor(container.database, container.pings, container.limiter.counts, self.serving, metrics)
        rules = Rules()
        self._router = Router(self._servicers(container, rules), self._interceptors(container, rules))
        self._server = grpc.aio.server(options=_options(self._settings, shared_port=shared_port))
        self._server.add_generic_rpc_handlers((self._router,))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    async def __aenter__(self) -> MemoroServer:
        """Raises OSError when the port is taken or a TLS file can't be read; UNAVAILABLE when PostgreSQL is away."""
        await self.monitor.check()
        self._port = self._listen()
        await self._server.start()
        self._tasks = [
            asyncio.create_task(self.monitor.watch_dependencies()),
            asyncio.create_task(self.monitor.watch_loop()),
            asyncio.create_task(self._policy_changes.run()),
            asyncio.create_task(self._standing.run()),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.serving.close()
        await asyncio.gather(*(end_task(task) for task in self._tasks))
        await self._server.stop(None)

    async def drain(self) -> None:
        """Stops without cutting calls off.

        Health checks say NOT_SERVING and watches end with SERVER_DRAINING at once; other calls are taken for
        `drain_notice` more seconds, until whoever balances has seen it; those then under way have `drain_grace` more.
        """
        self.serving.close()
        self._metrics.serving.set(0)
        self._drain.end_streams()
        await asyncio.sleep(self._settings.drain_notice)
        self._drain.refuse_calls()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_grace):
                await self._drain.wait_idle()
        if self._drain.running:
            self._logger.warning("cutting calls off", calls=self._drain.running)
        await self._server.stop(_FLUSH if not self._drain.running else None)

    def _listen(self) -> int:
        settings = self._settings
        credentials = server_credentials(settings)
        address = f"{_bracketed(settings.grpc_host)}:{settings.grpc_port}"
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"can't listen on {address}: the port is taken, or the address is another's") from error

    def _interceptors(self, container: Container, rules: Rules) -> Sequence[Interceptor]:
        return (
            RequestIdInterceptor(),
            TracingInterceptor(),
            TelemetryInterceptor(self._metrics),
            ErrorsInterceptor(),
            self._drain,
            AuditInterceptor(container.audit),
            AuthenticationInterceptor(container.authenticator),
            self._standing,
            DeadlineInterceptor(),
            ParsingInterceptor(),
            *self._limits(container),
            ValidationInterceptor(rules),
        )

    def _limits(self, container: Container) -> Sequence[Interceptor]:
        if not container.settings.limits:
            return ()
        return (RateLimitInterceptor(container.limiter, container.clock, self._metrics),)

    def _servicers(self, container: Container, rules: Rules) -> Servicers:
        settings = container.settings
        servicers: dict[Any, Sequence[object]] = {
            MEMORY: (MemoryServicer(container.memories, container.search, rules), GraphServicer(container.graph)),
            JOBS: (
                JobsServicer(
                    container.jobs,
                    container.watcher,
                    container.tenant_watcher,
                    container.open_streams,
                    container.clock,
                    self._metrics,
                    heartbeat_interval=settings.watch_heartbeat,
                ),
            ),
            BILLING: (BillingServicer(container.billing, container.pricing, container.usage, rules),),
            ADMIN: (
                AdminServicer(container.tenancy, container.clock),
                TiersServicer(container.tiers),
                AuditServicer(container.audit),
                QueuesServicer(container.operations),
                DiagnosisServicer(container.diagnosis),
                SpendingServicer(
                    container.billing, container.pricing, container.usage, container.breakers, container.alerts
                ),
            ),
            WEBHOOKS: (WebhooksServicer(container.webhooks),),
        }
        servicers[HEALTH] = (HealthServicer(self.serving, [service.full_name for service in servicers]),)
        if settings.reflection:
            names = [service.full_name for service in (*servicers, REFLECTION)]
            servicers[REFLECTION] = (reflection.ReflectionServicer(names),)
        return servicers


def _options(settings: Settings, *, shared_port: bool) -> Sequence[tuple[str, int]]:
    return (
        # Off for a process on its own, so that a second one on the same port fails instead of taking half of its calls.
        ("grpc.so_reuseport", int(shared_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", settings.max_connection_streams),
        # One number for both: between the two, gRPC refuses at random.
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.handshake_timeout)),
        ("grpc.max_connection_idle_ms", _milliseconds(settings.max_connection_idle)),
        # Beyond its own limits gRPC refuses calls at random, with a bare CANCELLED: a burst must fit in.
        ("grpc.server.max_pending_requests", _MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 3 * _MAX_PENDING),
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(_AGE_GRACE)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _milliseconds(settings.keepalive_min_interval)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _milliseconds(_KEEPALIVE)),
        ("grpc.keepalive_timeout_ms", _milliseconds(_KEEPALIVE_TIMEOUT)),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
