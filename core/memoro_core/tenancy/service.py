"""Managing tenants and keys: what operators do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from memoro_core.clock import Clock
from memoro_core.errors import Code, MemoroError, Reason, invalid_field
from memoro_core.idempotency import Idempotency
from memoro_core.ids import ApiKeyId, TenantId, new_id
from memoro_core.limits.model import Limits, TenantUsage
from memoro_core.paging import Page, cut, identifier
from memoro_core.tenancy.keys import new_key
from memoro_core.tenancy.model import (
    DEFAULT_SCOPES,
    ApiKey,
    Principal,
    RotatedKey,
    Scope,
    Tenant,
    TenantState,
    TierName,
)
from memoro_core.tenancy.ports import Request, Successor, TenancyStore

_OVERLAP: Final = timedelta(hours=1)


class TenancyService:
    """Tenants and their keys, over all tenants; callers have shown the scope admin."""

    def __init__(self, store: TenancyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create_tenant(
        self,
        principal: Principal | None,
        name: str,
        display_name: str,
        tier: TierName,
        *,
        idempotency: Idempotency | None = None,
    ) -> Tenant:
        """A new tenant. Raises TENANT_EXISTS, TIER_NOT_FOUND, REQUEST_ID_REUSED."""
        made = await self._store.create_tenant(
            self.draft_tenant(name, display_name, tier), _request(principal, idempotency)
        )
        return await self.get_tenant(TenantId(made)) if isinstance(made, UUID) else made

    async def get_tenant(self, tenant_id: TenantId) -> Tenant:
        """One tenant. Raises TENANT_NOT_FOUND."""
        tenant = await self._store.get_tenant(tenant_id)
        if tenant is None:
            raise tenant_not_found(tenant_id)
        return tenant

    async def usage(self, tenant_id: TenantId) -> TenantUsage:
        """What a tenant has stored."""
        return await self._store.tenant_usage(tenant_id)

    async def list_tenants(self, *, size: int, position: tuple[str, ...] | None) -> Page[Tenant]:
        """Tenants by name."""
        rows = await self._store.list_tenants(limit=size + 1, after=position[0] if position else None)
        return cut(rows, size, (rows[size - 1].name,) if len(rows) > size else None)

    async def update_tenant(
        self,
        tenant_id: TenantId,
        *,
        display_name: str | None = None,
        tier: TierName | None = None,
        limits: Limits | None = None,
        version: int | None = None,
        principal: Principal | None = None,
        idempotency: Idempotency | None = None,
    ) -> Tenant:
        """Changes what is not None; `limits` are all those of its own. A repeated request changes nothing.

        Raises TENANT_NOT_FOUND, TIER_NOT_FOUND, ETAG_MISMATCH, REQUEST_ID_REUSED.
        """
        return await self._store.update_tenant(
            tenant_id,
            display_name=display_name,
            tier=tier,
            state=None,
            limits=limits,
            version=version,
            now=self._clock.now(),
            request=_request(principal, idempotency),
        )

    async def set_state(self, tenant_id: TenantId, state: TenantState) -> Tenant:
        """Suspends or resumes a tenant; the operators' own can't be suspended. Raises TENANT_NOT_FOUND."""
        tenant = await self.get_tenant(tenant_id)
        if tenant.state is state:
            return tenant
        if tenant.is_operator:
            raise invalid_field("tenant_id", "the operators' own tenant can't be suspended")
        return await self._store.update_tenant(
            tenant_id,
            display_name=None,
            tier=None,
            state=state,
            limits=None,
            version=None,
            now=self._clock.now(),
            request=None,
        )

    async def create_api_key(
        self,
        principal: Principal | None,
        tenant_id: TenantId,
        display_name: str,
        scopes: Sequence[Scope],
        expires_at: datetime | None,
        *,
        idempotency: Idempotency | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key with its secret, which is told only here: empty for a repeated request.

        Raises TENANT_NOT_FOUND, REQUEST_ID_REUSED, INVALID_FIELD.
        """
        now = self._clock.now()
        tenant = await self.get_tenant(tenant_id)
        if Scope.ADMIN in scopes and not tenant.is_operator:
            raise invalid_field("scopes", "only keys of the operators' own tenant can have the scope admin")
        if expires_at is not None and expires_at <= now:
            raise invalid_field("expire_time", "must be in the future")
        text = new_key()
        key = ApiKey(
            id=ApiKeyId(new_id()),
            tenant_id=tenant_id,
            display_name=display_name,
            prefix=text.prefix,
            scopes=tuple(scopes) or DEFAULT_SCOPES,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
        made = await self._store.create_api_key(key, text.secret_hash, _request(principal, idempotency))
        if not isinstance(made, UUID):
            return made, str(text)
        return await self._api_key(tenant_id, ApiKeyId(made)), ""

    async def rotate_api_key(
        self,
        principal: Principal,
        tenant_id: TenantId,
        api_key_id: ApiKeyId,
        *,
        overlap: timedelta | None = None,
        expires_at: datetime | None = None,
        idempotency: Idempotency | None = None,
    ) -> RotatedKey:
        """A new key with the name and the scopes of another, which ends after `overlap`: an hour for None.

        Raises API_KEY_NOT_FOUND for a key that is not there or has ended, REQUEST_ID_REUSED, INVALID_FIELD.
        """
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise invalid_field("expire_time", "must be in the future")
        text = new_key()
        made = await self._store.rotate_api_key(
            tenant_id,
            api_key_id,
            Successor(ApiKeyId(new_id()), text.prefix, text.secret_hash, now, expires_at),
            _request(principal, idempotency),
            ends_at=now + (_OVERLAP if overlap is None else overlap),
        )
        if not isinstance(made, UUID):
            key, replaced = made
            return RotatedKey(key, str(text), replaced)
        return RotatedKey(
            await self._api_key(tenant_id, ApiKeyId(made)), "", await self._api_key(tenant_id, api_key_id)
        )

    async def list_api_keys(self, tenant_id: TenantId, *, size: int, position: tuple[str, ...] | None) -> Page[ApiKey]:
        """A tenant's keys, newest first. Raises TENANT_NOT_FOUND."""
        await self.get_tenant(tenant_id)
        rows = await self._store.list_api_keys(
            tenant_id, limit=size + 1, before=ApiKeyId(identifier(position)) if position else None
        )
        return cut(rows, size, (str(rows[size - 1].id),) if len(rows) > size else None)

    async def revoke_api_key(self, tenant_id: TenantId, api_key_id: ApiKeyId) -> ApiKey:
        """Ends a key, for good. Raises API_KEY_NOT_FOUND."""
        key = await self._store.revoke_api_key(tenant_id, api_key_id, now=self._clock.now())
        if key is None:
            raise api_key_not_found(api_key_id)
        return key

    def draft_tenant(self, name: str, display_name: str, tier: TierName, *, is_operator: bool = False) -> Tenant:
        """A tenant that is not stored yet."""
        now = self._clock.now()
        return Tenant(
            id=TenantId(new_id()),
            name=name,
            display_name=display_name or name,
            tier=tier,
            state=TenantState.ACTIVE,
            is_operator=is_operator,
            limits=Limits(),
            version=1,
            created_at=now,
            updated_at=now,
        )

    async def _api_key(self, tenant_id: TenantId, api_key_id: ApiKeyId) -> ApiKey:
        key = await self._store.get_api_key(tenant_id, api_key_id)
        if key is None:
            raise api_key_not_found(api_key_id)
        return key


def _request(principal: Principal | None, idempotency: Idempotency | None) -> Request | None:
    return Request(principal.tenant_id, idempotency) if principal and idempotency else None


def tenant_exists(name: str) -> MemoroError:
    """ALREADY_EXISTS / TENANT_EXISTS."""
    return MemoroError(
        Code.ALREADY_EXISTS, Reason.TENANT_EXISTS, f"a tenant named {name} exists", metadata={"name": name}
    )


def tenant_not_found(tenant_id: TenantId) -> MemoroError:
    return MemoroError(Code.NOT_FOUND, Reason.TENANT_NOT_FOUND, f"no tenant {tenant_id}")


def api_key_not_found(api_key_id: ApiKeyId) -> MemoroError:
    """NOT_FOUND / API_KEY_NOT_FOUND."""
    return MemoroError(Code.NOT_FOUND, Reason.API_KEY_NOT_FOUND, f"no API key {api_key_id} of this tenant")
