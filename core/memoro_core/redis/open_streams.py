"""Open streams in Redis: for each tenant a hash of servers with their counts, which end when they are not renewed."""

from __future__ import annotations

import secrets
from typing import Final

from memoro_core.ids import TenantId
from memoro_core.redis.client import RedisClient, redis_errors
from memoro_core.redis.keys import open_streams
from memoro_core.redis.script import Argument, Script

_COUNTS_FOR: Final = 15_000
_script: Final = Script("streams")


class RedisStreamCounts:
    """A `StreamCounts`: what a server says counts for 15 seconds."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._name = secrets.token_hex(8)

    async def set(self, tenant_id: TenantId, count: int, *, maximum: int | None) -> bool:
        with redis_errors():
            arguments: list[Argument] = [self._name, count, maximum or 0, _COUNTS_FOR]
            return bool(await _script(self._redis, [open_streams(tenant_id)], arguments))
