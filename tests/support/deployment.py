"""A real server on a real port over real PostgreSQL and Redis, and callers with keys of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from memoro.v1 import (
    admin_service_pb2,
    billing_service_pb2,
    jobs_service_pb2,
    memory_service_pb2,
    webhooks_service_pb2,
)
from memoro_core.container import Container, open_container
from memoro_core.ids import TenantId
from memoro_core.limits.model import Limits, Rate
from memoro_core.postgres.tenancy_store import PostgresTenancyStore
from memoro_core.settings import Settings
from memoro_core.tenancy.bootstrap import Bootstrap
from memoro_core.tenancy.model import DEFAULT_SCOPES, Scope, Tenant
from memoro_server.app import MemoroServer
from memoro_server.metrics import ServerMetrics
from tests.support.domain import fresh_name
from tests.support.interception import Outcome, outcome_of

TIMEOUT = 20.0
LOADING = 60.0
"""For the first SYNC call of a server, which loads its models."""
FAR: Final = Rate(60_000_000, 1_000_000)
WIDE: Final = Limits(requests=FAR, reads=FAR, writes=FAR, searches=FAR, user_requests=FAR)
"""What the tier limits is out of reach."""
METHODS: Mapping[str, Any] = {
    f"/{service.full_name}/{method.name}": method
    for file in (memory_service_pb2, jobs_service_pb2, billing_service_pb2, admin_service_pb2, webhooks_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every method of the contract, by its path."""


def path_of(method: str) -> str:
    """The path of a method that is named by its service's last name and its own: `MemoryService/GetMemory`."""
    return f"/memoro.v1.{method}"


class Caller:
    """Calls a server with one key. Methods are named as in `path_of`."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: TenantId, key: str) -> None:
        self.channel = channel
        self.tenant_id = tenant_id
        self.key = key

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What the caller shows."""
        return (("authorization", f"Bearer {self.key}"),)

    async def call(
        self, method: str, request: Message | bytes, *, metadata: Any = None, timeout: float = TIMEOUT
    ) -> Outcome:
        """How one call ends; of a stream, its first answer."""
        path = path_of(method)
        data = request if isinstance(request, bytes) else request.SerializeToString()
        streaming = METHODS[path].server_streaming
        start: Any = self.channel.unary_stream(path) if streaming else self.channel.unary_unary(path)
        ongoing = start(data, metadata=self.metadata if metadata is None else metadata, timeout=timeout)
        try:
            response = await (ongoing.read() if streaming else ongoing)
        except grpc.aio.AioRpcError as error:
            return outcome_of(error)
        if streaming:
            ongoing.cancel()
            return Outcome(grpc.StatusCode.OK, "", response)
        return Outcome(grpc.StatusCode.OK, "", response, dict(await ongoing.trailing_metadata()))

    async def ask(self, method: str, request: Message, *, timeout: float = TIMEOUT) -> Any:
        """The answer to a call that must succeed."""
        outcome = await self.call(method, request, timeout=timeout)
        assert outcome.code is grpc.StatusCode.OK, outcome
        return GetMessageClass(METHODS[path_of(method)].output_type).FromString(outcome.response)

    def stream(self, method: str, request: Message, *, timeout: float = TIMEOUT) -> Any:
        """An open stream of parsed answers."""
        path = path_of(method)
        parse = GetMessageClass(METHODS[path].output_type).FromString
        start: Any = self.channel.unary_stream(path, response_deserializer=parse)
        return start(request.SerializeToString(), metadata=self.metadata, timeout=timeout)


@dataclass
class Deployment:
    """A server in this process, and whom it serves."""

    container: Container
    server: MemoroServer
    channel: grpc.aio.Channel
    bootstrap: Bootstrap

    async def caller(self, scopes: Sequence[Scope] = DEFAULT_SCOPES) -> Caller:
        """A new tenant's key."""
        tenant = await self.bootstrap.tenant(fresh_name(), "A test's")
        return await self.caller_of(tenant, scopes)

    async def caller_of(self, tenant: Tenant, scopes: Sequence[Scope] = DEFAULT_SCOPES) -> Caller:
        """One more key of a tenant."""
        return Caller(self.channel, tenant.id, await self.bootstrap.key(tenant, "A test's", scopes))

    async def limited(self, limits: Limits) -> Caller:
        """A new tenant's key, which reads, writes and has jobs: these limits hold it, and no other."""
        tenant = await self.bootstrap.tenant(fresh_name(), "A test's")
        await self.limit(tenant.id, limits)
        return await self.caller_of(tenant, tuple(Scope)[:3])

    async def limit(self, tenant_id: TenantId, limits: Limits) -> None:
        """From now on these limits hold a tenant."""
        own = {name: value for name in Limits.__slots__ if (value := getattr(limits, name)) is not None}
        tenancy = self.container.tenancy
        await tenancy.update_tenant(tenant_id, display_name=None, tier=None, limits=replace(WIDE, **own), version=None)

    async def operator(self) -> Caller:
        """A key that may administer."""
        return await self.caller_of(await self.bootstrap.operator(), (Scope.ADMIN,))

    async def rows(self, tenant_id: TenantId) -> Mapping[str, int]:
        """How many rows a tenant has in the tables that calls write."""
        async with self.container.database.tenant_tx(tenant_id) as connection:
            return {
                table: await connection.fetchval(f"SELECT count(*) FROM {table}")
                for table in ("memories", "jobs", "job_events", "idempotency_records")
            }


@asynccontextmanager
async def deployed(settings: Settings) -> AsyncIterator[Deployment]:
    """A server on a free port, with its container."""
    async with (
        open_container(settings) as container,
        MemoroServer(container, ServerMetrics()) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        bootstrap = Bootstrap(PostgresTenancyStore(container.database), container.clock)
        yield Deployment(container, server, channel, bootstrap)
