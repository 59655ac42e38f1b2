"""Tenants and their keys, for operators."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from memoro import convert, convert_tiers, methods, paging, requests, wire
from memoro.enums import Scope
from memoro.transport import Transport
from memoro.types import ApiKey, Limits, NewApiKey, RotatedApiKey, Tenant
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
        """One tenant, with what it has stored. Raises NotFound."""
        request = admin_service_pb2.GetTenantRequest(tenant_id=tenant_id)
        response = await self._transport.unary(methods.GET_TENANT, request, timeout)
        return replace(convert.tenant(response.tenant), usage=convert.tenant_usage(response.usage))

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
        limits: Limits | None = None,
        etag: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Tenant:
        """Changes what is given. Raises NotFound, or Conflict when the tenant no longer has the `etag`.

        `limits` are all those that the tenant has of its own, in the place of its tier's; with `Limits()` it has none.
        """
        given = {"display_name": display_name, "tier": tier, "limits": limits}
        request = admin_service_pb2.UpdateTenantRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            display_name=display_name,
            tier=tier,
            limits=None if limits is None else convert_tiers.limits_message(limits),
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
        """Creates a key and shows its secret, this once; by default for all scopes but ADMIN. Raises NotFound."""
        request = admin_service_pb2.CreateApiKeyRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            display_name=display_name,
            scopes=[wire.enum_number(Scope, scope) for scope in scopes],
            expire_time=wire.timestamp("expire_time", expire_time),
        )
        response = await self._transport.unary(methods.CREATE_API_KEY, request, timeout)
        return NewApiKey(convert.api_key(response.api_key), response.secret or None)

    async def rotate(
        self,
        tenant_id: str,
        api_key_id: str,
        *,
        overlap: timedelta | None = None,
        expire_time: datetime | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RotatedApiKey:
        """Creates a key like another, shows its secret, this once, and lets the other end after `overlap`.

        That is an hour by default and 30 days at most; zero ends it now. Raises NotFound for a key that has ended.
        """
        request = admin_service_pb2.RotateApiKeyRequest(
            request_id=requests.request_id_or_new(request_id),
            tenant_id=tenant_id,
            api_key_id=api_key_id,
            overlap=wire.duration(overlap),
            expire_time=wire.timestamp("expire_time", expire_time),
        )
        response = await self._transport.unary(methods.ROTATE_API_KEY, request, timeout)
        return RotatedApiKey(
            convert.api_key(response.api_key), response.secret or None, convert.api_key(response.replaced_api_key)
        )

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
