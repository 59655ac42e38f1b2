"""Who serves, in Redis: a sorted set of servers by when they last said so."""

from __future__ import annotations

import secrets
from typing import Final

from memoro_core.redis.client import RedisClient, redis_errors
from memoro_core.redis.keys import SERVERS
from memoro_core.redis.script import Script

_GONE_AFTER: Final = 5.0
_script: Final = Script("beat")


class RedisServerRegister:
    """A `ServerRegister`."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._name = secrets.token_hex(8)

    async def beat(self) -> int:
        with redis_errors():
            return int(await _script(self._redis, [SERVERS], [self._name, _GONE_AFTER]))

    async def leave(self) -> None:
        with redis_errors():
            await self._redis.zrem(SERVERS, self._name)
