"""What decides how much callers may do at once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from memoro_core.container.ground import Ground
from memoro_core.limits.limiter import SharedLimiter
from memoro_core.limits.ports import Limiter, OpenStreams
from memoro_core.limits.streams import LocalOpenStreams, SharedOpenStreams
from memoro_core.limits.units import DailyUnits
from memoro_core.limits.unlimited import Unlimited
from memoro_core.postgres.unit_store import PostgresUnitStore
from memoro_core.redis.client import open_redis
from memoro_core.redis.limit_buckets import RedisBuckets
from memoro_core.redis.open_streams import RedisStreamCounts
from memoro_core.redis.servers import RedisServerRegister


@dataclass(frozen=True, slots=True)
class Limiting:
    """What decides."""

    limiter: Limiter
    open_streams: OpenStreams


async def open_limits(ground: Ground, stack: AsyncExitStack, *, serves: bool) -> Limiting:
    """Opens it; the stack closes it. A process that serves has its share of what all may admit without Redis."""
    settings = ground.settings
    if not settings.limits:
        return Limiting(Unlimited(), LocalOpenStreams())
    # Connections of its own, always open, never checked first, and given up by the limiter itself: in a busy event loop
    # each turn may take as long as there is for a decision.
    redis = await stack.enter_async_context(open_redis(settings, command_timeout=None, health_check_interval=0))
    limiter = await stack.enter_async_context(
        SharedLimiter(
            RedisBuckets(redis),
            DailyUnits(PostgresUnitStore(ground.database), ground.calendar, ground.clock),
            RedisServerRegister(redis) if serves else None,
            timeout=settings.limit_timeout,
            servers=settings.processes,
        )
    )
    streams = await stack.enter_async_context(
        SharedOpenStreams(
            RedisStreamCounts(ground.redis), lambda: limiter.counts.servers, timeout=settings.limit_timeout
        )
    )
    return Limiting(limiter, streams)
