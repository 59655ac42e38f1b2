"""The live tail of job events over Redis' publish and subscribe.

A channel per tenant; a message is lines of a job's id and an event. One connection per process listens, whatever the
number of watches. Nothing is kept: what is published while nobody listens, or while Redis is away, is gone. Watchers
see that by the gap in the events' numbers and read the database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError

from memoro_core.ids import JobId, TenantId
from memoro_core.jobs.model import JobEvent
from memoro_core.redis.client import UNREACHABLE, RedisClient
from memoro_core.redis.keys import EVENT_CONTROL, event_channel
from memoro_core.redis.pubsub import open_pubsub, publish
from memoro_core.tasks import end_task

_EVENT: Final = TypeAdapter(JobEvent)
_ID_LENGTH: Final = 36
_ANY_JOB: Final = b""
_MAX_UNSENT: Final = 20_000
_MAX_BATCH: Final = 1_000
_MAX_UNREAD: Final = 256
_CONFIRM_TIMEOUT: Final = 1.0
_SILENCE: Final = 5.0
"""After so much silence the connection is asked for a sign of life; after as much again it is given up."""
_PAUSE: Final = 0.5
"""Between two tries while Redis is away."""
_CLOSE_TIMEOUT: Final = 1.0
_log = structlog.get_logger(__name__)


class RedisEventTail:
    """An `EventTail`, working while its block is entered."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._publisher = _Publisher(redis)
        self._listener = _Listener(redis)

    async def __aenter__(self) -> RedisEventTail:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._publisher.close()
        await self._listener.close()

    async def publish(self, tenant_id: TenantId, job_id: JobId, events: Sequence[JobEvent]) -> None:
        """Sends the events soon, together with what else there is to send; never waits for Redis and never raises."""
        channel, prefix = event_channel(tenant_id), str(job_id).encode()
        self._publisher.send([(channel, prefix + to_json(event, exclude_none=True)) for event in events])

    @asynccontextmanager
    async def subscribe(self, tenant_id: TenantId, job_id: JobId) -> AsyncIterator[Inbox]:
        """The events of a job that are published from the moment the block is entered.

        With Redis away the block is entered all the same, after a second; events then come once it is back.
        """
        async with self._listening(event_channel(tenant_id), str(job_id).encode()) as inbox:
            yield inbox

    @asynccontextmanager
    async def follow(self, tenant_id: TenantId) -> AsyncIterator[Inbox]:
        """Says with None that something was published of any job of the tenant, or that it may have been missed."""
        async with self._listening(event_channel(tenant_id), _ANY_JOB) as inbox:
            yield inbox

    @asynccontextmanager
    async def _listening(self, channel: str, job: bytes) -> AsyncIterator[Inbox]:
        inbox = Inbox()
        try:
            await self._listener.add(channel, job, inbox)
            yield inbox
        finally:
            self._listener.remove(channel, job, inbox)


class Inbox:
    """What has arrived for one watch and is not yet read: an `EventSubscription`."""

    def __init__(self) -> None:
        self._unread: deque[JobEvent | None] = deque()
        self._arrived = asyncio.Event()

    async def next(self) -> JobEvent | None:
        """The next event; None says that some may have been missed."""
        while not self._unread:
            self._arrived.clear()
            await self._arrived.wait()
        return self._unread.popleft()

    def put(self, event: JobEvent) -> None:
        """Adds an event. A reader that is too slow for the tail is sent to the database instead."""
        if len(self._unread) >= _MAX_UNREAD:
            self._unread.clear()
            self._unread.append(None)
        self._unread.append(event)
        self._arrived.set()

    def missed(self) -> None:
        """Says that events may have been missed."""
        if not self._unread or self._unread[-1] is not None:
            self._unread.append(None)
        self._arrived.set()


class _Publisher:
    """Sends what gathers while the batch before it is under way."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._unsent: deque[tuple[str, bytes]] = deque(maxlen=_MAX_UNSENT)
        self._task: asyncio.Task[None] | None = None
        self._away = False

    def send(self, lines: Sequence[tuple[str, bytes]]) -> None:
        self._unsent.extend(lines)
        if self._task is None and lines:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._task

    async def _run(self) -> None:
        try:
            while self._unsent:
                batch: defaultdict[str, list[bytes]] = defaultdict(list)
                for _ in range(min(len(self._unsent), _MAX_BATCH)):
                    channel, line = self._unsent.popleft()
                    batch[channel].append(line)
                await self._publish(batch)
        finally:
            self._task = None

    async def _publish(self, batch: dict[str, list[bytes]]) -> None:
        try:
            await publish(self._redis, {channel: b"\n".join(lines) for channel, lines in batch.items()})
        except UNREACHABLE as error:
            if not self._away:
                _log.warning("events_not_published", reason=type(error).__name__)
            self._away = True
            # What gathers in this pause is late already; watchers read it from the database.
            await asyncio.sleep(_PAUSE)
            self._unsent.clear()
        else:
            self._away = False


@dataclass(slots=True)
class _Channel:
    """A tenant's channel: who reads which job's events there."""

    inboxes: defaultdict[bytes, set[Inbox]] = field(default_factory=lambda: defaultdict(set))
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    lagging: bool = False
    """Somebody reads already, though Redis has not confirmed the subscription."""

    def missed(self) -> None:
        for inboxes in self.inboxes.values():
            for inbox in inboxes:
                inbox.missed()


class _Listener:
    """One connection that listens to the channels of all who watch, made anew whenever it breaks."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._channels: dict[str, _Channel] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, name: str, job: bytes, inbox: Inbox) -> None:
        channel = self._channels.setdefault(name, _Channel())
        channel.inboxes[job].add(inbox)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(_CONFIRM_TIMEOUT):
                await channel.confirmed.wait()
        except TimeoutError:
            channel.lagging = True

    def remove(self, name: str, job: bytes, inbox: Inbox) -> None:
        inboxes = self._channels[name].inboxes
        inboxes[job].discard(inbox)
        if not inboxes[job]:
            del inboxes[job]
        if not inboxes:
            self._changed.set()

    async def close(self) -> None:
        if self._task is not None:
            await end_task(self._task)

    async def _run(self) -> None:
        while True:
            try:
                async with open_pubsub(self._redis) as pubsub:
                    await self._listen(pubsub)
            except UNREACHABLE as error:
                _log.warning("events_not_received", reason=type(error).__name__)
            except Exception:  # noqa: BLE001 - all watches of this process depend on it
                _log.exception("events_not_received")
            await asyncio.sleep(_PAUSE)

    async def _listen(self, pubsub: PubSub) -> None:
        await pubsub.subscribe(EVENT_CONTROL)
        aligner = asyncio.create_task(self._align(pubsub))
        try:
            await self._read(pubsub, aligner)
        finally:
            await end_task(aligner)
            for channel in self._channels.values():
                channel.confirmed.clear()
                channel.lagging = True

    async def _align(self, pubsub: PubSub) -> None:
        """Subscribes to the channels that are wanted, and to no others."""
        subscribed: set[str] = set()
        while True:
            self._changed.clear()
            for name in [name for name, channel in self._channels.items() if not channel.inboxes]:
                del self._channels[name]
            wanted = set(self._channels)
            if missing := wanted - subscribed:
                await pubsub.subscribe(*missing)
            if unwanted := subscribed - wanted:
                await pubsub.unsubscribe(*unwanted)
            subscribed = wanted
            await self._changed.wait()

    async def _read(self, pubsub: PubSub, aligner: asyncio.Task[None]) -> None:
        silent = False
        while not aligner.done():
            message = await pubsub.get_message(timeout=_SILENCE)
            if message is not None:
                silent = False
                self._receive(message)
            elif silent:
                raise RedisConnectionError("no sign of life")
            else:
                silent = True
                await pubsub.ping()

    def _receive(self, message: dict[str, Any]) -> None:
        channel = self._channels.get((message["channel"] or b"").decode())
        if channel is None:
            return
        if message["type"] == "subscribe":
            if channel.lagging or channel.confirmed.is_set():
                channel.missed()
            channel.lagging = False
            channel.confirmed.set()
        elif message["type"] == "message":
            for follower in channel.inboxes.get(_ANY_JOB, ()):
                follower.missed()
            for line in message["data"].split(b"\n"):
                if inboxes := channel.inboxes.get(line[:_ID_LENGTH]):
                    try:
                        event = _EVENT.validate_json(line[_ID_LENGTH:])
                    except ValidationError as error:
                        # A newer worker's, or nobody's: what there is to know of the job stands in the database.
                        problems = error.error_count()
                        _log.warning("event_not_understood", job_id=line[:_ID_LENGTH].decode(), problems=problems)
                        for inbox in inboxes:
                            inbox.missed()
                        continue
                    for inbox in inboxes:
                        inbox.put(event)
