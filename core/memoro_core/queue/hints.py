"""Hints into Redis streams, one stream per tier."""

from __future__ import annotations

from collections.abc import Sequence

from memoro_core.jobs.model import JobRef
from memoro_core.queue.tasks import FIELD, encode
from memoro_core.redis.client import RedisClient, redis_errors
from memoro_core.redis.keys import hint_stream
from memoro_core.tenancy.model import Tier


class RedisHintQueue:
    """A `HintQueue`: what the workers' broker reads."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def send(self, refs: Sequence[JobRef], *, tier: Tier = Tier.FREE) -> None:
        stream = hint_stream(tier)
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for ref in refs:
                pipeline.xadd(stream, {FIELD: encode(ref)})
            await pipeline.execute()

    async def backlog(self) -> int:
        with redis_errors():
            pipeline = self._redis.pipeline(transaction=False)
            for tier in Tier:
                pipeline.xlen(hint_stream(tier))
            return sum(await pipeline.execute())
