"""What decides how much callers may do at once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from memoro_core.container.ground import Ground
from memoro_core.limits.limiter import SharedLimiter, Unlimited
from memoro_core.limits.ports import Limiter, OpenStreams
from memoro_core.limits.streams import LocalOpenStreams
from memoro_core.redis.limit_buckets import RedisBuckets


@dataclass(frozen=True, slots=True)
class Limiting:
    """What decides."""

    limiter: Limiter
    open_streams: OpenStreams


async def open_limits(ground: Ground, stack: AsyncExitStack) -> Limiting:
    """Opens it; the stack closes it."""
    settings = ground.settings
    if not settings.limits:
        return Limiting(Unlimited(), LocalOpenStreams())
    limiter = SharedLimiter(RedisBuckets(ground.redis), ground.calendar, ground.clock, timeout=settings.limit_timeout)
    return Limiting(limiter, LocalOpenStreams())
