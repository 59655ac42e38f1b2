"""Following all jobs of a tenant: snapshots of those under way, then the events of all, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import structlog

from memoro_core.errors import MemoroError
from memoro_core.ids import TenantId
from memoro_core.jobs.feed import HELD_PAUSE, PAGE, Feed, Reader
from memoro_core.jobs.feed_order import in_order, without_overtaken
from memoro_core.jobs.feed_ports import (
    FeedEvent,
    FeedFilter,
    FeedPage,
    FeedStore,
    before_transaction,
)
from memoro_core.jobs.model import Job
from memoro_core.jobs.ports import EventTail
from memoro_core.jobs.resume import FeedSpot, FeedTokens, token_expired
from memoro_core.tasks import end_task

MAX_SNAPSHOTS: Final = 1_000
TOKEN_LIFETIME: Final = timedelta(hours=12)
"""Half of the shortest time that the settings let ended jobs be kept."""
_UNDONE: Final = 10_000
"""More transactions than any crash takes back: those of the last moments whose writers did not wait for the disk."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TenantWatchMessage:
    """A snapshot, an event, or None while nothing happens; with the token to go on after it."""

    event: Job | FeedEvent | None
    token: str


class TenantWatcher:
    """Lets any number of callers follow all jobs of their tenants, while its block is entered. Times are in seconds.

    The live tail says when there is something to read. Every `poll` seconds one statement for all watched tenants asks
    whether any has fallen behind: for new jobs, of which the tail does not tell, and for all while the tail is away.
    """

    def __init__(self, store: FeedStore, tail: EventTail, *, heartbeat: float, poll: float = 0.5) -> None:
        self._store = store
        self._tail = tail
        self._heartbeat = heartbeat
        self._poll = poll
        self._feeds: dict[TenantId, Feed] = {}
        self._poller: asyncio.Task[None] | None = None

    async def __aenter__(self) -> TenantWatcher:
        self._poller = asyncio.create_task(self._look_after())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poller is not None:
            await end_task(self._poller)
        for feed in self._feeds.values():
            await feed.close()

    @property
    def open_watches(self) -> int:
        """How many watches are under way."""
        return sum(len(feed.readers) for feed in self._feeds.values())

    async def watch(
        self,
        tenant_id: TenantId,
        feed_filter: FeedFilter,
        resume_token: str | None = None,
        *,
        kept: timedelta | None = None,
    ) -> AsyncGenerator[TenantWatchMessage, None]:
        """The messages after `resume_token`, or from the beginning: snapshots of the latest jobs, then one without any.

        It does not end by itself. Events come at least once, those of a job in order. A reader who is slow is not told
        the progress of a stage that a later event has overtaken. `kept` is how long the tenant's ended jobs are kept,
        if that is shorter than the settings allow. Raises RESUME_TOKEN_INVALID, RESUME_TOKEN_EXPIRED, UNAVAILABLE.
        """
        tokens = FeedTokens(tenant_id, feed_filter)
        spot = tokens.spot(resume_token) if resume_token else None
        begun = None if spot is None else spot.snapshots_after
        snapshots: Sequence[Job] | None = None
        if spot is None or begun is not None:
            head, snapshots = await self._store.begin(tenant_id, feed_filter, after=begun, limit=MAX_SNAPSHOTS)
            spot = spot or FeedSpot(head.position, head.origin, head.at)
        reader = Reader(spot)
        with self._reading(tenant_id, reader) as feed:
            # Whether a token still leads anywhere only the database knows.
            page = await self._read(tenant_id, reader, kept) if resume_token else None
            if snapshots is not None:
                for job in snapshots:
                    yield TenantWatchMessage(job, tokens.token(replace(reader.spot, snapshots_after=job.id)))
                reader.spot = replace(reader.spot, snapshots_after=None)
                yield TenantWatchMessage(None, tokens.token(reader.spot))
            quiet_until = self._quiet_until()
            while True:
                changed = feed.next_change()
                page = page or feed.after(reader) or await self._read(tenant_id, reader, kept)
                fitting = [event for event in page.events if feed_filter.fits(event)]
                # A reader for whom more than a page waits is a slow one.
                told = without_overtaken(fitting) if page.more else fitting
                straightened = in_order(told)
                for event in straightened:
                    # When events have changed places, a token behind one of them could leave another out.
                    if straightened is told:
                        reader.spot = FeedSpot(event.position, page.head.origin, event.change.at)
                    yield TenantWatchMessage(event, tokens.token(reader.spot))
                    quiet_until = self._quiet_until()
                reader.spot = FeedSpot(page.end, page.head.origin, page.at)
                if not page.more:
                    feed.begin(page.head)
                going_on, held, page = page.more or feed.ahead_of(reader), page.held, None
                if going_on:
                    if held:
                        await asyncio.sleep(HELD_PAUSE)
                    continue
                try:
                    async with asyncio.timeout_at(quiet_until):
                        await changed.wait()
                except TimeoutError:
                    yield TenantWatchMessage(None, tokens.token(reader.spot))
                    quiet_until = self._quiet_until()

    async def _read(self, tenant_id: TenantId, reader: Reader, kept: timedelta | None) -> FeedPage:
        """What the database has behind a reader's place. Raises RESUME_TOKEN_EXPIRED when some of it may be gone."""
        lifetime = TOKEN_LIFETIME if kept is None else min(TOKEN_LIFETIME, kept / 2)
        while True:
            spot = reader.spot
            page = await self._store.read(tenant_id, spot.position, limit=PAGE)
            head = page.head
            if head.at - spot.at > lifetime or head.origin.cluster != spot.origin.cluster:
                raise token_expired()
            if head.origin != spot.origin:
                # A crash may have taken transactions back, and others have got their ids.
                rewound = before_transaction(max(0, spot.position.transaction_id - _UNDONE))
                reader.spot = spot = FeedSpot(rewound, head.origin, spot.at)
            elif spot.position <= head.position:
                return page
            if spot.position > head.position:
                raise token_expired()

    def _quiet_until(self) -> float:
        return asyncio.get_running_loop().time() + self._heartbeat

    @contextmanager
    def _reading(self, tenant_id: TenantId, reader: Reader) -> Iterator[Feed]:
        feed = self._feeds.get(tenant_id)
        if feed is None:
            feed = self._feeds[tenant_id] = Feed(tenant_id, self._store, self._tail)
        feed.readers.add(reader)
        try:
            yield feed
        finally:
            feed.readers.discard(reader)

    async def _look_after(self) -> None:
        """Ends feeds that nobody reads, and sends those that have fallen behind to the database."""
        while True:
            await asyncio.sleep(self._poll)
            unread = [tenant_id for tenant_id, feed in self._feeds.items() if not feed.readers]
            for feed in [self._feeds.pop(tenant_id) for tenant_id in unread]:
                await feed.close()
            heads = {tenant_id: feed.head for tenant_id, feed in self._feeds.items() if feed.head is not None}
            if not heads:
                continue
            try:
                head, late = await self._store.behind({tenant_id: head.position for tenant_id, head in heads.items()})
            except MemoroError as error:
                _log.warning("feeds_not_looked_after", reason=str(error))
                continue
            for tenant_id, known in heads.items():
                if tenant_id in late or known.origin != head.origin:
                    self._feeds[tenant_id].nudge()
                else:
                    self._feeds[tenant_id].advance(head)
