"""Tenants and keys in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from asyncpg import ForeignKeyViolationError, Record

from memoro_core.batching import Coalescer
from memoro_core.errors import etag_mismatch
from memoro_core.ids import ApiKeyId, TenantId
from memoro_core.limits.model import Limits, TenantLimits, TenantUsage
from memoro_core.postgres.admin_requests import done_before
from memoro_core.postgres.database import Database
from memoro_core.postgres.limit_rows import limits_of, to_limits_json
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.model import ApiKey, Scope, Tenant, TenantState, TierName
from memoro_core.tenancy.ports import Credential, Request, Standing, Successor
from memoro_core.tenancy.service import api_key_not_found, tenant_exists, tenant_not_found
from memoro_core.tenancy.tiers import tier_not_found

_SQL: Final = load_queries("tenancy")
_LOOK_UPS: Final = 2


class PostgresTenancyStore:
    """TenancyStore over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Whoever guesses at keys has few connections, and many of his guesses are answered together.
        self._credentials: Coalescer[None, str, Credential | None] = Coalescer(
            self._find_credentials, max_parallel=_LOOK_UPS
        )

    async def create_tenant(self, tenant: Tenant, request: Request | None) -> Tenant | UUID:
        async with self._database.system_tx() as connection:
            if made := await done_before(connection, request, str(tenant.id), tenant.created_at):
                return UUID(made)
            with _known(tenant.tier):
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

    async def tenant_usage(self, tenant_id: TenantId) -> TenantUsage:
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["tenant_usage"], tenant_id)
        assert row is not None
        return TenantUsage(row["memories"], row["bytes"])

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
        tier: TierName | None,
        state: TenantState | None,
        limits: Limits | None,
        version: int | None,
        now: datetime,
        request: Request | None,
    ) -> Tenant:
        async with self._database.system_tx() as connection:
            if await done_before(connection, request, str(tenant_id), now):
                return _tenant_of((await connection.fetch(_SQL["get_tenant"], tenant_id))[0])
            with _known(tier):
                row = await connection.fetchrow(
                    _SQL["update_tenant"],
                    tenant_id,
                    display_name,
                    tier,
                    state,
                    version,
                    now,
                    None if limits is None else to_limits_json(limits),
                )
            if row is None:
                actual = await connection.fetchrow(_SQL["get_tenant"], tenant_id)
                if actual is None:
                    raise tenant_not_found(tenant_id)
                raise etag_mismatch("tenant", version or 0, actual["version"])
        return _tenant_of(row)

    async def create_api_key(self, key: ApiKey, secret_hash: bytes, request: Request | None) -> ApiKey | UUID:
        async with self._database.system_tx() as connection:
            if made := await done_before(connection, request, str(key.id), key.created_at):
                return UUID(made)
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

    async def rotate_api_key(
        self,
        tenant_id: TenantId,
        api_key_id: ApiKeyId,
        successor: Successor,
        request: Request | None,
        *,
        ends_at: datetime,
    ) -> tuple[ApiKey, ApiKey] | UUID:
        now = successor.created_at
        async with self._database.system_tx() as connection:
            if made := await done_before(connection, request, str(successor.id), now):
                return UUID(made)
            row = await connection.fetchrow(_SQL["end_api_key"], tenant_id, api_key_id, ends_at, now)
            if row is None:
                raise api_key_not_found(api_key_id)
            replaced = _api_key_of(row)
            rows = await connection.fetch(
                _SQL["create_api_key"],
                tenant_id,
                successor.id,
                replaced.display_name,
                successor.prefix,
                successor.secret_hash,
                replaced.scopes,
                now,
                successor.expires_at,
            )
        return _api_key_of(rows[0]), replaced

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
        return await self._credentials.submit(None, prefix)

    async def find_standing(self, tenant: TenantId | str) -> Standing | None:
        tenant_id, name = (None, tenant) if isinstance(tenant, str) else (tenant, None)
        async with self._database.system_tx() as connection:
            row = await connection.fetchrow(_SQL["find_standing"], tenant_id, name)
        return _standing_of(row) if row else None

    async def _find_credentials(self, _: None, prefixes: Sequence[str]) -> Sequence[Credential | None]:
        async with self._database.system_tx() as connection:
            rows = await connection.fetch(_SQL["find_credentials"], prefixes)
        found = {row["prefix"]: _credential_of(row) for row in rows}
        return [found.get(prefix) for prefix in prefixes]


@contextmanager
def _known(tier: TierName | None) -> Iterator[None]:
    """Raises TIER_NOT_FOUND where the database knows no such tier."""
    try:
        yield
    except ForeignKeyViolationError as error:
        if tier is None:
            raise
        raise tier_not_found(tier) from error


def _credential_of(row: Record) -> Credential:
    return Credential(
        api_key_id=row["api_key_id"],
        secret_hash=row["secret_hash"],
        scopes=frozenset(map(Scope, row["scopes"])),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        standing=_standing_of(row),
    )


def _standing_of(row: Record) -> Standing:
    return Standing(
        tenant_id=row["tenant_id"],
        state=TenantState(row["state"]),
        is_operator=row["is_operator"],
        tier=TierName(row["tier"]),
        limits=TenantLimits(limits_of(row["limits"]), row["limits_version"], row["shadow"]),
        jobs_kept=row["jobs_kept"],
    )


def _tenant_of(row: Record) -> Tenant:
    return Tenant(
        id=row["tenant_id"],
        name=row["name"],
        display_name=row["display_name"],
        tier=TierName(row["tier"]),
        state=TenantState(row["state"]),
        is_operator=row["is_operator"],
        limits=limits_of(row["limits"]),
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
