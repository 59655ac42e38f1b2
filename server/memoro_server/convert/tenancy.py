"""Tenants and keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memoro.v1 import admin_pb2
from memoro_core.limits.model import TenantUsage
from memoro_core.tenancy.model import DEFAULT_SCOPES, FREE_TIER, ApiKey, Scope, Tenant, TenantState, TierName
from memoro_server.convert.limits import from_limits_or_none
from memoro_server.convert.scalars import enum_members, enum_numbers, from_time, from_time_or_none, from_version

STATES: Final = enum_numbers(TenantState, admin_pb2.TenantState, "TENANT_STATE_")
SCOPES: Final = enum_numbers(Scope, admin_pb2.Scope, "SCOPE_")
_SCOPE_OF: Final = enum_members(SCOPES)


def to_scopes(numbers: Sequence[int]) -> Sequence[Scope]:
    """What a new key may do; the default when nothing is said."""
    return tuple(_SCOPE_OF[number] for number in numbers) or DEFAULT_SCOPES


def to_tier_name(name: str) -> TierName:
    """Which tier; free when none is named."""
    return TierName(name) if name else FREE_TIER


def from_tenant(tenant: Tenant) -> admin_pb2.Tenant:
    """A tenant as operators see it."""
    return admin_pb2.Tenant(
        id=str(tenant.id),
        name=tenant.name,
        display_name=tenant.display_name,
        tier=tenant.tier,
        limits=from_limits_or_none(tenant.limits),
        state=STATES[tenant.state],
        etag=from_version(tenant.version),
        create_time=from_time(tenant.created_at),
        update_time=from_time(tenant.updated_at),
    )


def from_tenant_usage(usage: TenantUsage) -> admin_pb2.TenantUsage:
    """What a tenant has stored."""
    return admin_pb2.TenantUsage(memories=usage.memories, bytes=usage.bytes)


def from_api_key(key: ApiKey) -> admin_pb2.ApiKey:
    """A key as operators see it, without its secret."""
    return admin_pb2.ApiKey(
        id=str(key.id),
        tenant_id=str(key.tenant_id),
        display_name=key.display_name,
        prefix=key.prefix,
        scopes=[SCOPES[scope] for scope in key.scopes],
        create_time=from_time(key.created_at),
        expire_time=from_time_or_none(key.expires_at),
        revoke_time=from_time_or_none(key.revoked_at),
    )
