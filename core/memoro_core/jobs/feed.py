"""Following all jobs of a tenant: one feed per watched tenant, and any number of watches that read from it.

A feed keeps the latest events in memory until its watches have told them. A watch is no more than a place in the order
of events: one that is behind what is kept, because it resumes or its reader is slow, pages through the database until
it has caught up.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from typing import Final

import structlog

from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId
from memoro_core.jobs.feed_order import beginning
from memoro_core.jobs.feed_ports import (
    FeedEvent,
    FeedHead,
    FeedPage,
    FeedPosition,
    FeedStore,
)
from memoro_core.jobs.ports import EventSubscription, EventTail
from memoro_core.jobs.resume import FeedSpot
from memoro_core.tasks import end_task

PAGE: Final = 500
"""Events per read."""
_KEPT: Final = 2_000
_PAUSE: Final = 0.01
"""Between two reads, so that what happens meanwhile is read at once."""
_PAUSE_PER_WATCH: Final = 50e-6
"""More of it for many watches, each of which every read wakes."""
HELD_PAUSE: Final = 0.02
"""After it is looked again for events that can't be told yet; by a feed, after twice as long each time."""
_LONGEST_HELD_PAUSE: Final = 1.0
_log = structlog.get_logger(__name__)


class Reader:
    """A watch, as its feed knows it: all up to its spot is told or was not asked for."""

    __slots__ = ("spot",)

    def __init__(self, spot: FeedSpot) -> None:
        self.spot = spot


class Feed:
    """The latest events of one tenant, read from the database whenever something happens."""

    def __init__(self, tenant_id: TenantId, store: FeedStore, tail: EventTail) -> None:
        self._tenant_id = tenant_id
        self._store = store
        self._tail = tail
        self._events: list[FeedEvent] = []
        self._floor: FeedPosition | None = None
        self._head: FeedHead | None = None
        self._inbox: EventSubscription | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self.readers: set[Reader] = set()

    @property
    def head(self) -> FeedHead | None:
        """How far the feed has read; None as long as it has not begun."""
        return self._head

    def next_change(self) -> asyncio.Event:
        """Is set with the next change. Take it before reading, and no change is missed."""
        if self._task.done():
            self._task.result()
        return self._changed

    def begin(self, head: FeedHead) -> None:
        """Reads on from here, unless the feed has begun already and its transaction ids still mean what they meant."""
        if self._head is None or self._head.origin != head.origin:
            self._begin_anew(head)
            self.nudge()

    def nudge(self) -> None:
        """Says that there may be something new."""
        if self._inbox is not None:
            self._inbox.missed()

    def after(self, reader: Reader) -> FeedPage | None:
        """What the feed has behind a reader's place; None when that is not for the feed to say."""
        if self._head is None or self._floor is None or reader.spot.origin != self._head.origin:
            return None
        if reader.spot.position < self._floor:
            return None
        events = self._events[bisect_right(self._events, reader.spot.position, key=_position) :]
        if more := len(events) > PAGE:
            # Without an end for a page, all that there is is one.
            count = beginning(events, PAGE) or len(events)
            events, more = events[:count], count < len(events)
        return FeedPage(
            events,
            events[-1].position if more else max(reader.spot.position, self._head.position),
            self._head,
            more=more,
        )

    def ahead_of(self, reader: Reader) -> bool:
        """Whether the feed has dropped, or never had, what comes next for a reader."""
        return self._floor is not None and reader.spot.position < self._floor

    def advance(self, head: FeedHead) -> None:
        """Takes note that nothing happened up to there."""
        if self._head is not None and head.origin == self._head.origin:
            self._head = max(self._head, head, key=lambda one: one.position)

    async def close(self) -> None:
        """Ends it."""
        await end_task(self._task)

    async def _run(self) -> None:
        try:
            async with self._tail.follow(self._tenant_id) as self._inbox:
                await self._read_on(self._inbox)
        finally:
            self._tell()

    async def _read_on(self, inbox: EventSubscription) -> None:
        loop, held_pause = asyncio.get_running_loop(), HELD_PAUSE
        # What happened before the tail was listened to.
        inbox.missed()
        while True:
            await inbox.next()
            if self._head is None:
                continue
            try:
                page = await self._store.read(self._tenant_id, self._head.position, limit=PAGE)
            except MemoroError as error:
                # Whoever looks after the feeds sends this one back to the database.
                _log.warning("feed_not_read", tenant_id=str(self._tenant_id), reason=str(error))
                continue
            self._take(page)
            if page.more:
                inbox.missed()
            elif page.held:
                loop.call_later(held_pause, inbox.missed)
                before, held_pause = held_pause, min(2 * held_pause, _LONGEST_HELD_PAUSE)
                if before < held_pause == _LONGEST_HELD_PAUSE:
                    _log.warning("feed_held_back", tenant_id=str(self._tenant_id), reason="a long transaction writes")
            else:
                held_pause = HELD_PAUSE
            await asyncio.sleep(_PAUSE + _PAUSE_PER_WATCH * len(self.readers))

    def _take(self, page: FeedPage) -> None:
        assert self._head is not None
        if page.head.origin != self._head.origin:
            # What was read may have been taken back, and something else come in its place: all readers are sent to the
            # database, which tells them the same.
            _log.warning("feed_begun_anew", tenant_id=str(self._tenant_id))
            self._begin_anew(page.head)
            return
        self._head = FeedHead(page.end, page.head.origin, page.at)
        if page.events:
            self._drop_told(len(page.events))
            self._events += page.events
            self._tell()

    def _begin_anew(self, head: FeedHead) -> None:
        self._events.clear()
        self._floor, self._head = head.position, head
        self._tell()

    def _drop_told(self, coming: int) -> None:
        """Drops what all readers have told, and of the rest the oldest when it is too much."""
        told = min((reader.spot.position for reader in self.readers), default=None)
        count = len(self._events) if told is None else bisect_right(self._events, told, key=_position)
        count = min(max(count, len(self._events) + coming - _KEPT), len(self._events))
        if count:
            self._floor = self._events[count - 1].position
            del self._events[:count]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _position(event: FeedEvent) -> FeedPosition:
    return event.position
