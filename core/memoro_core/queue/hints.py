"""Hints into Redis streams, one stream per tier."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio.client import Pipeline

from memoro_core.jobs.model import JobRef
from memoro_core.queue.tasks import FIELD, encode
from memoro_core.redis.client import RedisClient, redis_errors
from memoro_core.redis.keys import hint_stream
from memoro_core.tenancy.model import Tier

_TIMEOUT: Final = 1.0
"""Seconds for all of a call, connecting included: a hint is not worth more waiting."""


class RedisHintQueue:
    """A `HintQueue`: what the workers' broker reads."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def send(self, refs: Sequence[JobRef], *, tier: Tier = Tier.FREE) -> None:
        stream = hint_stream(tier)
        pipeline = self._redis.pipeline(transaction=False)
        for ref in refs:
            pipeline.xadd(stream, {FIELD: encode(ref)})
        await _execute(pipeline)

    async def backlog(self) -> int:
        pipeline = self._redis.pipeline(transaction=False)
        for tier in Tier:
            pipeline.xlen(hint_stream(tier))
        return sum(await _execute(pipeline))


async def _execute(pipeline: Pipeline) -> list[Any]:
    with redis_errors():
        async with asyncio.timeout(_TIMEOUT):
            return list(await pipeline.execute())
