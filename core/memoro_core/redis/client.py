"""The connection to Redis, and what its failures mean to callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from memoro_core.errors import unavailable
from memoro_core.settings import Settings

RedisClient: TypeAlias = "Redis"

COMMAND_TIMEOUT: Final = 2.0
CONNECT_TIMEOUT: Final = 1.0
HEALTH_CHECK_INTERVAL: Final = 15.0
_MAX_CONNECTIONS: Final = 16
"""A ceiling: what the process sends is gathered into pipelines, so that two or three connections do the work."""

UNREACHABLE: Final = (RedisError, OSError, TimeoutError)
"""What a call raises when Redis is away, starting, full or turning over."""


def connection_options(*, command_timeout: float = COMMAND_TIMEOUT) -> dict[str, Any]:
    """How every connection to Redis is made: soon given up, checked after idling, tried once more when stale."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": command_timeout,
        "socket_keepalive": True,
        "health_check_interval": HEALTH_CHECK_INTERVAL,
        "retry": Retry(NoBackoff(), 1),
        # Version 3 of the protocol costs a round trip at connect and gives nothing that is used here.
        "protocol": 2,
    }


@asynccontextmanager
async def open_redis(settings: Settings, *, command_timeout: float = COMMAND_TIMEOUT) -> AsyncIterator[RedisClient]:
    """A client, closed at the end. It connects when it is first used, so that a process starts while Redis is away."""
    pool = BlockingConnectionPool.from_url(
        str(settings.redis_url),
        max_connections=_MAX_CONNECTIONS,
        timeout=COMMAND_TIMEOUT,
        **connection_options(command_timeout=command_timeout),
    )
    client = Redis(connection_pool=pool)
    try:
        yield client
    finally:
        await client.aclose()
        await pool.disconnect()


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turns what Redis raises in the block into UNAVAILABLE / DEPENDENCY_UNAVAILABLE."""
    try:
        yield
    except UNREACHABLE as error:
        raise unavailable("redis") from error


async def ping(client: RedisClient) -> None:
    """Asks Redis for a sign of life. Raises UNAVAILABLE."""
    with redis_errors():
        await client.ping()
