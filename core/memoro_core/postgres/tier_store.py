"""Tiers in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from memoro_core.errors import etag_mismatch
from memoro_core.postgres.admin_requests import done_before
from memoro_core.postgres.database import Database
from memoro_core.postgres.limit_rows import limits_of, to_limits_json
from memoro_core.postgres.queries import load_queries
from memoro_core.tenancy.model import Tier, TierName
from memoro_core.tenancy.ports import Request
from memoro_core.tenancy.tiers import tier_not_found, too_many_tiers

_SQL: Final = load_queries("tiers")


class PostgresTierStore:
    """TierStore over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_tiers(self) -> Sequence[Tier]:
        async with self._database.system_tx() as connection:
            return [_tier_of(row) for row in await connection.fetch(_SQL["list_tiers"])]

    async def put_tier(self, tier: Tier, *, version: int | None, most: int, request: Request | None) -> Tier:
        async with self._database.system_tx() as connection:
            if await done_before(connection, request, tier.name, tier.updated_at):
                return _tier_of((await connection.fetch(_SQL["get_tier"], tier.name))[0])
            await connection.execute(_SQL["lock_tiers"])
            versions = {row["tier"]: row["version"] for row in await connection.fetch(_SQL["tier_versions"])}
            actual = versions.get(tier.name)
            if version is not None and version != actual:
                raise etag_mismatch("tier", version, actual) if actual else tier_not_found(tier.name)
            if actual is None and len(versions) >= most:
                raise too_many_tiers(most)
            rows = await connection.fetch(
                _SQL["put_tier"],
                tier.name,
                to_limits_json(tier.limits),
                tier.shadow,
                tier.weight,
                tier.tenant_in_flight,
                tier.user_in_flight,
                tier.kept_succeeded,
                tier.kept_failed,
                tier.updated_at,
            )
        return _tier_of(rows[0])


def _tier_of(row: Record) -> Tier:
    return Tier(
        name=TierName(row["tier"]),
        limits=limits_of(row["limits"]),
        shadow=row["shadow"],
        weight=row["weight"],
        tenant_in_flight=row["tenant_in_flight"],
        user_in_flight=row["user_in_flight"],
        kept_succeeded=row["kept_succeeded"],
        kept_failed=row["kept_failed"],
        version=row["version"],
        updated_at=row["updated_at"],
    )
