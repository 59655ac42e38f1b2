"""What tenants and keys need from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.limits.model import Limits, TenantLimits, TenantUsage
from memoro_core.tenancy.model import ApiKey, Scope, Tenant, TenantState, Tier, TierName


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about the calls of a tenant, whatever it shows."""

    tenant_id: TenantId
    state: TenantState
    is_operator: bool
    tier: TierName
    limits: TenantLimits
    jobs_kept: timedelta | None


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of a key: enough to check what a caller shows."""

    api_key_id: ApiKeyId
    secret_hash: bytes
    scopes: frozenset[Scope]
    expires_at: datetime | None
    revoked_at: datetime | None
    standing: Standing


@dataclass(frozen=True, slots=True)
class Request:
    """An operator's request, to be done once: the operators' tenant, and the request's id and fingerprint."""

    tenant_id: TenantId
    idempotency: Idempotency


@dataclass(frozen=True, slots=True)
class Successor:
    """A key that takes the place of another, whose name and scopes it gets."""

    id: ApiKeyId
    prefix: str
    secret_hash: bytes
    created_at: datetime
    expires_at: datetime | None


class TenancyStore(Protocol):
    """Tenants and keys in the database. A `request` that was done before writes nothing and returns the id it made."""

    async def create_tenant(self, tenant: Tenant, request: Request | None) -> Tenant | UUID:
        """The tenant as stored, or the id that the request made before.

        Raises TENANT_EXISTS when the name is taken, TIER_NOT_FOUND.
        """
        ...

    async def get_tenant(self, tenant_id: TenantId) -> Tenant | None:
        """The tenant, or None."""
        ...

    async def tenant_usage(self, tenant_id: TenantId) -> TenantUsage:
        """What it has stored."""
        ...

    async def find_tenant(self, name: str) -> Tenant | None:
        """The tenant of that name, or None."""
        ...

    async def list_tenants(self, *, limit: int, after: str | None) -> Sequence[Tenant]:
        """Tenants by name, at most `limit`, after that name."""
        ...

    async def update_tenant(
        self,
        tenant_id: TenantId,
        *,
        display_name: str | None,
        tier: TierName | None,
        state: TenantState | None,
        limits: Limits | None,
        version: int | None,
        now: datetime,
        request: Request | None,
    ) -> Tenant:
        """Changes what is not None; the tenant as it then is, or now is if the request was done before.

        Raises TENANT_NOT_FOUND, ETAG_MISMATCH when it is of another `version`, TIER_NOT_FOUND.
        """
        ...

    async def create_api_key(self, key: ApiKey, secret_hash: bytes, request: Request | None) -> ApiKey | UUID:
        """The key as stored, or the id that the request made before."""
        ...

    async def rotate_api_key(
        self,
        tenant_id: TenantId,
        api_key_id: ApiKeyId,
        successor: Successor,
        request: Request | None,
        *,
        ends_at: datetime,
    ) -> tuple[ApiKey, ApiKey] | UUID:
        """The new key and the old one, which ends at `ends_at` unless it does sooner; or the id of the key made before.

        Raises API_KEY_NOT_FOUND, and then changes nothing, for a key that is not there, revoked or expired.
        """
        ...

    async def get_api_key(self, tenant_id: TenantId, api_key_id: ApiKeyId) -> ApiKey | None:
        """The key, or None."""
        ...

    async def list_api_keys(self, tenant_id: TenantId, *, limit: int, before: ApiKeyId | None) -> Sequence[ApiKey]:
        """A tenant's keys newest first, at most `limit`, older than `before`."""
        ...

    async def revoke_api_key(self, tenant_id: TenantId, api_key_id: ApiKeyId, *, now: datetime) -> ApiKey | None:
        """Ends the key, once; None when there is none."""
        ...

    async def find_credential(self, prefix: str) -> Credential | None:
        """The key with this prefix, of whichever tenant."""
        ...

    async def find_standing(self, tenant: TenantId | str) -> Standing | None:
        """How the tenant of that id or of that name stands, or None."""
        ...


class TierStore(Protocol):
    """Tiers in the database."""

    async def list_tiers(self) -> Sequence[Tier]:
        """All tiers, by their weight."""
        ...

    async def put_tier(self, tier: Tier, *, version: int | None, most: int, request: Request | None) -> Tier:
        """Makes the tier, or puts it in the place of the one of its name, whose version then goes up by one.

        A `request` that was done before writes nothing and returns the tier as it now is. There are `most` tiers.
        Raises TIER_NOT_FOUND and ETAG_MISMATCH when there is none of that `version`, QUOTA_EXCEEDED, REQUEST_ID_REUSED.
        """
        ...


class PolicyCache(Protocol):
    """What a process keeps of tenants, tiers and credentials: it is to be read anew once it is forgotten."""

    def forget(self, tenant_id: TenantId) -> None:
        """Forgets a tenant and its credentials."""
        ...

    def forget_tier(self, tier: TierName) -> None:
        """Forgets the tenants of a tier."""
        ...

    def forget_all(self) -> None:
        """Forgets everything."""
        ...
