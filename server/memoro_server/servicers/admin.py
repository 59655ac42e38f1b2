"""AdminService: tenants and their keys."""

from __future__ import annotations

from memoro.v1 import admin_service_pb2 as pb
from memoro_core.clock import Clock
from memoro_core.errors import invalid_field
from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.tenancy.model import TenantState
from memoro_core.tenancy.service import TenancyService
from memoro_server.call import Call
from memoro_server.convert.idempotency import idempotency_of
from memoro_server.convert.limits import to_limits
from memoro_server.convert.mask import fields_to_change
from memoro_server.convert.pages import PageSpot
from memoro_server.convert.scalars import to_duration, to_id, to_time, to_version
from memoro_server.convert.tenancy import from_api_key, from_tenant, from_tenant_usage, to_scopes, to_tier_name


class AdminServicer:
    """The calls of AdminService that are about tenants and keys."""

    def __init__(self, tenancy: TenancyService, clock: Clock) -> None:
        self._tenancy = tenancy
        self._clock = clock

    async def CreateTenant(self, request: pb.CreateTenantRequest, call: Call) -> pb.CreateTenantResponse:
        tenant = await self._tenancy.create_tenant(
            call.principal,
            request.name,
            request.display_name or request.name,
            to_tier_name(request.tier),
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.CreateTenantResponse(tenant=from_tenant(tenant))

    async def GetTenant(self, request: pb.GetTenantRequest, call: Call) -> pb.GetTenantResponse:
        tenant = await self._tenancy.get_tenant(_tenant_id(request))
        return pb.GetTenantResponse(
            tenant=from_tenant(tenant), usage=from_tenant_usage(await self._tenancy.usage(tenant.id))
        )

    async def ListTenants(self, request: pb.ListTenantsRequest, call: Call) -> pb.ListTenantsResponse:
        spot = PageSpot(request, call)
        page = await self._tenancy.list_tenants(size=spot.size, position=spot.position)
        return pb.ListTenantsResponse(
            tenants=[from_tenant(tenant) for tenant in page.items], next_page_token=spot.token(page.next_position)
        )

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, call: Call) -> pb.UpdateTenantResponse:
        changed = fields_to_change(request, ("display_name", "tier", "limits"))
        for field, is_set in (
            ("display_name", request.HasField("display_name")),
            ("tier", request.HasField("tier")),
        ):
            if field in changed and not is_set:
                raise invalid_field(field, "is named in update_mask but not set, and cannot be cleared")
        tenant = await self._tenancy.update_tenant(
            _tenant_id(request),
            display_name=request.display_name if "display_name" in changed else None,
            tier=to_tier_name(request.tier) if "tier" in changed else None,
            limits=to_limits(request.limits) if "limits" in changed else None,
            version=to_version(request.etag),
            principal=call.principal,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.UpdateTenantResponse(tenant=from_tenant(tenant))

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, call: Call) -> pb.SuspendTenantResponse:
        tenant = await self._tenancy.set_state(_tenant_id(request), TenantState.SUSPENDED)
        return pb.SuspendTenantResponse(tenant=from_tenant(tenant))

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, call: Call) -> pb.ResumeTenantResponse:
        tenant = await self._tenancy.set_state(_tenant_id(request), TenantState.ACTIVE)
        return pb.ResumeTenantResponse(tenant=from_tenant(tenant))

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, call: Call) -> pb.CreateApiKeyResponse:
        expires_at = to_time(request, "expire_time")
        if expires_at is not None and expires_at <= self._clock.now():
            raise invalid_field("expire_time", "must be in the future")
        key, secret = await self._tenancy.create_api_key(
            call.principal,
            _tenant_id(request),
            request.display_name,
            to_scopes(request.scopes),
            expires_at,
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.CreateApiKeyResponse(api_key=from_api_key(key), secret=secret)

    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, call: Call) -> pb.RotateApiKeyResponse:
        rotated = await self._tenancy.rotate_api_key(
            call.principal,
            _tenant_id(request),
            ApiKeyId(to_id(request.api_key_id, "api_key_id")),
            overlap=to_duration(request, "overlap"),
            expires_at=to_time(request, "expire_time"),
            idempotency=idempotency_of(call.method.path, request),
        )
        return pb.RotateApiKeyResponse(
            api_key=from_api_key(rotated.key),
            secret=rotated.secret,
            replaced_api_key=from_api_key(rotated.replaced),
        )

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, call: Call) -> pb.ListApiKeysResponse:
        spot = PageSpot(request, call)
        page = await self._tenancy.list_api_keys(_tenant_id(request), size=spot.size, position=spot.position)
        return pb.ListApiKeysResponse(
            api_keys=[from_api_key(key) for key in page.items], next_page_token=spot.token(page.next_position)
        )

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, call: Call) -> pb.RevokeApiKeyResponse:
        api_key_id = ApiKeyId(to_id(request.api_key_id, "api_key_id"))
        key = await self._tenancy.revoke_api_key(_tenant_id(request), api_key_id)
        return pb.RevokeApiKeyResponse(api_key=from_api_key(key))


def _tenant_id(
    request: pb.GetTenantRequest
    | pb.UpdateTenantRequest
    | pb.SuspendTenantRequest
    | pb.ResumeTenantRequest
    | pb.CreateApiKeyRequest
    | pb.RotateApiKeyRequest
    | pb.ListApiKeysRequest
    | pb.RevokeApiKeyRequest,
) -> TenantId:
    return TenantId(to_id(request.tenant_id, "tenant_id"))
