"""Administration: tenants and their keys, workers and queues. Every call needs a key with the scope ADMIN."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from datetime import datetime

from memoro import convert, methods, paging, requests, wire
from memoro.enums import JobKind, JobState, Scope
from memoro.transport import Transport
from memoro.types import (
    ApiKey,
    ClearResult,
    NewApiKey,
    ProcessingStatus,
    QueueStatus,
    RequeueResult,
    Tenant,
    TriggerResult,
)
from memoro.v1 import admin_service_pb2


class AsyncTenants:
    """All tenants."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        *,
        display_name: str = "",
        tier: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Tenant:
        """Creates a tenant; the default tier is `free`. Raises AlreadyExists."""
        request = admin_service_pb2.CreateTenantRequest(
            request_id=requests.request_id_or_new(request_id), name=name, display_name=display_name, tier=tier
        )
        return convert.tenant((await self._transport.unary(methods.CREATE_TENANT, request, timeout)).tenant)

    async def get(self, tenant_id: str, *, timeout: float | None = None) -> Tenant:
        """One tenant. Raises NotFound."""
        request = admin_service_pb2.GetTenantRequest(tenant_id=tenant_id)
        return convert.tenant((await self._transport.unary(methods.GET_TENANT, request, timeout)).tenant)

    def list(self, *, limit: int | None = None, timeout: float | None = None) -> AsyncGenerator[Tenant, None]:
        """Tenants by name."""
        return paging.items(
            self._transport,
            methods.LIST_TENANTS,
            admin_service_pb2.ListTenantsRequest(),
            lambda response: response.tenants,
            convert.tenant,
            limit=limit,
            timeout=timeout,
        )

    async def update(
        self,
        tenant_id: str,
        *,
        display_name: str | None = None,
        tier: str | None = None,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Tenant:
        """Changes what is given. Raises NotFound, or Conflict when the tenant no longer has the `etag`."""
        given = {"display_name": display_name, "tier": tier}
        request = admin_service_pb2.UpdateTenantRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            display_name=display_name,
            tier=tier,
            etag=etag,
        )
        request.update_mask.paths.extend(name for name, value in given.items() if value is not None)
        return convert.tenant((await self._transport.unary(methods.UPDATE_TENANT, request, timeout)).tenant)

    async def suspend(self, tenant_id: str, *, request_id: str | None = None, timeout: float | None = None) -> Tenant:
        """Refuses the tenant's calls from now on; its data stays. Raises NotFound."""
        request = admin_service_pb2.SuspendTenantRequest(
            request_id=requests.request_id_or_new(request_id), tenant_id=tenant_id
        )
        return convert.tenant((await self._transport.unary(methods.SUSPEND_TENANT, request, timeout)).tenant)

    async def resume(self, tenant_id: str, *, request_id: str | None = None, timeout: float | None = None) -> Tenant:
        """Lets a suspended tenant call again. Raises NotFound."""
        request = admin_service_pb2.ResumeTenantRequest(
            request_id=requests.request_id_or_new(request_id), tenant_id=tenant_id
        )
        return convert.tenant((await self._transport.unary(methods.RESUME_TENANT, request, timeout)).tenant)


class AsyncKeys:
    """The keys of tenants."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self,
        tenant_id: str,
        *,
        display_name: str = "",
        scopes: Iterable[Scope] = (),
        expire_time: datetime | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> NewApiKey:
        """Creates a key and shows its secret, this once. Default scopes: READ, WRITE and JOBS. Raises NotFound."""
        request = admin_service_pb2.CreateApiKeyRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            display_name=display_name,
            scopes=[wire.enum_number(Scope, scope) for scope in scopes],
            expire_time=wire.timestamp("expire_time", expire_time),
        )
        response = await self._transport.unary(methods.CREATE_API_KEY, request, timeout)
        return NewApiKey(convert.api_key(response.api_key), response.secret or None)

    def list(
        self, tenant_id: str, *, limit: int | None = None, timeout: float | None = None
    ) -> AsyncGenerator[ApiKey, None]:
        """A tenant's keys, newest first, revoked ones included."""
        return paging.items(
            self._transport,
            methods.LIST_API_KEYS,
            admin_service_pb2.ListApiKeysRequest(tenant_id=tenant_id),
            lambda response: response.api_keys,
            convert.api_key,
            limit=limit,
            timeout=timeout,
        )

    async def revoke(
        self, tenant_id: str, api_key_id: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> ApiKey:
        """Ends a key, for good. Raises NotFound."""
        request = admin_service_pb2.RevokeApiKeyRequest(
            request_id=requests.request_id_or_new(request_id), tenant_id=tenant_id, api_key_id=api_key_id
        )
        return convert.api_key((await self._transport.unary(methods.REVOKE_API_KEY, request, timeout)).api_key)


class AsyncAdmin:
    """What operators do. A queue is named for the tier whose jobs it holds; "" is all queues."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.tenants = AsyncTenants(transport)
        self.keys = AsyncKeys(transport)

    async def workers(self, *, timeout: float | None = None) -> ProcessingStatus:
        """Which workers run, since when and on what, and how the queues stand."""
        response = await self._transport.unary(methods.GET_WORKERS, admin_service_pb2.GetWorkersRequest(), timeout)
        return ProcessingStatus(
            workers=tuple(convert.worker(one) for one in response.workers), queues=convert.queues(response.queues)
        )

    async def pause_queue(
        self, queue: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> tuple[QueueStatus, ...]:
        """Begins no more jobs of a queue, within a second everywhere; what runs goes on. Returns all queues."""
        request = admin_service_pb2.PauseQueueRequest(request_id=requests.request_id_or_new(request_id), queue=queue)
        return convert.queues((await self._transport.unary(methods.PAUSE_QUEUE, request, timeout)).queues)

    async def resume_queue(
        self, queue: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> tuple[QueueStatus, ...]:
        """Lets a paused queue run again. Returns all queues."""
        request = admin_service_pb2.ResumeQueueRequest(request_id=requests.request_id_or_new(request_id), queue=queue)
        return convert.queues((await self._transport.unary(methods.RESUME_QUEUE, request, timeout)).queues)

    async def requeue_jobs(
        self,
        *,
        tenant_id: str = "",
        states: Iterable[JobState] = (),
        kinds: Iterable[JobKind] = (),
        reason: str = "",
        ended_from: datetime | None = None,
        ended_until: datetime | None = None,
        limit: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RequeueResult:
        """Does the work of ended jobs again, each as a new job, oldest first; all that is given must hold.

        `states` are FAILED, the default, and CANCELLED; `reason` is that of the error; at most `limit` jobs, 0 for
        1,000, up to 10,000. A job is never requeued twice.
        """
        request = admin_service_pb2.RequeueJobsRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            states=[wire.enum_number(JobState, state) for state in states],
            kinds=[wire.enum_number(JobKind, kind) for kind in kinds],
            reason=reason,
            ended_from=wire.timestamp("ended_from", ended_from),
            ended_until=wire.timestamp("ended_until", ended_until),
            limit=limit,
        )
        response = await self._transport.unary(methods.REQUEUE_JOBS, request, timeout)
        return RequeueResult(response.requeued, response.skipped, response.more)

    async def clear_queue(
        self,
        queue: str = "",
        *,
        tenant_id: str = "",
        all_tenants: bool = False,
        kinds: Iterable[JobKind] = (),
        deferred: bool = False,
        limit: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> ClearResult:
        """Cancels jobs that wait, with `deferred` also those put off, oldest first; what runs goes on.

        Name a queue or a tenant, or say `all_tenants`; all that is given must hold. At most `limit` jobs, 0 for 1,000,
        up to 10,000.
        """
        request = admin_service_pb2.ClearQueueRequest(
            request_id=requests.request_id_or_new(request_id),
            queue=queue,
            tenant_id=tenant_id,
            all_tenants=all_tenants,
            kinds=[wire.enum_number(JobKind, kind) for kind in kinds],
            deferred=deferred,
            limit=limit,
        )
        response = await self._transport.unary(methods.CLEAR_QUEUE, request, timeout)
        return ClearResult(response.cancelled, response.more)

    async def trigger_processing(
        self, tenant_id: str = "", *, request_id: str | None = None, timeout: float | None = None
    ) -> TriggerResult:
        """Lets jobs that are put off or between two attempts run now, of one tenant or of all."""
        request = admin_service_pb2.TriggerProcessingRequest(
            request_id=requests.request_id_or_new(request_id), tenant_id=tenant_id
        )
        response = await self._transport.unary(methods.TRIGGER_PROCESSING, request, timeout)
        return TriggerResult(response.released, response.due)
