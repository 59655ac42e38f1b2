"""The first tenants and keys, made without a key: by whoever holds the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from memoro_core.clock import Clock
from memoro_core.errors import MemoroError, Reason
from memoro_core.tenancy.keys import parse_key
from memoro_core.tenancy.model import ENTERPRISE_TIER, Scope, Tenant
from memoro_core.tenancy.ports import TenancyStore
from memoro_core.tenancy.service import TenancyService

OPERATOR_TENANT: Final = "operator"
DEV_TENANT: Final = "dev"
DEV_KEY: Final = "dev"
DEV_ADMIN_KEY: Final = "dev admin"
"""The names of what `memoro dev` makes: a tenant, its key, and one of the operators'."""


class Bootstrap:
    """Sees to it that tenants and keys are there; doing it again changes nothing."""

    def __init__(self, store: TenancyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tenancy = TenancyService(store, clock)

    async def operator(self) -> Tenant:
        """The operators' own tenant: the only one whose keys may have the scope admin."""
        return await self._tenant(OPERATOR_TENANT, "Operators", is_operator=True)

    async def tenant(self, name: str, display_name: str) -> Tenant:
        """The tenant of that name, of the tier enterprise if it is new."""
        return await self._tenant(name, display_name, is_operator=False)

    async def key(self, tenant: Tenant, display_name: str, scopes: Sequence[Scope], *, known: str | None = None) -> str:
        """The `known` key if it is one of the tenant's and stands, else a new one."""
        if known is not None and await self._stands(tenant, known):
            return known
        _, secret = await self._tenancy.create_api_key(None, tenant.id, display_name, scopes, None)
        return secret

    async def _tenant(self, name: str, display_name: str, *, is_operator: bool) -> Tenant:
        if tenant := await self._store.find_tenant(name):
            return tenant
        draft = self._tenancy.draft_tenant(name, display_name, ENTERPRISE_TIER, is_operator=is_operator)
        try:
            await self._store.create_tenant(draft, None)
        except MemoroError as error:
            if error.reason is not Reason.TENANT_EXISTS:
                raise
        made = await self._store.find_tenant(name)
        if made is None:
            raise RuntimeError(f"tenant {name} can't be made: another tenant is the operators' own")
        return made

    async def _stands(self, tenant: Tenant, text: str) -> bool:
        key = parse_key(text)
        credential = await self._store.find_credential(key.prefix) if key else None
        return (
            key is not None
            and credential is not None
            and credential.standing.tenant_id == tenant.id
            and credential.revoked_at is None
            and (credential.expires_at is None or credential.expires_at > self._clock.now())
            and key.matches(credential.secret_hash)
        )
