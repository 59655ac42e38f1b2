"""Tenants and keys in PostgreSQL."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import Record
from pydantic import TypeAdapter

from memoro_core.idempotency import request_id_reused
from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.limits.model import Limits, TenantLimits
from memoro_core.postgres.database import Connection, Database
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.model import ApiKey, Scope, Tenant, TenantState, Tier
from memoro_core.tenancy.ports import Credential, Request
from memoro_core.tenancy.service import tenant_exists

_SQL = load_queries("tenancy")
_LIMITS: Final = TypeAdapter(Limits)


class PostgresTenancyStore:
    """TenancyStore over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_tenant(self, tenant: Tenant, request: Request | None) -> Tenant | UUID:
        async with self._database.system_tx() as connection:
            if made := await _done_before(connection, request, tenant.id, tenant.created_at):
                return made
            row = await connection.fetchrow(
                _SQL["create_tenant"],
                tenant.id,
                tenant.name,
                tenant.display_name,
                tenant.tier,
                tenant.is_operator,
                tenant.created_at,
            )
            if row is None:
                raise tenant_exists(tenant.name)
            return _tenant_of(row)

    async def get_tenant(self, tenant_id: TenantId) -> Tenant | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["get_tenant"], tenant_id)
        return _tenant_of(row) if row else None

    async def find_tenant(self, name: str) -> Tenant | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["find_tenant"], name)
        return _tenant_of(row) if row else None

    async def list_tenants(self, *, limit: int, after: str | None) -> Sequence[Tenant]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["list_tenants"], after, limit)
        return [_tenant_of(row) for row in rows]

    async def update_tenant(
        self,
        tenant_id: TenantId,
        *,
        display_name: str | None,
        tier: Tier | None,
        state: TenantState | None,
        version: int | None,
        now: datetime,
    ) -> Tenant | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["update_tenant"], tenant_id, display_name, tier, state, version, now)
        return _tenant_of(row) if row else None

    async def create_api_key(self, key: ApiKey, secret_hash: bytes, request: Request | None) -> ApiKey | UUID:
        async with self._database.system_tx() as connection:
            if made := await _done_before(connection, request, key.id, key.created_at):
                return made
            rows = await connection.fetch(
                _SQL["create_api_key"],
                key.tenant_id,
                key.id,
                key.display_name,
                key.prefix,
                secret_hash,
                key.scopes,
                key.created_at,
                key.expires_at,
            )
        return _api_key_of(rows[0])

    async def get_api_key(self, tenant_id: TenantId, api_key_id: ApiKeyId) -> ApiKey | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["get_api_key"], tenant_id, api_key_id)
        return _api_key_of(row) if row else None

    async def list_api_keys(self, tenant_id: TenantId, *, limit: int, before: ApiKeyId | None) -> Sequence[ApiKey]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["list_api_keys"], tenant_id, before, limit)
        return [_api_key_of(row) for row in rows]

    async def revoke_api_key(self, tenant_id: TenantId, api_key_id: ApiKeyId, *, now: datetime) -> ApiKey | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["revoke_api_key"], tenant_id, api_key_id, now)
        return _api_key_of(row) if row else None

    async def find_credential(self, prefix: str) -> Credential | None:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["find_credential"], prefix)
        if row is None:
            return None
        return Credential(
            tenant_id=row["tenant_id"],
            api_key_id=row["api_key_id"],
            secret_hash=row["secret_hash"],
            scopes=frozenset(map(Scope, row["scopes"])),
            expires_at=row["expires_at"],
            revoked_at=row["revoked_at"],
            tier=Tier(row["tier"]),
            limits=TenantLimits(_LIMITS.validate_python(row["limits"]), row["limits_version"], row["shadow"]),
            jobs_kept=row["jobs_kept"],
            tenant_state=TenantState(row["state"]),
        )


async def _done_before(connection: Connection, request: Request | None, made: UUID, now: datetime) -> UUID | None:
    """The id that the request made before; None when it is new, and now remembered. Raises REQUEST_ID_REUSED."""
    if request is None:
        return None
    key = request.idempotency
    answer = {"id": str(made)}
    if await connection.fetchval(
        _SQL["record_admin_request"], request.tenant_id, key.request_id, key.fingerprint, answer, now
    ):
        return None
    row = (await connection.fetch(_SQL["find_admin_request"], request.tenant_id, key.request_id))[0]
    if not hmac.compare_digest(row["fingerprint"], key.fingerprint):
        raise request_id_reused(key.request_id)
    return UUID(row["answer"]["id"])


def _tenant_of(row: Record) -> Tenant:
    return Tenant(
        id=row["tenant_id"],
        name=row["name"],
        display_name=row["display_name"],
        tier=Tier(row["tier"]),
        state=TenantState(row["state"]),
        is_operator=row["is_operator"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _api_key_of(row: Record) -> ApiKey:
    return ApiKey(
        id=row["api_key_id"],
        tenant_id=row["tenant_id"],
        display_name=row["display_name"],
        prefix=row["prefix"],
        scopes=[Scope(scope) for scope in row["scopes"]],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )
