"""Reads one class of hints, while there is room for the jobs that they name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.exceptions import ResponseError

from memoro_core.jobs.hints import HINT_SIZE, HintClass
from memoro_core.jobs.slots import Reservation, Slots
from memoro_core.queue.streams import DATA, JOBS, STREAMS
from memoro_core.redis.client import UNREACHABLE, RedisClient
from memoro_core.redis.keys import HINT_GROUP
from memoro_core.redis.script import Script

_log = structlog.get_logger(__name__)
BLOCK: Final = 1.0
"""Seconds that one read waits for a hint."""
_PAUSES: Final = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds before the next try, after one, two … failures in a row."""
_PAGE: Final = 500

_take: Final = Script("take")
_hand_back: Final = Script("hand_back")


@dataclass(frozen=True, slots=True)
class ReclaimPolicy:
    """When hints whose reader is gone go to another; in seconds."""

    every: float = 2.0
    idle: float = 5.0
    """How long a hint may stay unacknowledged."""
    deliveries: int = 20
    """How often a hint is given to a reader. What none could acknowledge is dropped: its jobs will be hinted anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An entry of a stream that this consumer has read, with room reserved for its jobs."""

    stream: str
    id: str
    data: bytes | None
    reservation: Reservation

    @property
    def key(self) -> str:
        """What `take.lua` knows it by."""
        return f"{self.stream}/{self.id}"


class HintReader:
    """One consumer's reader of one class."""

    def __init__(
        self,
        redis: RedisClient,
        consumer: str,
        hint_class: HintClass,
        slots: Slots,
        policy: ReclaimPolicy,
        *,
        arrived: Callable[[Entry], None],
        reached: Callable[[bool], None],
    ) -> None:
        """`arrived` gets each entry; `reached` hears after each command whether Redis answered."""
        self._block = round(min(BLOCK, policy.every) * 1000)
        self._redis = redis
        self._consumer = consumer
        self._class = hint_class
        self._slots = slots
        self._policy = policy
        self._arrived = arrived
        self._reached = reached
        self._streams = list(STREAMS[hint_class])
        self._held: set[str] = set()
        self._next_reclaim = 0.0

    async def run(self) -> None:
        """Reads for ever, whatever happens to Redis."""
        failures = 0
        while True:
            await self._slots.wait_for_room(self._class)
            try:
                if not await self._take():
                    await self._wait()
                failures = 0
                self._reached(True)
            except UNREACHABLE as error:
                if not _group_missing(error):
                    if failures == 0:
                        _log.warning("hints_not_read", hints=str(self._class), reason=type(error).__name__)
                    self._reached(False)
                failures = await self._pause(failures)
            except Exception:  # noqa: BLE001 - a worker that no longer reads would look as if it were well
                _log.exception("hints_not_read", hints=str(self._class))
                failures = await self._pause(failures)

    def forget(self, entry: Entry) -> None:
        """Nobody here works on the entry any more: unless it is acknowledged, it may be taken over, from here too."""
        self._held.discard(entry.key)

    async def leave(self) -> None:
        """Hands back what is not acknowledged, and leaves the groups. Raises what Redis raises."""
        for stream in self._streams:
            with contextlib.suppress(ResponseError):  # without the group, there is nothing to leave
                while unread := await self._redis.xpending_range(
                    stream, HINT_GROUP, "-", "+", count=_PAGE, consumername=self._consumer
                ):
                    await _hand_back(self._redis, [stream], [HINT_GROUP, *(entry["message_id"] for entry in unread)])
                await self._redis.xgroup_delconsumer(stream, HINT_GROUP, self._consumer)

    async def _pause(self, failures: int) -> int:
        await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
        return failures + 1

    async def _take(self) -> bool:
        """Takes what is there already, from other readers too when it is time; whether there was anything."""
        now = asyncio.get_running_loop().time()
        room = self._slots.room(self._class)
        reclaims = now >= self._next_reclaim
        arguments: list[str | int] = [HINT_GROUP, self._consumer, room, 0, self._policy.deliveries]
        if reclaims:
            arguments[3] = round(self._policy.idle * 1000)
            arguments += self._held
        taken: Any = await _take(self._redis, self._streams, arguments)
        self._add(
            (stream, entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for stream, entry_id, fields in taken
        )
        if reclaims and self._slots.room(self._class):
            self._next_reclaim = now + self._policy.every
        # No tier's stream is always the first.
        self._streams.append(self._streams.pop(0))
        return bool(taken)

    async def _wait(self) -> None:
        """Waits for the next entry."""
        fetched: Any = await self._redis.xreadgroup(
            HINT_GROUP, self._consumer, dict.fromkeys(self._streams, ">"), count=1, block=self._block
        )
        entries = [(stream, entry_id, fields) for stream, items in fetched or () for entry_id, fields in items]
        if entries and not self._slots.room(self._class):
            # The room went elsewhere in the meantime.
            for stream, entry_id, _ in entries:
                await _hand_back(self._redis, [stream.decode()], [HINT_GROUP, entry_id])
            return
        self._add(entries)

    def _add(self, entries: Iterable[tuple[bytes, bytes, dict[bytes, bytes]]]) -> None:
        for stream, entry_id, fields in entries:
            reservation = self._slots.hold(self._class, _jobs(fields.get(JOBS.encode())))
            entry = Entry(stream.decode(), entry_id.decode(), fields.get(DATA.encode()), reservation)
            self._held.add(entry.key)
            self._arrived(entry)


def _jobs(field: bytes | None) -> int:
    return min(max(int(field), 1), HINT_SIZE) if field is not None and field.isdigit() else 1


def _group_missing(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)
