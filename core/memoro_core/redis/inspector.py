"""What Redis tells of a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from memoro_core.diagnosis.model import RedisNode
from memoro_core.redis.client import RedisClient, cluster_of, redis_errors


class RedisServerInspector:
    """Asks each server that holds keys."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def nodes(self) -> Sequence[RedisNode]:
        """The servers that hold keys. Raises UNAVAILABLE."""
        cluster = cluster_of(self._client)
        with redis_errors():
            if cluster is None:
                return [_node(await self._client.info())]
            answers = await cluster.info(target_nodes="primaries")
        return [_node(answer) for answer in answers.values()]

    async def now(self) -> datetime:
        """The time of its clock; in a cluster, that of one server. Raises UNAVAILABLE."""
        with redis_errors():
            cluster = cluster_of(self._client)
            seconds, micros = await (self._client.time() if cluster is None else cluster.time(target_nodes="random"))
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


def _node(info: Mapping[str, Any]) -> RedisNode:
    # Valkey says of itself which Redis it is like, too.
    valkey = info.get("valkey_version")
    return RedisNode(
        product="Valkey" if valkey else "Redis",
        version=str(valkey or info["redis_version"]),
        eviction=str(info["maxmemory_policy"]),
        max_memory=int(info["maxmemory"]),
    )
