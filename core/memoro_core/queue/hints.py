"""Hints into Redis streams: streams per tier for what is fresh, and one for the backlog."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.model import JobRef
from memoro_core.queue.streams import DATA, JOBS, STREAMS
from memoro_core.queue.tasks import encode
from memoro_core.redis.client import RedisClient, redis_errors
from memoro_core.redis.keys import BACKLOG_STREAM, hint_stream
from memoro_core.tenancy.model import TierName

_TIMEOUT: Final = 1.0
"""Seconds for all of a call, connecting included: a hint is not worth more waiting."""


class RedisHintQueue:
    """A `HintQueue`: what the workers' broker reads."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis

    async def send_fresh(self, groups: Sequence[Sequence[JobRef]], tier: TierName) -> None:
        await self._send(groups, hint_stream(tier))

    async def send_backlog(self, groups: Sequence[Sequence[JobRef]]) -> None:
        await self._send(groups, BACKLOG_STREAM)

    async def oldest(self) -> Mapping[HintClass, datetime | None]:
        pipeline = self._redis.pipeline(transaction=False)
        classes = [(hint_class, stream) for hint_class, streams in STREAMS.items() for stream in streams]
        for _, stream in classes:
            # What is acknowledged is deleted: the first entry is the oldest that is not.
            pipeline.xrange(stream, count=1)
        oldest: dict[HintClass, datetime | None] = dict.fromkeys(STREAMS)
        for (hint_class, _), entries in zip(classes, await _execute(pipeline), strict=True):
            for entry_id, _fields in entries:
                sent = datetime.fromtimestamp(int(entry_id.split(b"-")[0]) / 1000, UTC)
                known = oldest[hint_class]
                oldest[hint_class] = sent if known is None else min(known, sent)
        return oldest

    async def _send(self, groups: Sequence[Sequence[JobRef]], stream: str) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for refs in groups:
            pipeline.xadd(stream, {DATA: encode(refs), JOBS: len(refs)})
        await _execute(pipeline)


async def _execute(pipeline: Any) -> list[Any]:
    with redis_errors():
        async with asyncio.timeout(_TIMEOUT):
            return list(await pipeline.execute())
