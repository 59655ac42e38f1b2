"""Limiters over real servers, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from uuid import uuid4

from memoro_core.billing.calendar import Calendar
from memoro_core.clock import Clock, SystemClock
from memoro_core.ids import TenantId, UserId
from memoro_core.limits.limiter import SharedLimiter
from memoro_core.limits.model import Ask, Limits, MethodClass, Rate, TenantLimits
from memoro_core.limits.units import DailyUnits
from memoro_core.postgres.database import open_database
from memoro_core.postgres.unit_store import PostgresUnitStore
from memoro_core.redis.client import open_redis
from memoro_core.redis.limit_buckets import RedisBuckets
from memoro_core.redis.servers import RedisServerRegister
from memoro_core.settings import Settings

PATIENT = 2.0
"""A budget that a busy machine does not use up."""


@asynccontextmanager
async def open_limiter(
    settings: Settings, *, timeout: float = PATIENT, servers: int = 1, clock: Clock | None = None
) -> AsyncIterator[SharedLimiter]:
    """That of one server."""
    async with (
        open_database(settings) as database,
        open_redis(settings) as redis,
        SharedLimiter(
            RedisBuckets(redis),
            DailyUnits(PostgresUnitStore(database), Calendar(UTC), clock or SystemClock()),
            RedisServerRegister(redis),
            timeout=timeout,
            servers=servers,
        ) as limiter,
    ):
        yield limiter


class Caller:
    """A tenant that calls under a policy."""

    def __init__(self, limits: Limits, *, version: str = "1", tenant_id: TenantId | None = None) -> None:
        self.tenant_id = tenant_id or TenantId(uuid4())
        self.policy = TenantLimits(limits, version)

    def ask(
        self,
        weight: int = 1,
        method_class: MethodClass = MethodClass.READ,
        users: Mapping[str, int] | None = None,
    ) -> Ask:
        """One call."""
        of_users = {UserId(user): tokens for user, tokens in (users or {}).items()}
        return Ask(self.tenant_id, self.policy, method_class, weight, of_users)

    def under(self, limits: Limits, *, version: str) -> Caller:
        """The same tenant under another policy."""
        return Caller(limits, version=version, tenant_id=self.tenant_id)


def per_second(rate: int, burst: int) -> Rate:
    """So many tokens a second."""
    return Rate(60 * rate, burst)
