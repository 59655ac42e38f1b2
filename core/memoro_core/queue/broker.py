"""The broker that workers listen to: hints from Redis streams, whatever happens to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import ContextVar
from typing import Final

import structlog
from pydantic import ConfigDict
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.acks import AcknowledgeType
from taskiq.formatters.json_formatter import JSONFormatter
from taskiq.receiver import Receiver

from memoro_core.batching import Coalescer
from memoro_core.jobs.hints import HintClass
from memoro_core.jobs.slots import Reservation, Slots
from memoro_core.queue.reader import BLOCK, Entry, HintReader, ReclaimPolicy
from memoro_core.queue.streams import DATA
from memoro_core.redis.client import COMMAND_TIMEOUT, UNREACHABLE, RedisClient
from memoro_core.redis.keys import BACKLOG_STREAM, HINT_GROUP
from memoro_core.tasks import end_task

_log = structlog.get_logger(__name__)
READ_TIMEOUT: Final = BLOCK + COMMAND_TIMEOUT
"""Seconds after which a client that the broker is given must give a command up."""
_MAX_MESSAGES: Final = 100_000
"""Hints in the receiver's hands: more than any number of slots lets in."""

_reservation: ContextVar[Reservation] = ContextVar("reservation")


def current_reservation() -> Reservation:
    """In a task: what its hint holds of the slots."""
    return _reservation.get()


class HintMessage(AckableMessage):
    """A hint on its way through Taskiq."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reservation: Reservation
    done: Callable[[], None]
    """To be called when nobody works on the hint any more, acknowledged or not."""


class HintBroker(AsyncBroker):
    """Reads hints while there are slots for their jobs: fresh ones first, and the backlog beyond the reserve.

    Taskiq's own brokers for Redis lose or repeat messages when a connection breaks, a group is gone or a reader dies.
    This one makes the consumer groups from the first entry on, and again when they are gone (after FLUSHALL); takes
    over what a dead reader left behind, whether new hints come or not; goes on after a lost connection; deletes an
    entry with its acknowledgement, so that streams hold only what waits; and hands back what it can't get to.
    """

    def __init__(
        self, redis: RedisClient, slots: Slots, stop: asyncio.Event, *, policy: ReclaimPolicy | None = None
    ) -> None:
        """The client stays its owner's, and gives up a command after `READ_TIMEOUT` and not before."""
        super().__init__()
        self.formatter = JSONFormatter()
        self._redis = redis
        self._slots = slots
        self._stop = stop
        self._arrived = asyncio.Event()
        self._entries: dict[HintClass, deque[Entry]] = {each: deque() for each in HintClass}
        self._unreachable_since: float | None = None
        self._acknowledgements: Coalescer[None, Entry, None] = Coalescer(self._acknowledge_all)
        consumer = secrets.token_hex(8)
        self._readers = {
            each: HintReader(
                redis,
                consumer,
                each,
                slots,
                policy or ReclaimPolicy(),
                arrived=functools.partial(self._add, each),
                reached=self._note,
            )
            for each in HintClass
        }

    @property
    def unreachable_since(self) -> float | None:
        """Since when, by `time.monotonic`, Redis has not answered; None while it does."""
        return self._unreachable_since

    def receiver(self, *, grace: float) -> Receiver:
        """What runs the tasks; on stopping they have `grace` seconds to end."""
        # What is read is bounded by the slots, not here: a hint whose jobs wait must not keep the next from its slot.
        return _HintReceiver(
            self,
            max_async_tasks=_MAX_MESSAGES,
            ack_type=AcknowledgeType.MANUAL,
            validate_params=False,
            wait_tasks_timeout=grace,
        )

    async def startup(self) -> None:
        """Nothing to declare: groups are made when a read misses them, so that a worker starts while Redis is away."""
        self.is_worker_process = True

    async def shutdown(self) -> None:
        """Hands back what is not acknowledged, and leaves the groups."""
        await self._acknowledgements.close()
        with contextlib.suppress(*UNREACHABLE):
            for reader in self._readers.values():
                await reader.leave()
        await super().shutdown()

    async def kick(self, message: BrokerMessage) -> None:
        """Sends a task in Taskiq's way; hints go through `RedisHintQueue`."""
        await self._redis.xadd(BACKLOG_STREAM, {DATA: message.message})

    async def listen(self) -> AsyncGenerator[HintMessage, None]:
        """Hints, until `stop` is set or the generator is closed."""
        reading = [asyncio.create_task(reader.run()) for reader in self._readers.values()]
        for task in reading:
            task.add_done_callback(lambda _: self._arrived.set())
        try:
            while not self._stop.is_set():
                entry = self._next()
                if entry is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                    for task in reading:
                        if task.done():
                            task.result()
                elif entry.data is None:
                    _log.warning("hint_not_understood", entry=entry.id)
                    await self._acknowledge(entry)
                    self._drop(entry)
                else:
                    yield HintMessage.model_construct(
                        data=entry.data,
                        ack=functools.partial(self._acknowledge, entry),
                        reservation=entry.reservation,
                        done=functools.partial(self._drop, entry),
                    )
        finally:
            for task in reading:
                await end_task(task)

    def _next(self) -> Entry | None:
        for entries in self._entries.values():
            if entries:
                return entries.popleft()
        return None

    def _add(self, hint_class: HintClass, entry: Entry) -> None:
        self._entries[hint_class].append(entry)
        self._arrived.set()

    def _note(self, reached: bool) -> None:
        if reached:
            self._unreachable_since = None
        elif self._unreachable_since is None:
            self._unreachable_since = time.monotonic()

    def _drop(self, entry: Entry) -> None:
        entry.reservation.close()
        for reader in self._readers.values():
            reader.forget(entry)

    async def _acknowledge(self, entry: Entry) -> None:
        await self._acknowledgements.submit(None, entry)

    async def _acknowledge_all(self, _: None, entries: Sequence[Entry]) -> Sequence[None]:
        by_stream: defaultdict[str, list[str]] = defaultdict(list)
        for entry in entries:
            by_stream[entry.stream].append(entry.id)
        pipeline = self._redis.pipeline(transaction=False)
        for stream, entry_ids in by_stream.items():
            pipeline.xack(stream, HINT_GROUP, *entry_ids)
            pipeline.xdel(stream, *entry_ids)
        # Lost with the connection, it is made good when the entry is taken over: then the jobs are claimed already.
        with contextlib.suppress(*UNREACHABLE):
            await pipeline.execute()
        return [None] * len(entries)


class _HintReceiver(Receiver):
    """Gives each task the reservation of its hint, and tells the broker when the task is over, however it ended."""

    async def callback(self, message: bytes | AckableMessage, raise_err: bool = False) -> None:
        if not isinstance(message, HintMessage):
            raise TypeError("a message of another broker")
        _reservation.set(message.reservation)
        try:
            await super().callback(message, raise_err)
        finally:
            message.done()
