"""The connection to Redis, and what its failures mean to callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias, cast

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from memoro_core.errors import unavailable
from memoro_core.redis.write_errors import mend_write_errors
from memoro_core.redis_address import RedisAddress, Topology, parse_redis_url
from memoro_core.settings import Settings

RedisClient: TypeAlias = "Redis"
"""A client of any topology: that of a cluster has the same commands, as long as all keys of one are of one slot."""

COMMAND_TIMEOUT: Final = 2.0
CONNECT_TIMEOUT: Final = 1.0
HEALTH_CHECK_INTERVAL: Final = 15.0
_MAX_CONNECTIONS: Final = 16
"""A ceiling: what the process sends is gathered into pipelines, so that two or three connections do the work."""

mend_write_errors()

UNREACHABLE: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a call raises when Redis is away, starting, full or turning over."""


def connection_options(
    *, command_timeout: float | None = COMMAND_TIMEOUT, health_check_interval: float = HEALTH_CHECK_INTERVAL
) -> dict[str, Any]:
    """How every connection to Redis is made: soon given up, checked after idling, tried once more when stale."""
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": command_timeout,
        "socket_keepalive": True,
        "health_check_interval": health_check_interval,
        "retry": Retry(NoBackoff(), 1),
        # Version 3 of the protocol costs a round trip at connect and gives nothing that is used here.
        "protocol": 2,
    }


@asynccontextmanager
async def open_redis(
    settings: Settings,
    *,
    command_timeout: float | None = COMMAND_TIMEOUT,
    health_check_interval: float = HEALTH_CHECK_INTERVAL,
) -> AsyncIterator[RedisClient]:
    """A client, closed at the end. It connects when it is first used, so that a process starts while Redis is away.

    With a `health_check_interval` of 0 a command never waits for a check of its connection. With a `command_timeout` of
    None it is for the caller to give a command up; the event loop turns fewer times for each.
    """
    address = parse_redis_url(settings.redis_url)
    options = connection_options(command_timeout=command_timeout, health_check_interval=health_check_interval)
    async with _OPEN[address.topology](address, options) as client:
        yield client


def cluster_of(client: RedisClient) -> RedisCluster | None:
    """The client as that of a cluster, if it is one."""
    it: object = client
    return it if isinstance(it, RedisCluster) else None


@asynccontextmanager
async def _open_server(address: RedisAddress, options: dict[str, Any]) -> AsyncIterator[RedisClient]:
    pool = BlockingConnectionPool.from_url(
        address.server_url, max_connections=_MAX_CONNECTIONS, timeout=COMMAND_TIMEOUT, **options
    )
    client = Redis(connection_pool=pool)
    try:
        yield client
    finally:
        await client.aclose()
        await pool.disconnect()


@asynccontextmanager
async def _open_cluster(address: RedisAddress, options: dict[str, Any]) -> AsyncIterator[RedisClient]:
    client = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
        # A part of the slots is enough: what is kept here may be lost.
        require_full_coverage=False,
        **_without_host(address),
        **options,
    )
    try:
        yield cast("RedisClient", client)
    finally:
        await client.aclose()


@asynccontextmanager
async def _open_master(address: RedisAddress, options: dict[str, Any]) -> AsyncIterator[RedisClient]:
    own = _without_host(address)
    username, password = address.sentinel_login
    security = {name: value for name, value in own.items() if name.startswith("ssl")}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts), sentinel_kwargs={**options, **security, "username": username, "password": password}
    )
    client: RedisClient = sentinel.master_for(str(address.master), **own, **options)
    try:
        yield client
    finally:
        await client.aclose()
        await sentinel.aclose()


_OPEN: Final = {
    Topology.STANDALONE: _open_server,
    Topology.CLUSTER: _open_cluster,
    Topology.SENTINEL: _open_master,
}


def _without_host(address: RedisAddress) -> dict[str, Any]:
    """Credentials, database and TLS, as arguments of a client."""
    arguments = dict(parse_url(address.server_url))
    del arguments["host"], arguments["port"]
    arguments["ssl"] = arguments.pop("connection_class", None) is SSLConnection
    return arguments


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
