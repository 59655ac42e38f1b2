"""Publish and subscribe, on a single server and on a cluster, where every node hears what is published on any."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from memoro_core.redis.client import UNREACHABLE, RedisClient, cluster_of
from memoro_core.redis.keys import EVENT_CONTROL
from memoro_core.redis.script import Script

_publish: Final = Script("publish")


async def publish(redis: RedisClient, messages: Mapping[str, bytes]) -> None:
    """Sends a message to each channel, in one round trip. Raises what Redis raises."""
    if cluster_of(redis) is not None:
        await _publish(redis, [EVENT_CONTROL], [part for message in messages.items() for part in message])
        return
    pipeline = redis.pipeline(transaction=False)
    for channel, message in messages.items():
        pipeline.publish(channel, message)
    await pipeline.execute()


@asynccontextmanager
async def open_pubsub(redis: RedisClient) -> AsyncIterator[PubSub]:
    """A connection to listen on, which ends with its first error; of a cluster, to any node.

    Left to itself it would connect anew, and two tasks that use it, each for itself and at once.
    """
    cluster = cluster_of(redis)
    if cluster is None:
        pubsub = redis.pubsub()
    else:
        await cluster.initialize()
        pubsub = cluster.pubsub(node=secrets.choice(cluster.get_nodes()))
    try:
        await pubsub.connect()  # type: ignore[no-untyped-call]
        connection: Any = pubsub.connection
        usual, connection.retry = connection.retry, Retry(NoBackoff(), 0, supported_errors=())
        try:
            yield pubsub
        finally:
            # The pool takes it back.
            connection.retry = usual
    finally:
        with contextlib.suppress(*UNREACHABLE):
            await pubsub.aclose()  # type: ignore[no-untyped-call]
