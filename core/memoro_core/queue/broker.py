"""The broker that workers listen to: Taskiq's Redis streams, made to survive what happens to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from taskiq import AckableMessage
from taskiq.formatters.json_formatter import JSONFormatter
from taskiq_redis import RedisStreamBroker

from memoro_core.batching import Coalescer
from memoro_core.queue.tasks import FIELD
from memoro_core.redis.client import UNREACHABLE, connection_options
from memoro_core.redis.keys import HINT_GROUP, hint_stream
from memoro_core.tenancy.model import Tier

_log = structlog.get_logger(__name__)
BLOCK: Final = 1.0
"""Seconds that one read waits for a hint."""
RECLAIM_EVERY: Final = 5.0
RECLAIM_IDLE: Final = 10.0
"""Seconds after which a hint that its reader has not acknowledged goes to another reader."""
_RECLAIM_BATCH: Final = 16
"""As many as one worker soon gets to: what it takes over is out of the others' sight."""
_PAUSES: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds before the next try, after one, two … failures in a row."""

_Entry = tuple[bytes, bytes, dict[bytes, bytes]]
"""The stream, the entry's id, and its fields."""


class HintBroker(RedisStreamBroker):
    """Reads hints one at a time, each when the receiver has a slot for it, from the streams of all tiers.

    Unlike its parent it makes the consumer group from the first entry on, and again when it is gone (after FLUSHALL);
    takes over what a dead reader left behind, whether new hints come or not; goes on after a lost connection; and
    deletes an entry with its acknowledgement, so that streams hold only what waits.
    """

    def __init__(
        self,
        url: str,
        stop: asyncio.Event,
        *,
        reclaim_every: float = RECLAIM_EVERY,
        reclaim_idle: float = RECLAIM_IDLE,
    ) -> None:
        options = connection_options(command_timeout=BLOCK + 5.0)
        super().__init__(
            url,
            queue_name=hint_stream(Tier.FREE),
            consumer_group_name=HINT_GROUP,
            consumer_name=secrets.token_hex(8),
            consumer_id="0",
            **options,
        )
        self.formatter = JSONFormatter()
        self._stop = stop
        self._reclaim_every = reclaim_every
        self._reclaim_idle = reclaim_idle
        self._streams = [hint_stream(tier) for tier in Tier]
        self._client = Redis(connection_pool=self.connection_pool)
        self._waiting: deque[_Entry] = deque()
        """Entries that are read, or taken over, and not yet handed out."""
        self._acknowledgements: Coalescer[None, tuple[bytes, bytes], None] = Coalescer(self._acknowledge_all)

    async def startup(self) -> None:
        """Nothing to declare: groups are made when a read misses them, so that a worker starts while Redis is away."""
        self.is_worker_process = True

    async def shutdown(self) -> None:
        """Leaves the groups and closes the connections."""
        await self._acknowledgements.close()
        with contextlib.suppress(*UNREACHABLE):
            for stream in self._streams:
                await self._leave(stream)
        await super().shutdown()

    async def _leave(self, stream: str) -> None:
        group, name = self.consumer_group_name, self.consumer_name
        # With a consumer its unacknowledged entries go, and nobody would ever read them: those stay for the others.
        if not await self._client.xpending_range(stream, group, "-", "+", count=1, consumername=name):
            await self._client.xgroup_delconsumer(stream, group, name)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Hints, until `stop` is set. That it is cancelled then as well is not enough: see `memoro_core.tasks`."""
        failures = 0
        next_reclaim = 0.0
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            try:
                if loop.time() >= next_reclaim:
                    await self._reclaim()
                    next_reclaim = loop.time() + self._reclaim_every
                entry = self._waiting.popleft() if self._waiting else await self._read()
                failures = 0
            except UNREACHABLE as error:
                if isinstance(error, ResponseError) and "NOGROUP" in str(error):
                    _log.info("hint_groups_made")
                    await self._declare()
                elif failures == 0:
                    _log.warning("hints_not_read", reason=type(error).__name__)
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1
                continue
            if entry is None:
                continue
            stream, entry_id, fields = entry
            if FIELD not in fields:
                _log.warning("hint_not_understood", entry=entry_id.decode())
                await self._acknowledge(stream, entry_id)()
                continue
            yield AckableMessage(data=fields[FIELD], ack=self._acknowledge(stream, entry_id))

    async def _read(self) -> _Entry | None:
        fetched: Any = await self._client.xreadgroup(
            self.consumer_group_name,
            self.consumer_name,
            dict.fromkeys(self._streams, ">"),
            count=1,
            block=round(BLOCK * 1000),
        )
        # One entry from each stream that has any: those beyond the first are kept for the next turns.
        entries = [(stream, entry_id, fields) for stream, items in (fetched or ()) for entry_id, fields in items]
        self._waiting.extend(entries[1:])
        return entries[0] if entries else None

    async def _reclaim(self) -> None:
        """Takes over entries whose reader is gone."""
        for stream in self._streams:
            answer: Any = await self._client.xautoclaim(
                stream,
                self.consumer_group_name,
                self.consumer_name,
                min_idle_time=round(self._reclaim_idle * 1000),
                count=_RECLAIM_BATCH,
            )
            self._waiting.extend((stream.encode(), entry_id, fields) for entry_id, fields in answer[1] if fields)

    async def _declare(self) -> None:
        # It fails where the group is there already; whatever else is wrong, the next read meets it too.
        for stream in self._streams:
            with contextlib.suppress(*UNREACHABLE):
                await self._client.xgroup_create(stream, self.consumer_group_name, id="0", mkstream=True)

    def _acknowledge(self, stream: bytes, entry_id: bytes) -> Callable[[], Awaitable[None]]:
        return functools.partial(self._acknowledgements.submit, None, (stream, entry_id))

    async def _acknowledge_all(self, _: None, entries: Sequence[tuple[bytes, bytes]]) -> Sequence[None]:
        by_stream: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for stream, entry_id in entries:
            by_stream[stream].append(entry_id)
        pipeline = self._client.pipeline(transaction=False)
        for stream, entry_ids in by_stream.items():
            pipeline.xack(stream, self.consumer_group_name, *entry_ids)
            pipeline.xdel(stream, *entry_ids)
        # Lost with the connection, it is made good when the entry is taken over: then the job is claimed already.
        with contextlib.suppress(*UNREACHABLE):
            await pipeline.execute()
        return [None] * len(entries)
